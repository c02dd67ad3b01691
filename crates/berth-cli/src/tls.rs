//! Whether the daemon is reached over TLS, and with which certificates, as Docker's flags and variables say.

use std::path::PathBuf;

use berth_client::{TlsFiles, Trust};
use clap::ArgMatches;

use crate::flags;

/// The certificates to use; none for no TLS.
pub fn files(matches: &ArgMatches) -> Option<TlsFiles> {
    choose(matches, |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn choose(matches: &ArgMatches, environment: impl Fn(&str) -> Option<PathBuf>) -> Option<TlsFiles> {
    let given = flags::given(matches, "tlsverify");
    let verify =
        if given { flags::on(matches, "tlsverify") } else { environment("DOCKER_TLS_VERIFY").is_some() };
    // As in Docker, `--tlsverify=false` asks for TLS too.
    if !verify && !given && !flags::on(matches, "tls") && environment("DOCKER_TLS").is_none() {
        return None;
    }
    let home = || environment("HOME").unwrap_or_else(|| "/root".into()).join(".docker");
    let directory =
        environment("DOCKER_CERT_PATH").or_else(|| environment("DOCKER_CONFIG")).unwrap_or_else(home);
    let path = |flag: &str, name: &str| match flags::text(matches, flag) {
        Some(path) => (PathBuf::from(path), true),
        None => (directory.join(name), false),
    };
    let (authority, _) = path("tlscacert", "ca.pem");
    let (certificate, chosen) = path("tlscert", "cert.pem");
    let (key, _) = path("tlskey", "key.pem");
    // A server that asks for no certificate can be reached without one.
    let identity = (chosen || certificate.exists()).then_some((certificate, key));
    Some(TlsFiles { trust: if verify { Trust::Authority(authority) } else { Trust::Anyone }, identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(line: &str, variables: &[(&str, &str)]) -> Option<TlsFiles> {
        let command = clap::Command::new("berth").disable_help_flag(true).args(crate::context::flags());
        let matches = command.try_get_matches_from(line.split(' ')).unwrap();
        choose(&matches, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn flags_and_variables_ask_for_tls() {
        assert_eq!(chosen("berth", &[]), None);
        assert_eq!(chosen("berth --tls", &[]), Some(TlsFiles::default()));
        assert_eq!(chosen("berth --tlsverify=false", &[]), Some(TlsFiles::default()));
        let files = chosen("berth", &[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/certs")]).unwrap();
        assert_eq!(files.trust, Trust::Authority("/certs/ca.pem".into()));
        assert_eq!(files.identity, None, "there is no such file");
        let files = chosen("berth --tlsverify --tlscacert=/ca --tlscert /c --tlskey /k", &[]).unwrap();
        assert_eq!(
            (files.trust, files.identity),
            (Trust::Authority("/ca".into()), Some(("/c".into(), "/k".into())))
        );
    }
}
