//! Paths and queries, escaped.

use std::fmt::Write as _;

use berth_api::filter::Filters;

/// A query string in the making.
#[derive(Debug, Clone, Default)]
pub struct Query(String);

impl Query {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        escape(name, b"", &mut self.0);
        self.0.push('=');
        escape(value, b":", &mut self.0);
        self
    }

    /// Adds a parameter if there is a value.
    #[must_use]
    pub fn set_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    /// Adds `name=1` if `on`.
    #[must_use]
    pub fn flag(self, name: &str, on: bool) -> Self {
        if on { self.set(name, "1") } else { self }
    }

    /// Adds `filters` unless there are none.
    #[must_use]
    pub fn filters(self, filters: &Filters) -> Self {
        if filters.is_empty() { self } else { self.set("filters", &filters.to_json()) }
    }

    /// `path` with this query.
    pub fn on(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

/// `text` as part of a path. Slashes and colons stay, since names of images have them.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape(text, b"/:@", &mut out);
    out
}

fn escape(text: &str, keep: &[u8], out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let mut filters = Filters::default();
        filters.add("a", "b");
        let query = Query::new().set("a", "x&y =é").flag("b", true).flag("c", false).set_some("d", None);
        assert_eq!(query.on("/p"), "/p?a=x%26y%20%3D%C3%A9&b=1");
        assert_eq!(Query::new().filters(&filters).on("/p"), "/p?filters=%7B%22a%22:%7B%22b%22:true%7D%7D");
        assert_eq!(Query::new().filters(&Filters::default()).on("/p"), "/p");
        assert_eq!(segment("r.io:5/a/b@sha256:c?d"), "r.io:5/a/b@sha256:c%3Fd");
    }
}
