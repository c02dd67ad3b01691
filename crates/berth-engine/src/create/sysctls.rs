//! `--sysctl`: only kernel parameters that belong to a namespace of the container's own.

use berth_api::container::HostConfig;

use crate::Error;

/// Parameters of the IPC namespace; so is everything below `fs.mqueue`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses parameters of the host, in the words of Docker's runtime.
pub fn validate(host: &HostConfig) -> Result<(), Error> {
    for (key, _) in host.sysctls.iter().flatten() {
        if let Some(why) = refusal(host, &normal(key)) {
            return Err(Error::InvalidParameter(why));
        }
    }
    Ok(())
}

fn refusal(host: &HostConfig, key: &str) -> Option<String> {
    if IPC.contains(&key) || key.starts_with("fs.mqueue.") {
        let own = host.ipc_mode != "host";
        return (!own).then(|| format!("sysctl \"{key}\" is not allowed in host ipc namespace"));
    }
    if key.starts_with("net.") {
        let own = host.network_mode != "host";
        return (!own).then(|| format!("sysctl \"{key}\" not allowed in host network namespace"));
    }
    if host.uts_mode != "host" {
        match key {
            "kernel.domainname" => return None,
            "kernel.hostname" => {
                return Some(format!(
                    "sysctl \"{key}\" is not allowed as it conflicts with the OCI \"hostname\" field"
                ));
            }
            _ => {}
        }
    }
    Some(format!("sysctl \"{key}\" is not in a separate kernel namespace"))
}

/// A key with dots between its parts, whichever of its two notations it came in (sysctl(8)).
fn normal(key: &str) -> String {
    let by_slash = key.find('/').is_some_and(|slash| key.find('.').is_none_or(|dot| slash < dot));
    if !by_slash {
        return key.to_owned();
    }
    let exchange = |character| match character {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    key.chars().map(exchange).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, change: impl FnOnce(&mut HostConfig)) -> Result<(), String> {
        let sysctls = Some([(key.to_owned(), "1".to_owned())].into());
        let mut host = HostConfig { sysctls, ..Default::default() };
        change(&mut host);
        validate(&host).map_err(|error| error.to_string())
    }

    #[test]
    fn parameters_of_own_namespaces_pass() {
        for key in
            ["net.ipv4.ip_forward", "kernel.shmmax", "fs.mqueue.msg_max", "kernel.domainname", "net/ipv4/x.1"]
        {
            assert_eq!(check(key, |_| ()), Ok(()), "{key}");
        }
    }

    #[test]
    fn parameters_of_the_host_do_not() {
        for key in ["vm.swappiness", "kernel.panic", "kernel/panic", "kernel.hostname", "", "..", "net"] {
            assert!(check(key, |_| ()).is_err(), "{key}");
        }
        assert_eq!(
            check("net/ipv4/ip_forward", |host| host.network_mode = "host".into()).unwrap_err(),
            "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace"
        );
        assert!(check("kernel.sem", |host| host.ipc_mode = "host".into()).is_err());
        assert!(check("kernel.domainname", |host| host.uts_mode = "host".into()).is_err());
    }
}
