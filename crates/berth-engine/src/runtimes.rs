//! Runtimes by name.
//!
//! Berth starts containers itself. Its own name and those of runc all mean that, and so do names that an administrator
//! gave to runc. Other programs may be registered too, as in Docker, but no container can be started with one. The same holds
//! for containerd's shims, which need no registration: their names say which program they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Error;

/// Names that nobody needs to register: Berth's own, and those that Docker's users write.
const STOCK: [&str; 3] = ["berth", "runc", "io.containerd.runc.v2"];
/// The program that is containerd's shim of runc.
const RUNC_SHIM: &str = "containerd-shim-runc-v2";

/// A runtime that an administrator registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddedRuntime {
    /// The program, a path or a name that is looked for; empty if there is a kind.
    pub path: String,
    /// Arguments before those of the runtime's commands.
    pub arguments: Vec<String>,
    /// The name of a containerd shim, such as `io.containerd.kata.v2`; empty if there is a path.
    pub kind: String,
}

impl AddedRuntime {
    /// Whether it is runc, in whose place Berth works.
    fn is_runc(&self) -> bool {
        let name = Path::new(&self.path).file_name().and_then(|name| name.to_str());
        matches!(name, Some("runc" | "berth")) || (!self.kind.is_empty() && is_shim_of_runc(&self.kind))
    }

    fn check(&self, name: &str) -> Result<(), String> {
        match (self.path.is_empty(), self.kind.is_empty()) {
            (true, true) => Err(format!("runtime {name}: either a runtimeType or a path must be configured")),
            (false, false) => Err(format!(
                "runtime {name}: cannot configure both path and runtimeType for the same runtime"
            )),
            (true, false) if !self.arguments.is_empty() => {
                Err(format!("runtime {name}: args cannot be used with a runtimeType runtime"))
            }
            _ => Ok(()),
        }
    }
}

/// The program of one of containerd's shims, by a name such as `io.containerd.kata.v2` or by a path; None if it is neither.
fn shim_program(name: &str) -> Option<String> {
    if name.starts_with('/') {
        return Some(name.to_owned());
    }
    let mut parts = name.split('.');
    let (first, last) = (parts.next()?, parts.next_back()?);
    let kind = parts.next_back().unwrap_or(first);
    let valid = !first.is_empty() && !name.contains('/');
    valid.then(|| format!("containerd-shim-{kind}-{last}"))
}

fn is_shim_of_runc(name: &str) -> bool {
    // That one is never looked for: a host with Berth need not have it.
    let Some(program) = shim_program(name) else { return false };
    let found = find(&program).and_then(|path| path.canonicalize().ok());
    program == RUNC_SHIM || found.is_some_and(|path| path.file_name().is_some_and(|name| name == RUNC_SHIM))
}

/// Where a program is.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.exists())
}

/// Why no container can be started with a runtime that is this program.
fn refusal(name: &str, program: &str) -> Error {
    let why = match find(program) {
        Some(path) => {
            format!("Berth starts containers itself, and runs no other runtime ({})", path.display())
        }
        None if program.contains('/') => format!("{program}: no such file or directory"),
        None if program.starts_with("containerd-shim-") => {
            format!("binary not installed {program:?}: file does not exist")
        }
        None => format!("{program}: executable file not found in $PATH"),
    };
    Error::Runtime(format!("unable to start with runtime {name}: {why}"))
}

/// The runtimes that containers may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runtimes(BTreeMap<String, AddedRuntime>);

impl Runtimes {
    /// The stock ones and these.
    ///
    /// # Errors
    /// In Docker's words, if one of them takes a stock one's name or says too little or too much.
    pub fn with(added: BTreeMap<String, AddedRuntime>) -> Result<Runtimes, String> {
        for (name, runtime) in &added {
            // Docker reserves no more than `runc`; what else means runc here must not come to mean something else.
            if name == "runc" || (STOCK.contains(&name.as_str()) && !runtime.is_runc()) {
                return Err(format!("runtime name '{name}' is reserved"));
            }
            runtime.check(name)?;
        }
        Ok(Runtimes(added))
    }

    /// Whether a container may be created that asks for this one.
    pub fn knows(&self, name: &str) -> bool {
        // As in Docker, who may use the API may not choose a program by its path.
        let shim = || !name.contains('/') && shim_program(name).is_some();
        STOCK.contains(&name) || self.0.contains_key(name) || shim()
    }

