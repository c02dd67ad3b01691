//! The platform that an image is made for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Operating system, architecture and its variant, in Go's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Architecture, such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Operating system, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Variant of the architecture, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the operating system; Windows images have it.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

/// The text is no platform. The words are those of Docker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// One word, which names neither a system nor an architecture.
    #[error("\"{0}\": unknown operating system or architecture: invalid argument")]
    Unknown(String),
    /// A part that holds what no name may.
    #[error("\"{part}\" is an invalid component of \"{text}\": invalid argument")]
    Part {
        /// The part.
        part: String,
        /// The whole.
        text: String,
    },
    /// The first of several parts cannot name an operating system.
    #[error(
        "\"{part}\" is an invalid OS component of \"{text}\": OSes must consist of letters and digits: invalid argument"
    )]
    System {
        /// The part.
        part: String,
        /// The whole.
        text: String,
    },
    /// Too many parts.
    #[error("\"{0}\": cannot parse platform specifier: invalid argument")]
    Form(String),
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            "riscv64" => ("riscv64", None),
            other => (other, None),
        };
        let variant = variant.map(str::to_string);
        Platform { architecture: architecture.into(), os: "linux".into(), variant, os_version: None }
    }

    /// Whether an image made for `self` is what somebody who asks for `wanted` gets. A variant that only one of
    /// them names does not matter, nor which of its usual names an architecture has.
    pub fn satisfies(&self, wanted: &Platform) -> bool {
        let (has, wants) = (self.usual(), wanted.usual());
        let same_variant = match (has.2, wants.2) {
            (Some(has), Some(wants)) => has == wants,
            _ => true,
        };
        has.0 == wants.0 && has.1 == wants.1 && same_variant
    }

    /// How well an image made for `self` serves somebody who asks for `wanted`: 0 is best; none if it does not. As in
    /// containerd (`platforms.Only`), lower variants of an architecture serve those who ask for a higher one, and 32-bit
    /// images those who ask for the same family's 64 bits. An image that names no variant comes last.
    pub fn rank(&self, wanted: &Platform) -> Option<usize> {
        let (has, wants) = (self.normal(), wanted.normal());
        let served = served(&wants.1, wants.2.as_deref());
        if has.0 != wants.0 {
            return None;
        }
        let place =
            served.iter().position(|(architecture, variant)| *architecture == has.1 && *variant == has.2);
        let is_vague = self.usual().2.is_none() && has.1 == wants.1;
        place.or(is_vague.then_some(served.len()))
    }

    /// As [`Platform::usual`], with each variant in one of its forms, none for the usual one of an architecture other than
    /// `arm`.
    fn normal(&self) -> (String, String, Option<String>) {
        let (os, architecture, variant) = self.usual();
        let variant = match (architecture, variant) {
            ("amd64", Some("v1")) | ("arm64", Some("8" | "v8" | "8.0" | "v8.0")) => None,
            ("arm64", Some("9" | "9.0" | "v9.0")) => Some("v9".to_owned()),
            ("arm", None) => Some("v7".to_owned()),
            ("arm", Some(variant @ ("5" | "6" | "7" | "8"))) => Some(format!("v{variant}")),
            (_, variant) => variant.map(str::to_owned),
        };
        (os, architecture.to_owned(), variant)
    }

    /// System, architecture and variant by their usual names: what documents say is not always Go's.
    fn usual(&self) -> (String, &str, Option<&str>) {
        let (architecture, implied) = canonical(&self.architecture);
        (system(&self.os), architecture, self.variant.as_deref().or(implied))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// What serves a machine of an architecture and variant, best first; all in normal form.
fn served(architecture: &str, variant: Option<&str>) -> Vec<(String, Option<String>)> {
    let kind = |architecture: &str, variant: Option<String>| (architecture.to_owned(), variant);
    let exact = || kind(architecture, variant.map(str::to_owned));
    let arm = |highest: u8| (5..=highest).rev().map(move |level| kind("arm", Some(format!("v{level}"))));
    let level = variant.and_then(|variant| variant.strip_prefix('v'));
    match (architecture, level) {
        ("amd64", level) => {
            let level: u8 = level.and_then(|level| level.parse().ok()).unwrap_or(1);
            let below = (1..level).rev().map(|level| kind("amd64", (level > 1).then(|| format!("v{level}"))));
            std::iter::once(exact()).chain(below).chain([kind("386", None)]).collect()
        }
        ("arm", Some("5" | "6" | "7" | "8")) => {
            arm(level.and_then(|level| level.parse().ok()).unwrap_or(5)).collect()
        }
        ("arm64", level) if level.is_some() == variant.is_some() => {
            let (major, minor) =
                level.map_or(("8", "0"), |level| level.split_once('.').unwrap_or((level, "0")));
            let minor = minor.parse::<u8>().ok();
            let down = |major: &'static str, minor: u8| {
                (0..=minor).rev().map(move |minor| match (major, minor) {
                    ("8", 0) => kind("arm64", None),
                    (major, 0) => kind("arm64", Some(format!("v{major}"))),
                    (major, minor) => kind("arm64", Some(format!("v{major}.{minor}"))),
                })
            };
            match (major, minor) {
                ("8", Some(minor)) => down("8", minor).chain(arm(8)).collect(),
                // Version 9.0 has all that 8.5 has, and so on.
                ("9", Some(minor)) => {
                    down("9", minor).chain(down("8", minor.saturating_add(5))).chain(arm(8)).collect()
                }
                _ => vec![exact()],
            }
        }
        _ => vec![exact()],
    }
}

