//! Debian's `docker-registry`, serving plain HTTP on loopback inside the test's namespace.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::output::{eventually, run};

/// A running registry; it ends with the test's namespace, or when dropped.
pub struct Registry {
    child: Child,
}

/// Address of the registry; each test has loopback to itself.
pub const ADDRESS: &str = "127.0.0.1:5000";

impl Registry {
    /// Starts a registry that stores below `folder`. The calling thread must be in the test's namespace.
    pub fn start(folder: &Path) -> Registry {
        let config = folder.join("registry.yml");
        let storage = folder.join("registry");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {ADDRESS}\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("docker-registry is installed");
        eventually("the registry listens", || TcpStream::connect(ADDRESS).ok());
        Registry { child }
    }

    /// Copies an archive (`docker-archive:` or `oci-archive:`) into the registry as `name`.
    #[track_caller]
    pub fn push(&self, kind: &str, archive: &str, name: &str) {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        command.arg(format!("{kind}:{archive}")).arg(format!("docker://{ADDRESS}/{name}"));
        run(&mut command).ok();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