    /// Refuses names that nobody registered.
    pub(crate) fn require(&self, name: &str) -> Result<(), Error> {
        if self.knows(name) {
            return Ok(());
        }
        Err(Error::InvalidParameter(format!("unknown or invalid runtime name: {name}")))
    }

    /// Refuses all that Berth cannot stand in for.
    pub(crate) fn require_startable(&self, name: &str) -> Result<(), Error> {
        self.require(name)?;
        match self.0.get(name) {
            Some(runtime) if runtime.is_runc() => Ok(()),
            Some(runtime) if runtime.kind.is_empty() => Err(refusal(name, &runtime.path)),
            Some(runtime) => {
                let program = shim_program(&runtime.kind);
                Err(refusal(name, program.as_deref().unwrap_or(&runtime.kind)))
            }
            None if STOCK.contains(&name) || is_shim_of_runc(name) => Ok(()),
            None => Err(refusal(name, &shim_program(name).unwrap_or_default())),
        }
    }

    /// The registered ones that no container can be started with.
    pub fn useless(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, runtime)| !runtime.is_runc()).map(|(name, _)| name.as_str())
    }

    /// All names; with each that an administrator registered, what it is.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Option<&AddedRuntime>)> {
        let stock = STOCK.into_iter().filter(|name| !self.0.contains_key(*name)).map(|name| (name, None));
        stock.chain(self.0.iter().map(|(name, runtime)| (name.as_str(), Some(runtime))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtimes(added: &[(&str, &str, &str)]) -> Result<Runtimes, String> {
        let added = added.iter().map(|(name, path, kind)| {
            let runtime = AddedRuntime { path: (*path).into(), kind: (*kind).into(), arguments: Vec::new() };
            ((*name).to_owned(), runtime)
        });
        Runtimes::with(added.collect())
    }

    #[test]
    fn names_of_runc_are_berths_own() {
        let shim = "io.containerd.runc.v2";
        let given =
            runtimes(&[("oci", "runc", ""), ("old", "/usr/sbin/runc", ""), ("new", "", shim)]).unwrap();
        for name in ["berth", "runc", shim, "oci", "old", "new"] {
            given.require_startable(name).unwrap();
        }
        assert_eq!(given.useless().count(), 0);
        assert_eq!(given.iter().count(), 6);
        let error = given.require("vm").unwrap_err();
        assert_eq!(error.to_string(), "unknown or invalid runtime name: vm");
    }

    #[test]
    fn other_programs_start_nothing() {
        let given =
            runtimes(&[("vm", "/no/such/vm", ""), ("sh", "sh", ""), ("kata", "", "io.containerd.kata.v2")]);
        let given = given.unwrap();
        assert_eq!(given.useless().collect::<Vec<_>>(), ["kata", "sh", "vm"]);
        for (name, words) in [
            ("vm", "/no/such/vm: no such file or directory"),
            ("sh", "/sh)"),
            ("kata", "binary not installed \"containerd-shim-kata-v2\": file does not exist"),
            (
                "io.containerd.nonsense.v9",
                "binary not installed \"containerd-shim-nonsense-v9\": file does not exist",
            ),
        ] {
            given.require(name).unwrap();
            let error = given.require_startable(name).unwrap_err().to_string();
            assert!(error.ends_with(words), "{error}");
        }
    }

    #[test]
    fn names_of_shims_say_their_programs() {
        for (name, program) in [
            ("io.containerd.kata.v2", Some("containerd-shim-kata-v2")),
            ("kata.v2", Some("containerd-shim-kata-v2")),
            ("/opt/shim", Some("/opt/shim")),
            ("kata", None),
            (".v2", None),
            ("a/b.v2", None),
            ("", None),
        ] {
            assert_eq!(shim_program(name).as_deref(), program, "{name}");
        }
        assert!(!Runtimes::default().knows("/opt/shim"));
    }

    #[test]
    fn what_says_too_little_or_too_much_is_refused() {
        for (name, path, kind, words) in [
            ("runc", "my-runc", "", "runtime name 'runc' is reserved"),
            ("runc", "runc", "", "runtime name 'runc' is reserved"),
            ("berth", "other", "", "runtime name 'berth' is reserved"),
            ("x", "", "", "runtime x: either a runtimeType or a path must be configured"),
            ("x", "x", "y", "runtime x: cannot configure both path and runtimeType for the same runtime"),
        ] {
            assert_eq!(runtimes(&[(name, path, kind)]).unwrap_err(), words);
        }
    }
}
