//! Log drivers that send elsewhere: their addresses, and what their shim is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_shim::log::remote::{Compression, Fluentd, Gelf, Journald, Protocol, Syslog, SyslogForm};
use berth_shim::log::{Endpoint, RemotePlan};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::address::{self, Address};
use super::value::{binary_size, boolean, duration, integer};
use super::{Options, Subject, attributes, options, secure, splunk};

/// How long a connection may take when a container starts.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that wait where the container waits for them.
const BLOCKING_QUEUE: usize = 256 << 10;
/// Docker's default for `max-buffer-size`, in bytes.
const BUFFER: u64 = 1_000_000;
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where a host's own syslog may listen.
const LOCAL_SYSLOG: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// The plan, and the descriptors that it announces.
pub(super) type Remote = (RemotePlan, Vec<OwnedFd>);

/// Makes the plan of a driver that sends elsewhere, and connects where Docker does so before the container starts.
///
/// # Errors
/// Why that cannot be, in Docker's words.
pub(super) async fn plan(driver: &str, subject: Subject<'_>, given: &Options) -> Result<Remote, String> {
    let buffer = buffer(given);
    let mut plan = RemotePlan {
        endpoint: Endpoint::Udp(Vec::new()),
        connected: false,
        protocol: Protocol::Journald(Journald { fields: BTreeMap::new() }),
        blocking: buffer.is_none(),
        queue_bytes: buffer.unwrap_or(BLOCKING_QUEUE),
        retry_wait: Duration::from_secs(1),
        attempts: 1,
        patience: None,
        tls: None,
    };
    let address = match driver {
        "syslog" => syslog(subject, given, &mut plan)?,
        "journald" => journald(subject, given, &mut plan)?,
        "gelf" => gelf(subject, given, &mut plan)?,
        "splunk" => splunk::plan(subject, given, &mut plan)?,
        _ => fluentd(subject, given, &mut plan)?,
    };
    let asynchronous =
        driver == "fluentd" && given.get("fluentd-async").is_some_and(|text| boolean(text) == Ok(true));
    let splunk = matches!(plan.protocol, Protocol::Splunk(_));
    let descriptors = reach(&address, &mut plan, !asynchronous && !splunk).await?;
    if splunk && splunk::is_verified(given)? {
        verify_splunk(&address, &plan).await?;
    }
    Ok((plan, descriptors))
}

/// Bytes that may wait where the container does not; `None` where it does.
pub(super) fn buffer(given: &Options) -> Option<usize> {
    let waits = given.get("mode").is_none_or(|mode| mode != "non-blocking");
    let bytes = given.get("max-buffer-size").and_then(|text| binary_size(text).ok()).unwrap_or(BUFFER);
    (!waits).then(|| usize::try_from(bytes).unwrap_or(usize::MAX))
}

fn tag(subject: &Subject<'_>, given: &Options) -> Result<String, String> {
    attributes::tag(subject, given, attributes::DEFAULT_TAG)
}

fn syslog(subject: Subject<'_>, given: &Options, plan: &mut RemotePlan) -> Result<Address, String> {
    let form = options::syslog_form(given.get("syslog-format"))?;
    let local_times = matches!(form, SyslogForm::Local | SyslogForm::Rfc3164);
    plan.protocol = Protocol::Syslog(Syslog {
        form,
        facility: options::facility(given.get("syslog-facility"))?,
        tag: tag(&subject, given)?,
        host: super::plan::host_name(),
        pid: std::process::id(),
        counted: false,
        zone: if local_times { std::fs::read("/etc/localtime").unwrap_or_default() } else { Vec::new() },
    });
    match given.get("syslog-address").filter(|text| !text.is_empty()) {
        Some(text) => {
            let address = address::syslog(text)?;
            if let Address::Tls(host) = &address {
                plan.tls = Some(secure::syslog(host, given)?);
                if let Protocol::Syslog(syslog) = &mut plan.protocol {
                    syslog.counted = matches!(syslog.form, SyslogForm::Rfc5424 | SyslogForm::Rfc5424Micro);
                }
            }
            Ok(address)
        }
        None => {
            let found = LOCAL_SYSLOG.iter().map(PathBuf::from).find(|path| path.exists());
            found
                .map(|path| Address::Unix { path, datagrams: None })
                .ok_or("Unix syslog delivery error".into())
        }
    }
}

