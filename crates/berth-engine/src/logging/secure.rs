//! TLS to the endpoints of log drivers.

use std::io;
use std::path::Path;
use std::sync::Arc;

use berth_shim::log::TlsPlan;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls};

use super::Options;
use super::remote::PATIENCE;

/// What the shim needs to speak TLS with `host:port`, by the options of the driver `syslog`. As in Docker the mere presence
/// of `syslog-tls-skip-verify` counts.
///
/// # Errors
/// In Docker's words, with the file that cannot be read.
pub(super) fn syslog(host: &str, given: &Options) -> Result<TlsPlan, String> {
    let file = |name: &str| given.get(name).map(String::as_str).filter(|path| !path.is_empty());
    let authorities = match file("syslog-tls-ca-cert") {
        _ if given.contains_key("syslog-tls-skip-verify") => None,
        Some(path) => {
            Some(read(path).map_err(|error| format!("could not read CA certificate {path:?}: {error}"))?)
        }
        None => Some(berth_tls::system_authorities_text()),
    };
    let identity = match (file("syslog-tls-cert"), file("syslog-tls-key")) {
        (None, None) => None,
        (certificate, key) => {
            let part = |path: Option<&str>| {
                let text = path.map_or_else(|| Err("open : no such file or directory".into()), read);
                text.map_err(|error| format!("could not load X509 key pair: {error}"))
            };
            Some((part(certificate)?, part(key)?))
        }
    };
    Ok(TlsPlan { server: name(host), authorities, identity })
}

/// What the shim needs to speak TLS with a collector of Splunk at `host:port`; `anyone` believes any.
///
/// # Errors
/// The file with its authorities cannot be read.
pub(super) fn splunk(host: &str, given: &Options, anyone: bool) -> Result<TlsPlan, String> {
    let authorities = match given.get("splunk-capath") {
        _ if anyone => None,
        Some(path) => Some(read(path)?),
        None => Some(berth_tls::system_authorities_text()),
    };
    let server = given.get("splunk-caname").cloned().unwrap_or_else(|| name(host));
    Ok(TlsPlan { server, authorities, identity: None })
}

/// What the shim needs to speak TLS with an endpoint that the system's authorities vouch for.
pub(super) fn by_system(host: &str) -> TlsPlan {
    TlsPlan { server: name(host), authorities: Some(berth_tls::system_authorities_text()), identity: None }
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(Path::new(path)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("open {path}: no such file or directory"),
        _ => format!("open {path}: {error}"),
    })
}

/// The host of `host:port` or `[v6]:port`.
fn name(host: &str) -> String {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.trim_matches(['[', ']']).to_owned()
}

/// What failed, in Go's words where clients know them.
pub(super) fn told(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".into()
        }
        Some(rustls::Error::InvalidCertificate(reason)) => {
            format!("tls: failed to verify certificate: {reason}")
        }
        _ => format!("tls: {error}"),
    }
}

/// Agrees on TLS once, so that a container whose log could never be sent does not start. The shim does it again for
/// itself: such a connection cannot be handed over.
///
/// # Errors
/// Why that cannot be, beginning with `tls`.
pub(super) async fn agree(stream: TcpStream, plan: &TlsPlan) -> Result<(), String> {
    let (config, name) = plan.client().map_err(|error| told(&error))?;
    let agreed = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(PATIENCE, agreed).await {
        Ok(outcome) => outcome.map(drop).map_err(|error| told(&error)),
        Err(_) => Err("tls: handshake timed out".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pairs: &[(&str, &str)]) -> Result<TlsPlan, String> {
        let given = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        syslog("logs.example:6514", &given)
    }

    #[test]
    fn options_are_read_as_docker_does() {
        let anyone = plan(&[("syslog-tls-skip-verify", "false"), ("syslog-tls-ca-cert", "/none")]).unwrap();
        assert_eq!(anyone, TlsPlan { server: "logs.example".into(), ..TlsPlan::default() });
        assert_eq!(
            plan(&[("syslog-tls-ca-cert", "/none/ca")]).unwrap_err(),
            "could not read CA certificate \"/none/ca\": open /none/ca: no such file or directory"
        );
        assert_eq!(
            plan(&[("syslog-tls-skip-verify", ""), ("syslog-tls-cert", "/none/c")]).unwrap_err(),
            "could not load X509 key pair: open /none/c: no such file or directory"
        );
        assert_eq!(name("[::1]:6514"), "::1");
    }
}
