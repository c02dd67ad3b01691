//! Addresses of Git repositories, as BuildKit takes them: what is wanted of one stands behind `#`, or behind `?` with names.

use std::path::Path;

use url::form_urlencoded;

use crate::Error;

/// An address taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    /// What `git` is told.
    pub remote: String,
    /// A branch, a tag or a commit; empty for the repository's own choice.
    pub reference: String,
    /// A directory; empty for all of it.
    pub subdirectory: String,
    /// What the name of the commit, or of an annotated tag, begins with.
    pub checksum: Option<String>,
    /// Whether the repository itself comes along, if it is said.
    pub keep_repository: Option<bool>,
    /// Whether other repositories do that it names.
    pub submodules: bool,
}

/// Whether an address is that of a Git repository.
pub(in super::super) fn is_address(text: &str) -> bool {
    let path = text.split(['#', '?']).next().unwrap_or_default();
    let by_web = path.starts_with("http://") || path.starts_with("https://");
    by_web && path.ends_with(".git")
        || ["git://", "ssh://", "git@"].iter().any(|start| text.starts_with(start))
}

/// As [`is_address`]; a context may also be named as `github.com/` something.
pub(in super::super) fn is_context(text: &str) -> bool {
    is_address(text) || text.starts_with("github.com/")
}

impl Address {
    pub fn read(text: &str) -> Result<Address, Error> {
        let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let (reference, subdirectory) = (reference.to_owned(), subdirectory.to_owned());
        let mut address = Address { reference, subdirectory, submodules: true, ..Address::default() };
        let (place, query) = place.split_once('?').unwrap_or((place, ""));
        address.remote = match place.starts_with("github.com/") {
            true => format!("https://{place}"),
            false => place.to_owned(),
        };
        let bad = |what: &str| Error::InvalidParameter(format!("invalid {what} in the Git address {text:?}"));
        address.take(query).map_err(|what| bad(&what))?;
        let odd = |part: &str| part.starts_with('-') || part.contains(|c: char| c.is_control());
        if odd(&address.remote) {
            return Err(bad("address"));
        }
        if odd(&address.reference) || address.reference.contains(char::is_whitespace) {
            return Err(bad("reference"));
        }
        let outside = Path::new(&address.subdirectory).components().any(|part| part.as_os_str() == "..");
        if outside || odd(&address.subdirectory) {
            return Err(bad("subdirectory"));
        }
        if address.checksum.as_deref().is_some_and(|sum| !is_checksum(sum)) {
            return Err(bad("checksum"));
        }
        Ok(address)
    }

    /// What stands behind the question mark. Fails with what is wrong.
    fn take(&mut self, query: &str) -> Result<(), String> {
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if seen.iter().any(|other| *other == name) {
                return Err(format!("repetition of {name}"));
            }
            seen.push(name.clone().into_owned());
            let wrong = || format!("value {value:?} of {name}");
            match name.as_ref() {
                "keep-git-dir" => self.keep_repository = Some(switch(&value).ok_or_else(wrong)?),
                "submodules" => self.submodules = switch(&value).ok_or_else(wrong)?,
                _ if value.is_empty() => return Err(wrong()),
                "ref" => choose(&mut self.reference, &value)?,
                "tag" => tag = Some(prefixed("refs/tags/", &value)),
                "branch" => branch = Some(prefixed("refs/heads/", &value)),
                "subdir" => choose(&mut self.subdirectory, &value)?,
                "checksum" | "commit" => self.checksum = Some(value.into_owned()),
                _ => return Err(format!("query {name:?}")),
            }
        }
        for chosen in [tag, branch].into_iter().flatten() {
            choose(&mut self.reference, &chosen)?;
        }
        Ok(())
    }
}

/// Whether a text may be the beginning of an object's name.
pub(super) fn is_checksum(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit())
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// Takes a value that may have been given before, but not another one.
fn choose(place: &mut String, value: &str) -> Result<(), String> {
    if !place.is_empty() && place != value {
        return Err(format!("choice of {place:?} and {value:?}"));
    }
    value.clone_into(place);
    Ok(())
}

/// A name alone is a switch that is on.
fn switch(text: &str) -> Option<bool> {
    match text {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let read = |text: &str| {
            let address = Address::read(text).map_err(|error| error.to_string())?;
            Ok::<_, String>(format!("{} {} {}", address.remote, address.reference, address.subdirectory))
        };
        assert_eq!(read("https://h/r.git#main:a/b").unwrap(), "https://h/r.git main a/b");
        assert_eq!(read("github.com/a/b").unwrap(), "https://github.com/a/b  ");
        assert_eq!(read("git://h/r#:sub").unwrap(), "git://h/r  sub");
        assert_eq!(read("https://h/r.git?ref=main&subdir=a%20b").unwrap(), "https://h/r.git main a b");
        assert_eq!(read("https://h/r.git?tag=v1").unwrap(), "https://h/r.git refs/tags/v1 ");
        assert_eq!(read("https://h/r.git?branch=refs/heads/x#:y").unwrap(), "https://h/r.git refs/heads/x y");
        assert_eq!(read("https://h/r.git?ref=a#a").unwrap(), "https://h/r.git a ");
        for (text, words) in [
            ("https://h/r.git#main:../..", "invalid subdirectory"),
            ("https://h/r.git#main:a/../../b", "invalid subdirectory"),
            ("https://h/r.git?subdir=..%2f..", "invalid subdirectory"),
            ("https://h/r.git#--upload-pack=x", "invalid reference"),
            ("https://h/r.git?ref=--upload-pack%3dx", "invalid reference"),
            ("https://h/r.git#a b", "invalid reference"),
            ("--upload-pack=x.git", "invalid address"),
            ("https://h/r.git?ref=a#b", "invalid choice of \"b\" and \"a\""),
            ("https://h/r.git?tag=a&branch=a", "invalid choice of"),
            ("https://h/r.git?ref=a&ref=a", "invalid repetition of ref"),
            ("https://h/r.git?ref=", "invalid value \"\" of ref"),
            ("https://h/r.git?submodules=maybe", "invalid value \"maybe\" of submodules"),
            ("https://h/r.git?colour=red", "invalid query \"colour\""),
            ("https://h/r.git?checksum=xyz", "invalid checksum"),
        ] {
            assert!(read(text).unwrap_err().contains(words), "{text}: {:?}", read(text));
        }
    }

    #[test]
    fn a_query_says_what_comes_along() {
        let plain = Address::read("https://h/r.git").unwrap();
        assert!(plain.submodules && plain.keep_repository.is_none() && plain.checksum.is_none());
        let all = Address::read("https://h/r.git?checksum=ab12&keep-git-dir&submodules=0").unwrap();
        assert_eq!(
            (all.checksum.as_deref(), all.keep_repository, all.submodules),
            (Some("ab12"), Some(true), false)
        );
    }

    #[test]
    fn repositories_are_told_from_files() {
        for (text, expected) in [
            ("https://h/r.git", true),
            ("https://h/r.git#x", true),
            ("https://h/r.git?ref=x", true),
            ("https://h/r", false),
            ("https://h/r?x=y.git", false),
            ("git@h:r", true),
            ("a.git", false),
        ] {
            assert_eq!(is_address(text), expected, "{text}");
        }
        assert!(is_context("github.com/a/b"));
    }
}
