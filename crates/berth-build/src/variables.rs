//! Which variables there are, and where: build arguments, their scopes, and the environment.
//!
//! Arguments before the first `FROM` are known to all `FROM`s, and to a stage that declares them again. Within a stage an
//! argument is known from its `ARG` on. What `ENV` or the base image sets hides an argument of the same name.

use std::collections::{BTreeMap, BTreeSet};

use berth_oci::Platform;

use crate::dockerfile::Argument;
use crate::error::Result;
use crate::expand::{Variables, Words};

/// Arguments that need no `ARG`, and whose values are neither kept in the image nor part of what a step depends on.
pub const PROXIES: [&str; 10] = [
    "ALL_PROXY",
    "FTP_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "all_proxy",
    "ftp_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The argument that says when all was done, in seconds since 1970. It is heeded whether a stage declares it or not, and
/// every layer has it: all steps depend on it.
pub const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The argument that names the host that steps see.
pub const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
/// The argument that keeps the caches of `RUN --mount=type=cache` apart from those of builds without it, or with another one.
pub const CACHES: &str = "BUILDKIT_CACHE_MOUNT_NS";

/// Arguments that are for the builder, whether a stage declares them or not. Those that are not heeded ask for what is done
/// anyway: every image is a cache, and a build is for one platform.
const BUILDER: [&str; 8] = [
    CACHES,
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    HOSTNAME,
    "BUILDKIT_SYNTAX",
    EPOCH,
];

/// What a build is told from outside.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `--build-arg`: names with values.
    pub arguments: BTreeMap<String, String>,
    /// The platform that steps without another run on.
    pub build_platform: Platform,
    /// The platform that the image is for.
    pub target_platform: Platform,
    /// `--target`.
    pub target: Option<String>,
}

/// Variables of `FROM`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    values: BTreeMap<String, String>,
    /// Names that an `ARG` before the first `FROM` declares, those without a value among them.
    declared: BTreeSet<String>,
}

impl Variables for Globals {
    fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

impl Globals {
    /// The predefined ones and those of `arguments`, in their order; later ones may use earlier ones.
    ///
    /// # Errors
    /// A default that cannot be expanded.
    pub fn new(given: &Given, arguments: &[Argument], words: Words) -> Result<Globals> {
        let mut globals = Globals { values: predefined(given), declared: BTreeSet::new() };
        for argument in arguments {
            let value = match (given.arguments.get(&argument.name), &argument.default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(words.expand(default, &globals)?.text),
                (None, None) => None,
            };
            globals.declared.insert(argument.name.clone());
            if let Some(value) = value {
                globals.values.insert(argument.name.clone(), value);
            }
        }
        Ok(globals)
    }

    /// Names that `FROM` may use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str).chain(self.declared.iter().map(String::as_str))
    }
}

fn predefined(given: &Given) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (prefix, platform) in [("BUILD", &given.build_platform), ("TARGET", &given.target_platform)] {
        let variant = platform.variant.clone().unwrap_or_default();
        let version = platform.os_version.clone().unwrap_or_default();
        values.insert(format!("{prefix}PLATFORM"), platform.to_string());
        values.insert(format!("{prefix}OS"), platform.os.clone());
        values.insert(format!("{prefix}OSVERSION"), version);
        values.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        values.insert(format!("{prefix}VARIANT"), variant);
    }
    let target = given.target.clone().filter(|name| !name.is_empty());
    values.insert("TARGETSTAGE".to_owned(), target.unwrap_or_else(|| "default".to_owned()));
    for (name, value) in &mut values {
        if let Some(other) = given.arguments.get(name) {
            value.clone_from(other);
        }
    }
    values
}

/// Variables within a stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// `NAME=value`, as the image's configuration has it.
    pub environment: Vec<String>,
    /// Declared arguments in their order; none for one without a value.
    arguments: Vec<(String, Option<String>)>,
    proxies: BTreeMap<String, String>,
}

impl Variables for Scope {
    fn value(&self, name: &str) -> Option<&str> {
        let declared = || self.arguments.iter().find(|(own, _)| own == name);
        let argument = || declared().and_then(|(_, value)| value.as_deref());
        let proxy = || self.proxies.get(name).map(String::as_str);
        self.environment.value(name).or_else(argument).or_else(proxy)
    }
}