/// Architectures that may be named without an operating system.
const KNOWN: [&str; 13] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips64le", "mips64", "ppc64le", "riscv64", "s390x", "wasm",
    "ppc64", "mips",
];

/// Operating systems that may be named without an architecture, which is then this machine's.
const SYSTEMS: [&str; 15] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// The usual name of an operating system.
fn system(name: &str) -> String {
    match name.to_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        name => name.to_owned(),
    }
}

/// The usual name of an architecture, and the variant that another name implies.
fn canonical(architecture: &str) -> (&str, Option<&'static str>) {
    match architecture {
        "x86_64" | "x86-64" => ("amd64", None),
        "aarch64" => ("arm64", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        "i386" | "i686" => ("386", None),
        other => (other, None),
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Reads `os/architecture[/variant]`, or an architecture alone, with the usual other names.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        for (index, part) in parts.iter().enumerate() {
            let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            if part.is_empty() || !part.bytes().all(named) {
                let (part, text) = ((*part).to_owned(), text.to_owned());
                let is_system = index == 0;
                return Err(if is_system {
                    PlatformError::System { part, text }
                } else {
                    PlatformError::Part { part, text }
                });
            }
        }
        let (os, architecture, variant) = match parts.as_slice() {
            [os] if SYSTEMS.contains(&system(os).as_str()) => {
                return Ok(Platform { os: system(os), ..Platform::host() });
            }
            [architecture] if KNOWN.contains(&canonical(architecture).0) => ("linux", *architecture, None),
            [_] => return Err(PlatformError::Unknown(text.into())),
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some((*variant).to_string())),
            _ => return Err(PlatformError::Form(text.into())),
        };
        let (architecture, implied) = canonical(architecture);
        let variant = variant.or(implied.map(str::to_string));
        Ok(Platform { architecture: architecture.into(), os: system(os), variant, os_version: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_usual_forms() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected);
        }
        for text in ["", "linux/", "pdp11", "a/b/c/d", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_unnamed_variant_does_not_matter() {
        let plain: Platform = "linux/arm64".parse().unwrap();
        let variant: Platform = "linux/arm64/v8".parse().unwrap();
        assert!(plain.satisfies(&variant) && variant.satisfies(&plain));
        assert!(!variant.satisfies(&"linux/arm64/v9".parse().unwrap()));
        assert!(!plain.satisfies(&"linux/amd64".parse().unwrap()));
    }

    #[test]
    fn an_architecture_may_have_another_name() {
        let named = |os: &str, architecture: &str| Platform {
            os: os.into(),
            architecture: architecture.into(),
            ..Platform::default()
        };
        let wanted: Platform = "linux/amd64".parse().unwrap();
        assert!(named("linux", "x86_64").satisfies(&wanted) && wanted.satisfies(&named("Linux", "x86-64")));
        assert!(
            !named("windows", "x86_64").satisfies(&wanted) && !named("linux", "aarch64").satisfies(&wanted)
        );
        assert!(named("linux", "armhf").satisfies(&"linux/arm/v7".parse().unwrap()));
        assert!(!named("linux", "armhf").satisfies(&"linux/arm/v6".parse().unwrap()));
    }

    #[test]
    fn those_that_serve_are_ranked() {
        let rank = |has: &str, wants: &str| {
            let read = |text: &str| text.parse::<Platform>().unwrap();
            read(has).rank(&read(wants))
        };
        for (wants, best_first, never) in [
            (
                "linux/amd64",
                &["linux/amd64", "linux/386"][..],
                &["linux/amd64/v3", "linux/arm64", "windows/amd64"][..],
            ),
            (
                "linux/amd64/v3",
                &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"],
                &["linux/amd64/v4"],
            ),
            ("linux/amd64/v1", &["linux/amd64", "linux/386"], &["linux/amd64/v2"]),
            ("linux/386", &["linux/386"], &["linux/amd64"]),
            (
                "linux/arm",
                &["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
                &["linux/arm/v8", "linux/arm64"],
            ),
            ("linux/arm/v6", &["linux/arm/v6", "linux/arm/v5", "linux/arm"], &["linux/arm/v7"]),
            (
                "linux/arm64",
                &["linux/arm64/v8", "linux/arm/v8", "linux/arm/v7", "linux/arm/v5"],
                &["linux/arm64/v9", "linux/arm64/v8.2"],
            ),
            (
                "linux/arm64/v8.2",
                &["linux/arm64/v8.2", "linux/arm64/v8.1", "linux/arm64", "linux/arm/v8"],
                &["linux/arm64/v9"],
            ),
            (
                "linux/arm64/v9",
                &["linux/arm64/v9", "linux/arm64/v8.5", "linux/arm64/v8", "linux/arm/v7"],
                &["linux/arm64/v9.1"],
            ),
            ("linux/arm64/vx", &["linux/arm64/vx", "linux/arm64"], &["linux/arm/v7"]),
            ("linux/arm64/v8.999", &["linux/arm64/v8.999", "linux/arm64"], &["linux/arm/v7"]),
            ("linux/s390x", &["linux/s390x"], &["linux/amd64"]),
            ("plan9/pdp11", &["plan9/pdp11"], &["linux/pdp11"]),
            ("linux/riscv64/rva20", &["linux/riscv64/rva20", "linux/riscv64"], &["linux/riscv64/rva22"]),
        ] {
            let ranks: Vec<_> = best_first.iter().map(|has| rank(has, wants).expect(has)).collect();
            assert!(ranks.is_sorted_by(|one, two| one < two), "{wants}: {best_first:?} have {ranks:?}");
            for has in never {
                assert_eq!(rank(has, wants), None, "{has} for {wants}");
            }
        }
    }
}
