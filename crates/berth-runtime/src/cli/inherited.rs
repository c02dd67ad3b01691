//! Descriptors of the caller that a program gets: `--preserve-fds`, and those of socket activation (sd_listen_fds(3)).

use std::path::Path;

use super::error::{Error, Result};

/// Descriptors of socket activation that this process was given.
pub(super) fn listening() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") == Some(std::process::id()) { number("LISTEN_FDS").unwrap_or(0) } else { 0 }
}

/// Makes sure that the descriptors from 3 on are there; to be called before anything else is opened.
pub(super) fn check(count: u32) -> Result<u32> {
    for fd in (3..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        if !Path::new(&format!("/proc/self/fd/{fd}")).exists() {
            return Err(Error::Invalid(format!("descriptor {fd} is to be preserved, but is not open")));
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_open_cannot_be_preserved() {
        assert_eq!(check(0).unwrap(), 0);
        assert!(check(u32::MAX).is_err());
    }
}
