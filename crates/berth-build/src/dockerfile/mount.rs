//! `RUN --mount`.

use crate::error::{Error, Fault, Result, wrong};
use crate::suggest;

/// A mount as it is written: its values may hold variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountText {
    /// The whole value of the flag.
    pub text: String,
    fields: Vec<(String, Option<String>)>,
}

/// A mount of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// The stage, image or named context that files come from; none for the build's context.
    pub from: Option<String>,
    /// The path there, or the name of a secret.
    pub source: Option<String>,
    /// Where it appears.
    pub target: Option<String>,
    /// Whether it can be written to.
    pub read_only: bool,
    /// Name of a cache, a secret or an agent.
    pub id: Option<String>,
    /// How several steps use a cache at once.
    pub sharing: Sharing,
    /// Whether the step fails without the secret or agent.
    pub required: bool,
    /// Most bytes in memory; none without a limit.
    pub size: Option<u64>,
    /// The environment variable that holds a secret; empty for one named like the secret.
    pub environment: Option<String>,
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// Kinds of mounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context or of a stage; what is written to them is lost.
    #[default]
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// A file system in memory.
    Tmpfs,
    /// A file that no layer ever holds.
    Secret,
    /// A socket of an ssh agent.
    Ssh,
}

/// How several steps use a cache at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each a directory of its own.
    Private,
    /// One after the other.
    Locked,
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];
const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl MountText {
    pub(super) fn parse(text: &str) -> Result<MountText> {
        let fields = fields(text)?.into_iter().map(|field| match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value.to_owned())),
            None => (field.to_lowercase(), None),
        });
        let mount = MountText { text: text.to_owned(), fields: fields.collect() };
        if mount.from().is_some_and(|from| from.find('$').is_some_and(|at| at + 1 != from.len())) {
            return wrong("'from' doesn't support variable expansion, define alias stage instead");
        }
        // What needs no variables is checked at once, so that the error comes before the first step.
        if !text.contains('$') {
            mount.resolve(|value| Ok(value.to_owned()))?;
        }
        Ok(mount)
    }

    /// The stage, image or named context that it needs.
    pub fn from(&self) -> Option<&str> {
        let found = self.fields.iter().rev().find(|(key, _)| key == "from");
        found.and_then(|(_, value)| value.as_deref()).filter(|value| !value.is_empty())
    }

    /// The mount, with `expand` applied to every value.
    ///
    /// # Errors
    /// Unknown keys, values that make no sense, keys that do not go with the mount's kind; and those of `expand`.
    pub fn resolve(&self, mut expand: impl FnMut(&str) -> Result<String>) -> Result<Mount> {
        let mut mount = Mount::default();
        let (mut read_only, mut sharing) = (None, None);
        for (key, value) in &self.fields {
            let value = match value {
                Some(value) => Some(expand(value)?),
                None => None,
            };
            match (key.as_str(), value.as_deref()) {
                ("readonly" | "ro", value) => read_only = Some(flag(key, value)?),
                ("readwrite" | "rw", value) => read_only = Some(!flag(key, value)?),
                ("required", value) if matches!(mount.kind, MountKind::Secret | MountKind::Ssh) => {
                    mount.required = flag(key, value)?;
                }
                ("required", _) => return misplaced(key, mount.kind),
                (key, None) if KEYS.contains(&key) => {
                    return wrong(format!("invalid field '{key}' must be a key=value pair"));
                }
                ("sharing", Some(value)) => sharing = Some(choice("sharing value", value, &SHARINGS)?),
                (key, Some(value)) if KEYS.contains(&key) => mount.set(key, value)?,
                (key, value) => {
                    let field = value.map_or_else(|| key.to_owned(), |value| format!("{key}={value}"));
                    let error =
                        Error::new(Fault::Instruction(format!("unexpected key '{key}' in '{field}'")));
                    return Err(error.meant(suggest::nearest(key, KEYS)));
                }
            }
        }
        mount.read_only = read_only.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
        mount.check(sharing)?;
        mount.sharing = sharing.unwrap_or_default();
        Ok(mount)
    }
}

impl Mount {
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "type" => self.kind = choice("mount type", value, &KINDS)?,
            "from" => self.from = text(),
            "source" | "src" => self.source = text(),
            "target" | "dst" | "destination" => self.target = text(),
            "id" => self.id = text(),
            "env" => self.environment = Some(value.to_owned()),
            "mode" => self.mode = Some(number(key, value, 8)?),
            "uid" => self.uid = Some(number(key, value, 10)?),
            "gid" => self.gid = Some(number(key, value, 10)?),
            _ if self.kind != MountKind::Tmpfs => return misplaced(key, self.kind),
            _ => match size(value) {
                Some(size) => self.size = Some(size).filter(|size| *size > 0),
                None => return wrong(format!("invalid value for {key}: {value}")),
            },
        }
        Ok(())
    }

    fn check(&self, sharing: Option<Sharing>) -> Result<()> {
        let kind = self.kind.name();
        if matches!(self.kind, MountKind::Bind | MountKind::Tmpfs) {
            for (key, value) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if value.is_some() {
                    return wrong(format!("{key} not allowed for {kind:?} type mounts"));
                }
            }
        }
        if self.kind == MountKind::Secret {
            if self.from.is_some() {
                return wrong("secret mount should not have a from");
            }
            if sharing.is_some() {
                return wrong("secret mount should not define sharing");
            }
            if self.source.is_none() && self.target.is_none() && self.id.is_none() {
                return wrong("invalid secret mount. one of source, target required");
            }
            if self.source.is_some() && self.id.is_some() {
                return wrong("both source and id can't be set");
            }
        }
        match sharing {
            Some(_) if self.kind != MountKind::Cache => {
                wrong(format!("invalid cache sharing set for {kind} mount"))
            }
            _ => Ok(()),
        }
    }
}

