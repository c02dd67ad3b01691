//! Whether output is coloured.

use std::ffi::OsString;

use super::terminal;

/// Only on a terminal that can, and not if `NO_COLOR` (no-color.org) says no.
pub fn wanted() -> bool {
    terminal::is_output() && allowed(std::env::var_os("NO_COLOR"), std::env::var_os("TERM"))
}

fn allowed(no_color: Option<OsString>, term: Option<OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && term.is_some_and(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_is_obeyed() {
        let xterm = || Some("xterm".into());
        assert!(allowed(None, xterm()) && allowed(Some("".into()), xterm()));
        assert!(
            !allowed(Some("1".into()), xterm())
                && !allowed(None, Some("dumb".into()))
                && !allowed(None, None)
        );
    }
}
