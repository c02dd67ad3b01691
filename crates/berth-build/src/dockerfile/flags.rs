//! Flags of an instruction.

use crate::error::{Error, Fault, Result, wrong};
use crate::suggest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--link`, `--link=false`.
    Switch,
    /// `--from=x`, once.
    Text,
    /// `--mount=x`, any number of times.
    List,
}

/// Flags of an instruction, known to be its own.
#[derive(Debug, Default)]
pub(super) struct Flags(Vec<(&'static str, String)>);

/// Holds the flags of an instruction against those it may have.
pub(super) fn check(given: &[String], known: &[(&'static str, Kind)]) -> Result<Flags> {
    let mut found = Flags::default();
    for flag in given {
        let (written, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag.as_str(), None),
        };
        let bare = written.strip_prefix("--").unwrap_or(written);
        let Some(&(name, kind)) = known.iter().find(|(name, _)| *name == bare) else {
            let error = Error::new(Fault::Instruction(format!("unknown flag: {written}")));
            return Err(error.meant(suggest::nearest(bare, known.iter().map(|(name, _)| *name))));
        };
        if kind != Kind::List && found.0.iter().any(|(own, _)| *own == name) {
            return wrong(format!("duplicate flag specified: {written}"));
        }
        let value = match (kind, value) {
            (Kind::Switch, None) => "true".to_owned(),
            (Kind::Switch, Some("")) | (_, None) => {
                return wrong(format!("missing a value on flag: {written}"));
            }
            (Kind::Switch, Some(value)) => match value.to_ascii_lowercase() {
                value if value == "true" || value == "false" => value,
                _ => return wrong(format!("expecting boolean value for flag {written}, not: {value}")),
            },
            (_, Some(value)) => value.to_owned(),
        };
        found.0.push((name, value));
    }
    Ok(found)
}

/// For instructions that have no flags.
pub(super) fn none(given: &[String]) -> Result<()> {
    check(given, &[]).map(|_| ())
}

impl Flags {
    /// The value of a text; none if it is not given or empty, which all of them take for the same.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone());
        found.filter(|value| !value.is_empty())
    }

    /// A switch; none if it is not given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    /// All values of a list.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(own, _)| *own == name).map(|(_, value)| value.clone()).collect()
    }
}
