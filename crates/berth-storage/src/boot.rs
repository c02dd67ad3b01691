//! The boot of the host.

use crate::{Error, Result};

/// What tells this boot of the host apart from others, as the kernel names it (`random(4)`).
///
/// # Errors
/// There is no `/proc`.
pub fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(PATH).map_err(|error| Error::file("reading", PATH, error))?;
    Ok(text.trim().to_owned())
}
