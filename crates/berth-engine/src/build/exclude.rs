//! `--exclude`: files that are not copied.

use berth_archive::ignore::Ignore;

use crate::Error;

/// Patterns of files that stay out. Paths are seen from the source.
#[derive(Debug)]
pub(super) struct Exclude(Ignore);

impl Exclude {
    /// Reads patterns as those of `.dockerignore`.
    pub fn new(patterns: &[String]) -> Result<Exclude, Error> {
        let wrong = |error| Error::InvalidParameter(format!("invalid --exclude: {error}"));
        let patterns = patterns.iter().map(|text| text.trim_start_matches('/'));
        Ok(Exclude(Ignore::new(patterns).map_err(wrong)?))
    }

    /// Whether a file stays out, with all that is below it. A directory stays if an exception may bring back what is in it.
    pub fn skips(&self, path: &[u8]) -> bool {
        let text = String::from_utf8_lossy(path);
        !self.0.is_empty() && self.0.matches(&text) && !self.0.may_except_below(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_dockerignore() {
        let exclude = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
            Exclude::new(&patterns).unwrap()
        };
        assert!(!exclude(&[]).skips(b"a"));
        let some = exclude(&["*.txt", "/deep/*", "!deep/kept"]);
        for (path, skips) in
            [("a.txt", true), ("x/a.txt", false), ("deep/a", true), ("deep/kept", false), ("b", false)]
        {
            assert_eq!(some.skips(path.as_bytes()), skips, "{path}");
        }
        assert!(Exclude::new(&["a[".into()]).is_err());
    }
}