impl Scope {
    /// The scope of a stage at its `FROM`, with the environment of its base. A stage that is based on another stage begins
    /// with that one's arguments: pass its scope as `base`.
    pub fn new(given: &Given, environment: Vec<String>, base: Option<&Scope>) -> Scope {
        let proxies = given.arguments.iter().filter(|(name, _)| PROXIES.contains(&name.as_str()));
        Scope {
            environment,
            arguments: base.map(|base| base.arguments.clone()).unwrap_or_default(),
            proxies: proxies.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    /// `ARG`: what the build gives, or else the default, or else the value before the first `FROM`. Gives the value.
    ///
    /// # Errors
    /// A default that cannot be expanded; one that is not used need not be.
    pub fn declare(
        &mut self,
        argument: &Argument,
        given: &Given,
        globals: &Globals,
        words: Words,
    ) -> Result<Option<String>> {
        let value = match (given.arguments.get(&argument.name), &argument.default) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => Some(words.expand(default, self)?.text),
            (None, None) => globals.value(&argument.name).map(str::to_owned),
        };
        self.arguments.retain(|(own, _)| *own != argument.name);
        self.arguments.push((argument.name.clone(), value.clone()));
        Ok(value)
    }

    /// `ENV`.
    pub fn set(&mut self, name: &str, value: &str) {
        let variable = format!("{name}={value}");
        let is_it = |own: &&mut String| own.split_once('=').map_or(own.as_str(), |(own, _)| own) == name;
        match self.environment.iter_mut().find(is_it) {
            Some(own) => *own = variable,
            None => self.environment.push(variable),
        }
    }

    /// What a step depends on beside the environment: `NAME=value` of declared arguments that nothing hides, sorted.
    /// Proxies are not among them unless they are declared.
    pub fn visible_arguments(&self) -> Vec<String> {
        let visible = self.arguments.iter().filter(|(name, _)| self.environment.value(name).is_none());
        let mut pairs: Vec<String> =
            visible.filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?))).collect();
        pairs.sort();
        pairs
    }

    /// The environment of a step: the image's, then arguments, then proxies.
    pub fn step_environment(&self) -> Vec<String> {
        let mut all = self.environment.clone();
        all.extend(self.visible_arguments());
        let hidden = |name: &str| {
            self.environment.value(name).is_some()
                || self.arguments.iter().any(|(own, value)| own == name && value.is_some())
        };
        let proxies = self.proxies.iter().filter(|(name, _)| !hidden(name));
        all.extend(proxies.map(|(name, value)| format!("{name}={value}")));
        all
    }

    /// Whether the name is declared, with a value or without.
    pub fn declares(&self, name: &str) -> bool {
        self.arguments.iter().any(|(own, _)| own == name)
    }

    /// Names of all variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let environment =
            self.environment.iter().map(|pair| pair.split_once('=').map_or(&**pair, |(name, _)| name));
        environment.chain(self.arguments.iter().map(|(name, _)| name.as_str()))
    }
}

/// Arguments that the build gives and no `ARG` asks for, in Docker's words; none if there are none.
pub fn unused_warning<'a>(given: &Given, declared: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let declared: BTreeSet<&str> = declared.into_iter().collect();
    let taken = |name: &str| declared.contains(name) || PROXIES.contains(&name) || BUILDER.contains(&name);
    let left: Vec<&str> = given.arguments.keys().map(String::as_str).filter(|name| !taken(name)).collect();
    let text = format!("[Warning] One or more build-args [{}] were not consumed", left.join(" "));
    (!left.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(text: &str) -> Argument {
        let (name, default) = match text.split_once('=') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (text, None),
        };
        Argument { name: name.to_owned(), default, description: None }
    }

    fn given(pairs: &[(&str, &str)]) -> Given {
        let platform = |text: &str| text.parse().unwrap();
        Given {
            arguments: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            build_platform: platform("linux/amd64"),
            target_platform: platform("linux/arm/v7"),
            target: None,
        }
    }

    #[test]
    fn globals_build_on_each_other() {
        let given = given(&[("B", "given"), ("TARGETSTAGE", "other")]);
        let arguments = ["A=1", "B=no", "C=$A-$B", "D", "A=${A}2"].map(argument);
        let globals = Globals::new(&given, &arguments, Words::new('\\')).unwrap();
        for (name, value) in [
            ("A", Some("12")),
            ("B", Some("given")),
            ("C", Some("1-given")),
            ("D", None),
            ("TARGETPLATFORM", Some("linux/arm/v7")),
            ("TARGETARCH", Some("arm")),
            ("TARGETVARIANT", Some("v7")),
            ("BUILDPLATFORM", Some("linux/amd64")),
            ("BUILDVARIANT", Some("")),
            ("TARGETSTAGE", Some("other")),
        ] {
            assert_eq!(globals.value(name), value, "{name}");
        }
        assert!(globals.names().any(|name| name == "D"));
    }

    #[test]
    fn a_stage_sees_what_it_declares() {
        let given = given(&[("G", "given"), ("HTTP_PROXY", "p"), ("unused", "x")]);
        let words = Words::new('\\');
        let globals = Globals::new(&given, &[argument("V=global"), argument("W=global")], words).unwrap();
        let mut scope = Scope::new(&given, vec!["E=env".to_owned()], None);
        assert_eq!((scope.value("V"), scope.value("G"), scope.value("TARGETOS")), (None, None, None));
        assert_eq!(scope.value("HTTP_PROXY"), Some("p"));
        for text in ["V", "W=own", "G=${bad", "E=hidden", "D=$E/$V", "N", "TARGETOS"] {
            scope.declare(&argument(text), &given, &globals, words).unwrap();
        }
        assert_eq!(scope.value("E"), Some("env"));
        assert_eq!(
            scope.visible_arguments(),
            ["D=env/global", "G=given", "TARGETOS=linux", "V=global", "W=own"]
        );
        assert!(scope.declares("N") && scope.value("N").is_none());
        scope.set("V", "env");
        scope.set("E", "new");
        assert_eq!((scope.value("V"), scope.value("E")), (Some("env"), Some("new")));
        let step = ["E=new", "V=env", "D=env/global", "G=given", "TARGETOS=linux", "W=own", "HTTP_PROXY=p"];
        assert_eq!(scope.step_environment(), step);
        assert!(scope.declare(&argument("Z=${bad"), &given, &globals, words).is_err());
        let later = Scope::new(&given, scope.environment.clone(), Some(&scope));
        assert_eq!(later.value("W"), Some("own"));
        assert_eq!(
            unused_warning(&given, ["G"]).unwrap(),
            "[Warning] One or more build-args [unused] were not consumed"
        );
    }
}
