//! Which warnings are wanted: `# check=skip=…;error=true`.

use std::collections::BTreeSet;

use super::Rule;
use crate::error::{Result, wrong};

/// Which warnings are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    skip_all: bool,
    skip: BTreeSet<String>,
    experimental_all: bool,
    experimental: BTreeSet<String>,
    /// Whether a warning fails the build.
    pub error: bool,
}

impl Options {
    /// Reads `skip=A,B;error=true;experimental=all`.
    ///
    /// # Errors
    /// Unknown options, values that make no sense.
    pub fn parse(text: &str) -> Result<Options> {
        let mut options = Options::default();
        for part in text.trim().split(';').filter(|_| !text.trim().is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return wrong(format!("invalid check option {part:?}"));
            };
            let (key, value) = (key.trim(), value.trim());
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect::<BTreeSet<_>>();
            match key {
                "skip" if value == "all" => options.skip_all = true,
                "skip" => options.skip = names(),
                "experimental" if value == "all" => options.experimental_all = true,
                "experimental" => options.experimental = names(),
                "error" => match value {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => options.error = true,
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => options.error = false,
                    _ => return wrong(format!("failed to parse check option {part:?}: invalid syntax")),
                },
                _ => return wrong(format!("invalid check option {key:?}")),
            }
        }
        Ok(options)
    }

    /// With what a comment before an instruction says: it can only add.
    pub(super) fn with_comments(&self, comments: &[String]) -> Options {
        let checks = comments.iter().filter_map(|comment| comment.split_once('='));
        let mut all = self.clone();
        for (_, value) in checks.filter(|(name, _)| name.trim().eq_ignore_ascii_case("check")) {
            let Ok(more) = Options::parse(value.trim().split(' ').next().unwrap_or_default()) else {
                continue;
            };
            all.skip_all |= more.skip_all;
            all.skip.extend(more.skip);
            all.experimental_all |= more.experimental_all;
            all.experimental.extend(more.experimental);
        }
        all
    }

    pub(super) fn wants(&self, rule: Rule) -> bool {
        if rule.is_experimental() {
            self.experimental_all || self.experimental.contains(&rule.name())
        } else {
            !self.skip_all && !self.skip.contains(&rule.name())
        }
    }
}