fn journald(subject: Subject<'_>, given: &Options, plan: &mut RemotePlan) -> Result<Address, String> {
    let path = PathBuf::from(JOURNAL);
    if !path.exists() {
        return Err("journald is not enabled on this host".into());
    }
    let tag = tag(&subject, given)?;
    let own = [
        ("CONTAINER_ID", subject.short_id().to_owned()),
        ("CONTAINER_ID_FULL", subject.definition.id.clone()),
        ("CONTAINER_NAME", subject.name.to_owned()),
        ("CONTAINER_TAG", tag.clone()),
        ("IMAGE_NAME", subject.definition.config.image.clone()),
        ("SYSLOG_IDENTIFIER", tag),
        ("CONTAINER_LOG_EPOCH", crate::name::new_id().map_err(|error| error.to_string())?),
    ];
    let mut fields: BTreeMap<_, _> = own.map(|(name, value)| (name.to_owned(), value)).into();
    fields.extend(attributes::extra(&subject, given, journal_name));
    fields.retain(|name, _| !name.is_empty());
    plan.protocol = Protocol::Journald(Journald { fields });
    Ok(Address::Unix { path, datagrams: Some(true) })
}

/// The journal's names have capitals, digits and underscores, and begin with none of those.
fn journal_name(name: &str) -> String {
    let valid = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(valid).collect::<String>().trim_start_matches('_').to_owned()
}

fn gelf(subject: Subject<'_>, given: &Options, plan: &mut RemotePlan) -> Result<Address, String> {
    let address = address::gelf(given.get("gelf-address").map_or("", String::as_str))?;
    let number = |name: &str| given.get(name).and_then(|text| integer(text).ok());
    let compression = match given.get("gelf-compression-type").map(String::as_str) {
        Some("zlib") => Compression::Zlib,
        Some("none") => Compression::None,
        _ => Compression::Gzip,
    };
    let definition = subject.definition;
    let own = [
        ("_container_id", definition.id.clone()),
        ("_container_name", subject.name.to_owned()),
        ("_image_id", definition.image.clone()),
        ("_image_name", definition.config.image.clone()),
        ("_command", subject.command()),
        ("_tag", tag(&subject, given)?),
        ("_created", definition.created.to_string()),
    ];
    let mut fields: BTreeMap<_, _> = own.map(|(name, value)| (name.to_owned(), value)).into();
    fields.extend(attributes::extra(&subject, given, |name| format!("_{}", name.trim_start_matches('_'))));
    plan.protocol = Protocol::Gelf(Gelf {
        host: super::plan::host_name(),
        fields,
        datagrams: address.is_udp().then_some(compression),
        // Docker's default is the fastest.
        level: number("gelf-compression-level").and_then(|level| u32::try_from(level).ok()).unwrap_or(1),
    });
    plan.attempts =
        number("gelf-tcp-max-reconnect").and_then(|most| u32::try_from(most).ok()).unwrap_or(3).max(1);
    let delay =
        number("gelf-tcp-reconnect-delay").and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(1);
    plan.retry_wait = Duration::from_secs(delay.clamp(1, 3600));
    Ok(address)
}

