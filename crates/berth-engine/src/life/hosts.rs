//! Changes of the hosts file of a container that runs. What else the file says stays: users may have written it.

use std::net::IpAddr;
use std::sync::PoisonError;

use berth_network::Endpoint;
use ipnet::IpNet;

use super::owner::Owner;
use crate::Error;
use crate::engine::Parts;
use crate::spec::files;

impl Owner {
    /// Adds an endpoint's addresses to `/etc/hosts`, or takes them out.
    pub(super) fn edit_hosts(&self, endpoint: &Endpoint, add: bool) {
        let addresses: Vec<IpAddr> = endpoint.addresses.iter().map(IpNet::addr).collect();
        let lines = files::own_lines(&self.container.definition, &addresses);
        self.parts.edit_hosts(self.container.id(), |text| {
            if add { with(text, &lines) } else { without(text, &lines) }
        });
    }
}

impl Parts {
    /// Changes the hosts file of a container. A failure is told in the log: it is the container's loss alone.
    pub(crate) fn edit_hosts(&self, container: &str, edit: impl FnOnce(&str) -> String) {
        let edited = || -> Result<(), Error> {
            let path = self.storage.container_dir(container)?.join("hosts");
            let failed = |source| Error::Io { operation: format!("write {}", path.display()), source };
            // Owners of others write here too: a link follows its target.
            let _alone = self.hosts_edits.lock().unwrap_or_else(PoisonError::into_inner);
            let text = std::fs::read_to_string(&path).map_err(failed)?;
            let changed = edit(&text);
            if changed == text {
                return Ok(());
            }
            // In place: the container has this very file mounted.
            std::fs::write(&path, changed).map_err(failed)
        };
        if let Err(error) = edited() {
            tracing::warn!(container, %error, "the hosts file was not brought up to date");
        }
    }
}

fn with(text: &str, lines: &str) -> String {
    let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{separator}{lines}")
}

fn without(text: &str, lines: &str) -> String {
    let own: Vec<&str> = lines.lines().collect();
    text.lines().filter(|line| !own.contains(line)).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_wrote_stays() {
        let mine = "127.0.0.1\tlocalhost\n# mine\n10.0.0.9\tx";
        let lines = "10.1.0.2\tweb\nfd00::2\tweb\n";
        let more = with(mine, lines);
        assert_eq!(more, format!("{mine}\n{lines}"));
        assert_eq!(without(&more, lines), format!("{mine}\n"));
        assert_eq!(with("", lines), lines);
    }
}
