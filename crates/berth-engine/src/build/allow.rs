//! The one gate for what a Dockerfile can ask of the host beyond what containers get.

use berth_build::dockerfile::{Network, Security};
use berth_build::solve::Program;

use super::BuildRequest;
use crate::Error;

/// The build as a whole runs with the host's network: its steps have it, too.
const HOST: &str = "host";

/// What a client has to allow by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Privilege {
    NetworkHost,
    SecurityInsecure,
}

impl Privilege {
    /// BuildKit's name.
    fn name(self) -> &'static str {
        match self {
            Privilege::NetworkHost => "network.host",
            Privilege::SecurityInsecure => "security.insecure",
        }
    }

    fn is_allowed(self, request: &BuildRequest) -> bool {
        request.allow.iter().any(|name| name == self.name())
            || self == Privilege::NetworkHost && request.host.network_mode == HOST
    }
}

/// Names that a client may allow.
pub(super) fn check_names(request: &BuildRequest) -> Result<(), Error> {
    let known = [Privilege::NetworkHost.name(), Privilege::SecurityInsecure.name()];
    match request.allow.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Error::InvalidParameter(format!("unknown entitlement {name}"))),
        None => Ok(()),
    }
}

/// Refuses a step that asks for more than the client allows.
pub(super) fn check(request: &BuildRequest, program: &Program) -> Result<(), Error> {
    let asked = [
        (program.network == Network::Host, Privilege::NetworkHost),
        (program.security == Security::Insecure, Privilege::SecurityInsecure),
    ];
    let refused = asked.iter().find(|(asks, privilege)| *asks && !privilege.is_allowed(request));
    match refused {
        Some((_, privilege)) => {
            let name = privilege.name();
            Err(Error::Forbidden(format!(
                "Dockerfile line {}: {name} is not allowed: allow it with --allow {name}",
                program.lines.first
            )))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_have_to_be_allowed() {
        let mut request = BuildRequest::default();
        let mut program = Program::default();
        assert!(check(&request, &program).is_ok());
        program.security = Security::Insecure;
        assert!(check(&request, &program).unwrap_err().to_string().contains("security.insecure"));
        request.allow = vec!["security.insecure".into()];
        assert!(check(&request, &program).is_ok() && check_names(&request).is_ok());
        program.network = Network::Host;
        assert!(check(&request, &program).is_err());
        request.host.network_mode = "host".into();
        assert!(check(&request, &program).is_ok());
        request.allow.push("everything".into());
        assert!(check_names(&request).is_err());
    }
}
