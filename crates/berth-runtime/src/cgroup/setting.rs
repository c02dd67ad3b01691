//! One value for one file of a cgroup.

use std::borrow::Cow;

use super::layout::Version;

/// A file to be written: the resources of a container become a list of these, which needs no kernel to test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The controller whose hierarchy the file is in.
    pub controller: &'static str,
    /// The file's name.
    pub file: Cow<'static, str>,
    /// What to write, in one write(2).
    pub value: String,
    /// Whether the value is given up, with a warning, when the kernel does not have the file.
    pub optional: bool,
}

impl Setting {
    pub(super) fn new(
        controller: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Setting {
        Setting { controller, file: file.into(), value: value.to_string(), optional: false }
    }

    pub(super) fn optional(mut self) -> Setting {
        self.optional = true;
        self
    }
}

/// The name for "no limit" in the files of a version.
pub(super) fn limit(version: Version, value: i64) -> String {
    match version {
        Version::V2 if value < 0 => "max".to_owned(),
        _ => value.to_string(),
    }
}
