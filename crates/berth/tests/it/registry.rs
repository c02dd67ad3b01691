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
        Registry::start_at(folder, ADDRESS, "")
    }

    /// The same at another address, with further settings.
    pub fn start_at(folder: &Path, address: &str, settings: &str) -> Registry {
        let port = address.rsplit(':').next().unwrap();
        let config = folder.join(format!("registry-{port}.yml"));
        let storage = folder.join(format!("registry-{port}"));
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: \"{address}\"\n{settings}",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("docker-registry is installed");
        eventually("the registry listens", || TcpStream::connect(address).ok());
        Registry { child }
    }

    /// Starts a registry that only `someone` with the password `secret` may use.
    pub fn start_private(folder: &Path, address: &str) -> Registry {
        let accounts = folder.join("accounts");
        // bcrypt of "secret".
        fs::write(&accounts, "someone:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n")
            .unwrap();
        let settings = format!("auth:\n  htpasswd:\n    realm: private\n    path: {}\n", accounts.display());
        Registry::start_at(folder, address, &settings)
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
