//! Names of images: `[domain/]path[:tag][@digest]`, with Docker's normalisation (distribution's reference grammar).

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// Docker Hub's domain, which names without one mean.
pub const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL_PREFIX: &str = "library/";
/// An old name of Docker Hub.
const LEGACY_DOMAIN: &str = "index.docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest name in bytes, domain included.
const NAME_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;

/// The name of an image, normalised: `ubuntu` is `docker.io/library/ubuntu`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text is no name of an image. The texts are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Against the grammar.
    #[error("invalid reference format")]
    Format,
    /// Upper-case letters in the repository's name.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The name is longer than 255 bytes.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// 64 hexadecimal digits would be taken for an image's ID.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
}

impl Reference {
    /// The registry's host, with its port if it has one.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path at the registry, such as `library/ubuntu`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one is named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is named.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Domain and path: the repository's full name.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as people write it: `ubuntu` for `docker.io/library/ubuntu`.
    pub fn familiar_name(&self) -> &str {
        // Both parts are joined only for other registries; see `familiar`.
        if self.domain == DEFAULT_DOMAIN {
            self.path.strip_prefix(OFFICIAL_PREFIX).unwrap_or(&self.path)
        } else {
            ""
        }
    }

    /// The repository as people write it, whatever its registry.
    pub fn familiar_repository(&self) -> String {
        match self.familiar_name() {
            "" => self.name(),
            familiar => familiar.to_string(),
        }
    }

    /// The whole reference as people write it.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_repository(), self.suffix())
    }

    /// The whole reference, normalised.
    pub fn canonical(&self) -> String {
        self.to_string()
    }

    /// With the tag `latest` if neither tag nor digest is named.
    pub fn with_default_tag(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.into());
        }
        self
    }

    /// The same repository at a digest, without a tag.
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository at a tag.
    pub fn tagged(&self, tag: &str) -> Result<Reference, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Reference { tag: Some(tag.into()), digest: None, ..self.clone() })
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|t| format!(":{t}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|d| format!("@{d}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::LooksLikeId(text.into()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| ReferenceError::Format)?)),
            None => (text, None),
        };
        let (domain, remainder) = split_domain(rest);
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder.as_str(), None),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) && is_path(&path.to_lowercase()) {
            return Err(ReferenceError::Uppercase(path.into()));
        }
        if !is_domain(&domain) || !is_path(path) || !tag.is_none_or(is_tag) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > NAME_LIMIT {
            return Err(ReferenceError::TooLong);
        }
        Ok(Reference { domain, path: path.into(), tag: tag.map(str::to_string), digest })
    }
}

/// Separates the domain: the part before the first slash, if it looks like a host rather than a user.
fn split_domain(name: &str) -> (String, String) {
    let (domain, rest) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        return (domain.into(), format!("{OFFICIAL_PREFIX}{rest}"));
    }
    (domain.into(), rest.into())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => return is_ipv6(address),
            Some((address, after)) => (address, after.strip_prefix(':')),
            None => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let bracketed = domain.starts_with('[');
    let valid_host = if bracketed { is_ipv6(host) } else { host.split('.').all(is_label) };
    let has_port = port.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    valid_host && (has_port || (port.is_none() && !bracketed))
}

fn is_ipv6(address: &str) -> bool {
    !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
}

fn is_label(label: &str) -> bool {
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    ends(label.bytes().next())
        && ends(label.bytes().last())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(is_component)
}

/// Lower-case letters and digits, separated by a dot, one or two underscores, or dashes.
fn is_component(component: &str) -> bool {
    let mut rest = component;
    loop {
        let word = rest.bytes().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.bytes().take_while(|b| matches!(b, b'.' | b'_' | b'-')).count();
        match &rest[..separator] {
            "." | "_" | "__" => {}
            dashes if !dashes.is_empty() && dashes.bytes().all(|b| b == b'-') => {}
            _ => return false,
        }
        rest = &rest[separator..];
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= TAG_LIMIT
        && bytes.next().is_some_and(word)
        && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Reference, ReferenceError> {
        text.parse()
    }

    #[test]
    fn short_names_mean_docker_hub() {
        for (text, canonical, familiar) in [
            ("ubuntu", "docker.io/library/ubuntu", "ubuntu"),
            ("ubuntu:24.04", "docker.io/library/ubuntu:24.04", "ubuntu:24.04"),
            ("user/app", "docker.io/user/app", "user/app"),
            ("docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
            ("index.docker.io/library/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("host:5000/a/b:c", "host:5000/a/b:c", "host:5000/a/b:c"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("[fd00::1]/a", "[fd00::1]/a", "[fd00::1]/a"),
            ("Example.com/a__b-c--d.e", "Example.com/a__b-c--d.e", "Example.com/a__b-c--d.e"),
        ] {
            let reference = parse(text).unwrap();
            assert_eq!(reference.canonical(), canonical);
            assert_eq!(reference.familiar(), familiar);
        }
        assert_eq!(parse("ubuntu").unwrap().with_default_tag().familiar(), "ubuntu:latest");
    }

    #[test]
    fn digests_come_with_and_without_tags() {
        let digest = Digest::of(b"x");
        let both = parse(&format!("a:b@{digest}")).unwrap();
        assert_eq!((both.tag(), both.digest()), (Some("b"), Some(&digest)));
        let plain = parse(&format!("a@{digest}")).unwrap().with_default_tag();
        assert_eq!((plain.tag(), plain.digest()), (None, Some(&digest)));
        assert_eq!(parse("a:b").unwrap().at(digest.clone()).familiar(), format!("a@{digest}"));
    }

    #[test]
    fn refusals_have_dockers_texts() {
        assert_eq!(
            parse("Upper").unwrap_err().to_string(),
            "invalid reference format: repository name (library/Upper) must be lowercase"
        );
        assert!(matches!(parse(&"a".repeat(64)), Err(ReferenceError::LooksLikeId(_))));
        assert_eq!(parse(&format!("{}/{}", "a".repeat(200), "b".repeat(60))), Err(ReferenceError::TooLong));
        for text in [
            "",
            ":tag",
            "a:",
            "a::b",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:b/c d",
            "a@sha256:12",
            "a b",
            "../a",
            "[::1/a",
            "host:/a",
            "a:-x",
        ] {
            assert_eq!(parse(text), Err(ReferenceError::Format), "{text:?}");
        }
        assert_eq!(parse(&format!("a:{}", "x".repeat(129))), Err(ReferenceError::Format));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm_and_what_is_valid_reads_back(text in "[a-zA-Z0-9:/@._\\[\\]-]{0,80}") {
            if let Ok(reference) = parse(&text) {
                prop_assert_eq!(parse(&reference.canonical()).unwrap(), reference.clone());
                prop_assert_eq!(parse(&reference.familiar()).unwrap(), reference);
            }
        }

        #[test]
        fn a_path_never_climbs(text in "[a-z./]{0,30}") {
            if let Ok(reference) = parse(&text) {
                prop_assert!(reference.path().split('/').all(|part| part != ".." && part != "." && !part.is_empty()));
            }
        }
    }
}
