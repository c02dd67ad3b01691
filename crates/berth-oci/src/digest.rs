//! Content digests: algorithm and hexadecimal hash (OCI image specification, descriptor.md).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// A hash algorithm that content may be named by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, which everybody uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The algorithm's name in a digest.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hex_length(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// The digest of some content, such as `sha256:e3b0…`; always well-formed, so it is safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

/// The text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no algorithm and colon in front, or something else is wrong with the form.
    #[error("invalid checksum digest format: {0:?}")]
    Format(String),
    /// The algorithm is none that is known.
    #[error("unsupported digest algorithm: {0:?}")]
    Algorithm(String),
    /// The hash is not as long as the algorithm says.
    #[error("invalid checksum digest length: {0:?}")]
    Length(String),
}

impl Digest {
    /// The SHA-256 digest of some bytes.
    pub fn of(content: &[u8]) -> Digest {
        Digest::from_sha256(Sha256::digest(content).into())
    }

    /// The digest for a finished SHA-256 hash.
    pub fn from_sha256(hash: [u8; 32]) -> Digest {
        Digest { algorithm: Algorithm::Sha256, hex: hex(&hash) }
    }

    /// The digest for a finished SHA-512 hash.
    pub fn from_sha512(hash: [u8; 64]) -> Digest {
        Digest { algorithm: Algorithm::Sha512, hex: hex(&hash) }
    }

    /// Checks that `content` has this digest; the error is the digest that it has.
    pub fn verify(&self, content: &[u8]) -> Result<(), Digest> {
        let mut hasher = Hasher::new(self.algorithm);
        hasher.update(content);
        let actual = hasher.finish();
        if actual == *self { Ok(()) } else { Err(actual) }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash in lower-case hexadecimal.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve digits, as tables show them.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

fn hex(bytes: &[u8]) -> Box<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from(DIGITS[usize::from(d)]));
    digits.collect::<String>().into()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, hex) = text.split_once(':').ok_or_else(|| DigestError::Format(text.into()))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::Algorithm(name.into())),
        };
        if hex.len() != algorithm.hex_length() {
            return Err(DigestError::Length(text.into()));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Format(text.into()));
        }
        Ok(Digest { algorithm, hex: hex.into() })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes content that comes in parts.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// A hasher for one algorithm.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    /// Takes the next part.
    pub fn update(&mut self, part: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(part),
            Hasher::Sha512(hasher) => hasher.update(part),
        }
    }

    /// The digest of all parts.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => Digest::from_sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Digest::from_sha512(hasher.finalize().into()),
        }
    }
}

/// Takes what is written, and never fails.
impl std::io::Write for Hasher {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        self.update(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The chain IDs of layers, lowest first, from their diff IDs (OCI image specification, config.md, "Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_empty_content_has_its_well_known_digest() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        let empty: Digest = EMPTY.parse().unwrap();
        assert_eq!(empty.verify(b""), Ok(()));
        assert_eq!(empty.verify(b"x"), Err(Digest::of(b"x")));
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
    }

    #[test]
    fn malformed_digests_are_told_apart() {
        assert!(matches!("e3b0".parse::<Digest>(), Err(DigestError::Format(_))));
        assert!(matches!("md5:e3b0".parse::<Digest>(), Err(DigestError::Algorithm(_))));
        assert!(matches!("sha256:e3b0".parse::<Digest>(), Err(DigestError::Length(_))));
        assert!(matches!(
            EMPTY.to_uppercase().replace("SHA", "sha").parse::<Digest>(),
            Err(DigestError::Format(_))
        ));
        let path = format!("sha256:../{}", "a".repeat(61));
        assert!(matches!(path.parse::<Digest>(), Err(DigestError::Format(_))));
    }

    #[test]
    fn a_chain_starts_with_the_first_layer_and_names_all_below() {
        let layers = [Digest::of(b"one"), Digest::of(b"two")];
        let chain = chain_ids(&layers);
        assert_eq!(chain[0], layers[0]);
        assert_eq!(chain[1], Digest::of(format!("{} {}", layers[0], layers[1]).as_bytes()));
        assert!(chain_ids(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(content in proptest::collection::vec(any::<u8>(), 0..64)) {
            let digest = Digest::of(&content);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        }

        #[test]
        fn any_text_is_read_without_harm(text in ".{0,200}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
