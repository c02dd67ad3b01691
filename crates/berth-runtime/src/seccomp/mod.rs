//! seccomp profiles and their compilation to classic BPF.
//!
//! The language is that of the OCI configuration, and means what runc makes of it: several rules for a call are alternatives,
//! conditions of one rule must all hold unless two are about the same argument (then each is a rule), names
//! that no table has are passed over, and a call newer than all that the profile names fails with `ENOSYS`.

mod architecture;
mod assemble;
mod compile;
mod profile;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::OnceLock;

use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

use self::assemble::Instruction;
pub use self::compile::compile;
pub use self::profile::default_profile;

/// Why a profile does not become a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The action is one that this runtime does not carry out.
    #[error("the action {0} is not supported")]
    Action(String),
    /// The error number does not fit into a filter's answer.
    #[error("{0} is not an error number")]
    ErrorNumber(u32),
    /// System calls have six arguments.
    #[error("{name}: there is no argument {index}")]
    Argument {
        /// The call.
        name: String,
        /// The argument, counted from 0.
        index: usize,
    },
    /// The flag belongs to `SCMP_ACT_NOTIFY`.
    #[error("the flag {0} is not supported")]
    Flag(String),
    /// More instructions than the kernel takes.
    #[error("the filter is too long")]
    TooLong,
}

/// The filter that [`prepare`] has compiled.
static PREPARED: OnceLock<(LinuxSeccomp, Program)> = OnceLock::new();

/// Compiles the filter that most containers have, once, for the processes that this one forks: compiling takes longer than
/// a clone. One that cannot be compiled is left to those who need it.
pub fn prepare(profile: &LinuxSeccomp) {
    // As it will look when it comes to be asked for: what is empty is left out.
    let sent = serde_json::to_vec(profile).and_then(|text| serde_json::from_slice(&text));
    let Ok(sent): Result<LinuxSeccomp, _> = sent else { return };
    if let Ok(program) = compile(&sent) {
        // A second one changes nothing.
        let _ = PREPARED.set((sent, program));
    }
}

/// The filter of a profile, prepared or compiled now.
///
/// # Errors
/// As [`compile`].
pub fn program(profile: &LinuxSeccomp) -> Result<Program, Error> {
    match PREPARED.get() {
        Some((known, program)) if known == profile => Ok(program.clone()),
        _ => compile(profile),
    }
}

/// A compiled filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
}

impl Program {
    /// Installs the filter for the calling thread, for good.
    ///
    /// The caller needs `no_new_privs` or `CAP_SYS_ADMIN`.
    pub fn load(&self) -> io::Result<()> {
        let filter: Vec<libc::sock_filter> = self
            .instructions
            .iter()
            .map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k })
            .collect();
        berth_sys::seccomp::load(&filter, self.flags).map(drop)
    }

    /// How many instructions it has.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Whether it has none, which no compiled filter does.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }
}
