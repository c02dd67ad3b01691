//! The log driver `splunk`: its options, and whether its collector is there. The messages are Docker's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use berth_shim::log::remote::{Protocol, Splunk, SplunkForm};
use berth_shim::log::{RemotePlan, TlsPlan};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::{Address, with_port};
use super::remote::PATIENCE;
use super::value::{boolean, integer};
use super::{Options, Subject, attributes, secure};

/// The names of its options.
pub(super) const OPTIONS: [&str; 13] = [
    "splunk-url",
    "splunk-token",
    "splunk-source",
    "splunk-sourcetype",
    "splunk-index",
    "splunk-capath",
    "splunk-caname",
    "splunk-insecureskipverify",
    "splunk-format",
    "splunk-verify-connection",
    "splunk-gzip",
    "splunk-gzip-level",
    "splunk-index-acknowledgment",
];
/// Where a collector takes events.
const PATH: &str = "/services/collector/event/1.0";
/// How long a collector has to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Attempts to reach a collector that is away; the waits between them become a minute together.
const ATTEMPTS: u32 = 6;
/// Bytes that are read of an answer.
const MOST: u64 = 4096;

/// Fills in a plan, and says where its collector is.
///
/// # Errors
/// Which option is missing or makes no sense.
pub(super) fn plan(subject: Subject<'_>, given: &Options, plan: &mut RemotePlan) -> Result<Address, String> {
    let text = |name: &str| given.get(name).cloned().unwrap_or_default();
    let (address, authority) = address(given.get("splunk-url"))?;
    let token = given.get("splunk-token").cloned().ok_or("splunk: splunk-token is expected")?;
    // As it goes into the head of requests.
    if token.chars().any(char::is_control) {
        return Err("splunk: splunk-token has characters that no token has".into());
    }
    if let Address::Tls(host) = &address {
        plan.tls =
            Some(secure::splunk(host, given, flag(given, "splunk-insecureskipverify")?.unwrap_or(false))?);
    }
    let level = match given.get("splunk-gzip-level") {
        None => -1,
        Some(text) => integer(text)?,
    };
    if !(-1..=9).contains(&level) {
        return Err(format!(
            "not supported level '{level}' for splunk-gzip-level (supported values between -1 and 9)"
        ));
    }
    let form = match given.get("splunk-format").map_or("inline", String::as_str) {
        "inline" => SplunkForm::Inline,
        "json" => SplunkForm::Json,
        "raw" => SplunkForm::Raw,
        other => {
            return Err(format!(
                "unknown format specified {other}, supported formats are inline, json and raw"
            ));
        }
    };
    // An empty template is none here, unlike with other drivers.
    let tag = match given.get("tag").map(String::as_str) {
        Some("") => String::new(),
        _ => attributes::tag(&subject, given, attributes::DEFAULT_TAG)?,
    };
    plan.protocol = Protocol::Splunk(Splunk {
        authority,
        path: PATH.into(),
        token,
        gzip: flag(given, "splunk-gzip")?.unwrap_or(false).then(|| u32::try_from(level).unwrap_or(6)),
        channel: flag(given, "splunk-index-acknowledgment")?.unwrap_or(false),
        host: super::plan::host_name(),
        origin: [text("splunk-source"), text("splunk-sourcetype"), text("splunk-index")],
        form,
        tag,
        attributes: attributes::extra(&subject, given, str::to_owned),
    });
    plan.patience = Some(ANSWER);
    plan.attempts = ATTEMPTS;
    Ok(address)
}

/// Whether the collector is to be asked before the container starts.
///
/// # Errors
/// The option is neither true nor false.
pub(super) fn is_verified(given: &Options) -> Result<bool, String> {
    Ok(flag(given, "splunk-verify-connection")?.unwrap_or(true))
}

fn flag(given: &Options, name: &str) -> Result<Option<bool>, String> {
    given.get(name).map(|text| boolean(text)).transpose()
}

/// Where the collector is, and what its URL calls it.
fn address(url: Option<&String>) -> Result<(Address, String), String> {
    let text = url.ok_or("splunk: splunk-url is expected")?;
    let wrong = || "splunk: expected format scheme://dns_name_or_ip:port for splunk-url".to_owned();
    let parsed = url::Url::parse(text)
        .map_err(|_| format!("splunk: failed to parse {text} as url value in splunk-url"))?;
    let more = parsed.path() != "/" || parsed.query().is_some() || parsed.fragment().is_some();
    let (Some(host), false) = (parsed.host_str(), more) else { return Err(wrong()) };
    let authority = parsed.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    match parsed.scheme() {
        "http" => Ok((Address::Tcp(with_port(&authority, 80)?), authority)),
        "https" => Ok((Address::Tls(with_port(&authority, 443)?), authority)),
        _ => Err(wrong()),
    }
}

/// Asks the collector whether it takes events.
///
/// # Errors
/// What it answers, or why nothing came.
pub(super) async fn verify(stream: TcpStream, tls: Option<&TlsPlan>, authority: &str) -> Result<(), String> {
    let asked = async {
        match tls {
            None => options(stream, authority).await,
            Some(tls) => {
                let (config, name) = tls.client()?;
                options(TlsConnector::from(Arc::new(config)).connect(name, stream).await?, authority).await
            }
        }
    };
    let answer = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| secure::told(&error))?,
        Err(_) => return Err(format!("Options \"{authority}\": i/o timeout")),
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status =
        head.lines().next().and_then(|line| line.split_once(' ')).map_or("no answer", |(_, status)| status);
    if status == "200" || status.starts_with("200 ") {
        return Ok(());
    }
    Err(format!("splunk: failed to verify connection - {status} - {body}"))
}

async fn options(mut stream: impl AsyncRead + AsyncWrite + Unpin, authority: &str) -> io::Result<String> {
    let request = format!("OPTIONS {PATH} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    match stream.take(MOST).read_to_end(&mut answer).await {
        // A server that hangs up without TLS's own farewell has answered all the same.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_scheme_and_a_host() {
        let of = |text: &str| address(Some(&text.to_owned()));
        assert_eq!(of("https://h:8088"), Ok((Address::Tls("h:8088".into()), "h:8088".into())));
        assert_eq!(of("http://h/"), Ok((Address::Tcp("h:80".into()), "h".into())));
        assert_eq!(of("http://[::1]:7"), Ok((Address::Tcp("[::1]:7".into()), "[::1]:7".into())));
        assert_eq!(address(None).unwrap_err(), "splunk: splunk-url is expected");
        for text in ["ftp://h", "http://h/x", "http://h?x", "http://h#x"] {
            let words = "splunk: expected format scheme://dns_name_or_ip:port for splunk-url";
            assert_eq!(of(text).unwrap_err(), words, "{text}");
        }
        assert_eq!(of("h").unwrap_err(), "splunk: failed to parse h as url value in splunk-url");
    }
}