impl MountKind {
    /// Its name as a value of `type`.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("bind", |(name, _)| name)
    }
}

fn misplaced<T>(key: &str, kind: MountKind) -> Result<T> {
    wrong(format!("unexpected key '{key}' for mount type '{}'", kind.name()))
}

fn choice<T: Copy>(what: &str, value: &str, all: &[(&'static str, T)]) -> Result<T> {
    let lower = value.to_lowercase();
    match all.iter().find(|(name, _)| *name == lower) {
        Some((_, found)) => Ok(*found),
        None => {
            let error = Error::new(Fault::Instruction(format!("unsupported {what} {value:?}")));
            Err(error.meant(suggest::nearest(value, all.iter().map(|(name, _)| *name))))
        }
    }
}

/// A truth as Go writes it; the key alone is one.
fn flag(key: &str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => wrong(format!("invalid value for {key}: {value}")),
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32> {
    let digits = !value.starts_with('+');
    match u32::from_str_radix(value, radix) {
        Ok(number) if digits => Ok(number),
        _ => wrong(format!("invalid value {value} for {key}")),
    }
}

/// Bytes, with a binary unit: `64m`, `1.5GiB`.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: f64 = digits.parse().ok()?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let letter = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match letter {
        "" if unit != "ib" => 0,
        letter => 1 + ["k", "m", "g", "t", "p"].iter().position(|own| *own == letter)?,
    };
    let bytes = number * 1024_f64.powi(i32::try_from(power).ok()?);
    (bytes < 9.0e18).then_some(bytes as u64)
}

/// Fields between commas; a field in double quotes may hold commas, and two double quotes for one.
fn fields(text: &str) -> Result<Vec<String>> {
    let (mut found, mut field, mut inside) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if inside && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if inside => {
                inside = false;
                if characters.peek().is_some_and(|next| *next != ',') {
                    return wrong(format!(
                        "failed to parse csv mounts: extraneous or missing \" in {text:?}"
                    ));
                }
            }
            '"' if field.is_empty() => inside = true,
            '"' => return wrong(format!("failed to parse csv mounts: bare \" in {text:?}")),
            ',' if !inside => found.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    if inside {
        return wrong(format!("failed to parse csv mounts: extraneous or missing \" in {text:?}"));
    }
    found.push(field);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Result<Mount, String> {
        let resolved =
            MountText::parse(text).and_then(|mount| mount.resolve(|value| Ok(value.replace("$X", "x"))));
        resolved.map_err(|error| error.to_string())
    }

    #[test]
    fn mounts_of_every_kind_are_read() {
        let text = |text: &str| Some(text.to_owned());
        let bind = Mount {
            source: text("src"),
            target: text("/x/dst"),
            from: text("base"),
            read_only: true,
            ..Mount::default()
        };
        assert_eq!(mount("type=bind,from=base,source=src,target=/$X/dst"), Ok(bind.clone()));
        assert_eq!(mount("from=base,src=src,dst=/x/dst,rw"), Ok(Mount { read_only: false, ..bind }));
        let cache =
            mount("type=cache,target=/root/.cache,sharing=LOCKED,id=go,mode=0700,uid=1,gid=2,ro=true")
                .unwrap();
        assert_eq!((cache.kind, cache.sharing, cache.read_only), (MountKind::Cache, Sharing::Locked, true));
        assert_eq!((cache.mode, cache.uid, cache.gid, cache.id), (Some(0o700), Some(1), Some(2), text("go")));
        let tmpfs = mount("type=tmpfs,target=/t,size=64m").unwrap();
        assert_eq!((tmpfs.size, tmpfs.read_only), (Some(64 << 20), false));
        let secret = mount("type=secret,id=key,env=KEY,required").unwrap();
        assert_eq!((secret.environment, secret.required, secret.read_only), (text("KEY"), true, true));
        assert!(mount("type=ssh,required=true").unwrap().required);
        assert_eq!(mount("\"target=/a,b\",type=cache").unwrap().target, text("/a,b"));
    }

    #[test]
    fn mounts_that_make_no_sense_are_refused() {
        for (text, error) in [
            ("type=bin", "unsupported mount type \"bin\" (did you mean bind?)"),
            ("type=cache,sharing=lockd", "unsupported sharing value \"lockd\" (did you mean locked?)"),
            ("tagret=/x", "unexpected key 'tagret' in 'tagret=/x' (did you mean target?)"),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("required", "unexpected key 'required' for mount type 'bind'"),
            ("size=1", "unexpected key 'size' for mount type 'bind'"),
            ("type=tmpfs,size=x", "invalid value for size: x"),
            ("ro=maybe", "invalid value for ro: maybe"),
            ("mode=0700", "mode not allowed for \"bind\" type mounts"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
            ("type=ssh,sharing=shared", "invalid cache sharing set for ssh mount"),
            ("from=$X", "'from' doesn't support variable expansion, define alias stage instead"),
            ("\"a", "failed to parse csv mounts: extraneous or missing \" in \"\\\"a\""),
        ] {
            assert_eq!(mount(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        for (text, expected) in [
            ("1", Some(1)),
            ("1b", Some(1)),
            ("2k", Some(2048)),
            ("1.5GiB", Some(3 << 29)),
            ("1ib", None),
            ("", None),
            ("9e", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }
}