fn fluentd(subject: Subject<'_>, given: &Options, plan: &mut RemotePlan) -> Result<Address, String> {
    let flag = |name: &str| given.get(name).is_some_and(|text| boolean(text) == Ok(true));
    let time = |name: &str| {
        let nanos = given.get(name).and_then(|text| duration(text).ok());
        nanos
            .and_then(|nanos| u64::try_from(nanos).ok())
            .map(Duration::from_nanos)
            .filter(|time| !time.is_zero())
    };
    let own =
        [("container_id", subject.definition.id.clone()), ("container_name", format!("/{}", subject.name))];
    let mut fields: BTreeMap<_, _> = own.map(|(name, value)| (name.to_owned(), value)).into();
    fields.extend(attributes::extra(&subject, given, str::to_owned));
    plan.protocol = Protocol::Fluentd(Fluentd {
        tag: tag(&subject, given)?,
        fields,
        sub_second: flag("fluentd-sub-second-precision"),
        acknowledge: flag("fluentd-request-ack"),
    });
    let retries = given.get("fluentd-max-retries").and_then(|text| text.parse::<u32>().ok());
    plan.attempts = retries.unwrap_or(i32::MAX as u32).max(1);
    plan.retry_wait = time("fluentd-retry-wait").unwrap_or(Duration::from_secs(1));
    plan.patience = time("fluentd-write-timeout").or_else(|| time("fluentd-read-timeout"));
    if flag("fluentd-async") {
        // What does not fit is lost, as in Docker.
        plan.blocking = false;
        plan.retry_wait = time("fluentd-async-reconnect-interval").unwrap_or(plan.retry_wait);
    }
    if let Some(bytes) = given.get("fluentd-buffer-limit").and_then(|text| binary_size(text).ok()) {
        plan.queue_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    let address = fluentd_address(given)?;
    if let Address::Tls(host) = &address {
        plan.tls = Some(secure::by_system(host));
    }
    Ok(address)
}

fn fluentd_address(given: &Options) -> Result<Address, String> {
    address::fluentd(given.get("fluentd-address").map_or("", String::as_str))
}

/// Finds the endpoint, and connects to one that has streams.
async fn reach(address: &Address, plan: &mut RemotePlan, connect: bool) -> Result<Vec<OwnedFd>, String> {
    match address {
        Address::Udp(host) => {
            plan.endpoint = Endpoint::Udp(resolve(host).await?);
            Ok(Vec::new())
        }
        Address::Tcp(host) | Address::Tls(host) => {
            let addresses = resolve(host).await?;
            plan.endpoint = Endpoint::Tcp(addresses.clone());
            if !connect {
                return Ok(Vec::new());
            }
            let stream = timely(host, TcpStream::connect(&addresses[..])).await?;
            if let Some(tls) = &plan.tls {
                secure::agree(stream, tls).await?;
                return Ok(Vec::new());
            }
            plan.connected = true;
            let stream = stream.into_std().map_err(|error| error.to_string())?;
            Ok(vec![stream.into()])
        }
        Address::Unix { path, datagrams } => unix(path, *datagrams, plan, connect).await,
    }
}

/// Asks a collector of Splunk whether it is one.
async fn verify_splunk(address: &Address, plan: &RemotePlan) -> Result<(), String> {
    let (Endpoint::Tcp(addresses), Protocol::Splunk(splunk)) = (&plan.endpoint, &plan.protocol) else {
        return Ok(());
    };
    let (Address::Tcp(host) | Address::Tls(host)) = address else { return Ok(()) };
    let stream = timely(host, TcpStream::connect(&addresses[..])).await?;
    splunk::verify(stream, plan.tls.as_ref(), &splunk.authority).await
}

async fn unix(
    path: &Path,
    datagrams: Option<bool>,
    plan: &mut RemotePlan,
    connect: bool,
) -> Result<Vec<OwnedFd>, String> {
    let failed = |error: std::io::Error| format!("dial unix {}: {error}", path.display());
    // A socket that is made anew is found again: only the directory is kept.
    let real = path.canonicalize().map_err(failed)?;
    let (Some(parent), Some(name)) = (real.parent(), real.file_name().and_then(|name| name.to_str())) else {
        return Err(format!("dial unix {}: no such socket", path.display()));
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(parent, flags, rustix::fs::Mode::empty()).map_err(|error| failed(error.into()))?;
    let takes_datagrams =
        || std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.connect(&real)).is_ok();
    let datagrams = datagrams.unwrap_or_else(takes_datagrams);
    plan.endpoint = Endpoint::Unix { name: name.to_owned(), datagrams };
    let mut descriptors = vec![directory];
    if connect && !datagrams {
        let stream = timely(&path.display().to_string(), UnixStream::connect(&real)).await?;
        plan.connected = true;
        descriptors.push(stream.into_std().map_err(|error| error.to_string())?.into());
    }
    Ok(descriptors)
}

async fn resolve(host: &str) -> Result<Vec<SocketAddr>, String> {
    let addresses: Vec<_> = timely(host, lookup_host(host)).await?.collect();
    if addresses.is_empty() { Err(format!("lookup {host}: no such host")) } else { Ok(addresses) }
}

async fn timely<T>(host: &str, work: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(format!("dial {host}: connect: connection refused"))
        }
        Ok(Err(error)) => Err(format!("dial {host}: {error}")),
        Err(_) => Err(format!("dial {host}: i/o timeout")),
    }
}
