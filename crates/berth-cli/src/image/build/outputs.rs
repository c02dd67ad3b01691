//! `--output`: what becomes of what was built.

use std::collections::BTreeSet;
use std::path::PathBuf;

use berth_api::build::{Output as Stream, OutputKind};
use berth_oci::Reference;
use clap::ArgMatches;

use super::sinks::Sink;
use crate::failure::{Failure, Outcome};
use crate::flags::{list, on};
use crate::session::terminal;
use crate::values::{self, csv};

/// What is to become of an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Names that it gets at the daemon.
    pub names: Vec<String>,
    /// Names that are pushed then.
    pub pushed: Vec<String>,
    /// What is sent here, and where it goes; their places are their numbers.
    pub streams: Vec<(Stream, Sink)>,
}

impl Outputs {
    /// What the flags ask for; `tags` are the names that the user wants for the image.
    ///
    /// # Errors
    /// They cannot be understood, or miss something.
    pub fn of(matches: &ArgMatches) -> Outcome<Self> {
        let tags = list(matches, "tag");
        let mut wanted =
            list(matches, "output").iter().map(|text| read(text)).collect::<Outcome<Vec<_>>>()?;
        if on(matches, "push") {
            if !wanted.iter().any(|one| one.kind == "image") {
                wanted.push(Wanted::of("image"));
            }
            wanted.iter_mut().filter(|one| one.kind == "image").for_each(|image| image.push = true);
        }
        if on(matches, "load") && !wanted.iter().any(|one| one.kind == "docker" && one.dest.is_none()) {
            wanted.push(Wanted::of("docker"));
        }
        let mut all = Self::default();
        if wanted.is_empty() {
            all.names = tags;
            return Ok(all);
        }
        for one in wanted {
            all.add(one, &tags)?;
        }
        let takes_output = all.streams.iter().filter(|(_, sink)| *sink == Sink::Stdout).count();
        if takes_output > 1 {
            return Err(Failure::new("only one output can be written to standard output"));
        }
        let directories: Vec<_> = all.streams.iter().filter_map(|(_, sink)| sink.path()).collect();
        let different: BTreeSet<_> = directories.iter().collect();
        if different.len() < directories.len() {
            return Err(Failure::new("several outputs have the same destination"));
        }
        Ok(all)
    }

    fn add(&mut self, wanted: Wanted, tags: &[String]) -> Outcome {
        let own = if wanted.names.is_empty() { tags.to_vec() } else { wanted.names.clone() };
        let stream = |kind| Stream { kind, names: own.clone() };
        match (wanted.kind.as_str(), &wanted.dest) {
            ("image" | "docker", None) => {
                if wanted.push && own.is_empty() {
                    return Err(Failure::new("tag is needed when pushing to registry"));
                }
                let new = own.iter().filter(|name| !self.names.contains(name)).cloned();
                self.names.extend(new.collect::<Vec<_>>());
                if wanted.push {
                    self.pushed.extend(own);
                }
            }
            ("cacheonly", None) => {}
            ("local", Some(dest)) => {
                let sink = Sink::Directory(directory(dest)?);
                self.streams.push((Stream { kind: OutputKind::Tar, names: Vec::new() }, sink));
            }
            ("tar", dest) => {
                let sink = file("tar", dest.as_deref())?;
                self.streams.push((Stream { kind: OutputKind::Tar, names: Vec::new() }, sink));
            }
            ("oci" | "docker", Some(dest)) if wanted.unpacked => {
                self.streams.push((stream(kind(&wanted.kind)), Sink::Directory(directory(dest)?)));
            }
            ("oci" | "docker", dest) => {
                let sink = file(&wanted.kind, dest.as_deref())?;
                self.streams.push((stream(kind(&wanted.kind)), sink));
            }
            ("local", None) => return Err(Failure::new("dest is required for local output")),
            (kind, Some(_)) => return Err(Failure::new(format!("dest is of no use for output {kind}"))),
            (kind, None) => return Err(Failure::new(format!("unknown output type {kind:?}"))),
        }
        Ok(())
    }

    /// Whether standard output is for an output, and not for what is told.
    pub fn takes_output(&self) -> bool {
        self.streams.iter().any(|(_, sink)| *sink == Sink::Stdout)
    }
}

fn kind(name: &str) -> OutputKind {
    if name == "docker" { OutputKind::Docker } else { OutputKind::Oci }
}

/// One output as it is written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    kind: String,
    dest: Option<String>,
    names: Vec<String>,
    push: bool,
    unpacked: bool,
}

impl Wanted {
    fn of(kind: &str) -> Self {
        Self { kind: kind.to_owned(), ..Self::default() }
    }
}

/// Checks one as the command line does before anything is done.
pub fn check(text: &str) -> Result<String, String> {
    read(text).map(|_| text.to_owned()).map_err(|failure| failure.message)
}

/// `type=TYPE[,dest=PATH][,name=NAMES][,push=true][,tar=false]`, `DIRECTORY` or `-`.
fn read(text: &str) -> Outcome<Wanted> {
    let fields = csv::record(text).ok_or_else(|| Failure::new("extraneous or missing \" in quoted-field"))?;
    if fields.len() == 1 && fields[0] == text && !text.starts_with("type=") {
        let dest = Some(text.to_owned());
        return match text {
            "" => Err(Failure::new("an output needs a type or a directory")),
            "-" => Ok(Wanted { dest, ..Wanted::of("tar") }),
            _ => Ok(Wanted { dest, ..Wanted::of("local") }),
        };
    }
    let mut wanted = Wanted::default();
    for field in &fields {
        let (key, value) =
            field.split_once('=').ok_or_else(|| Failure::new(format!("invalid value {field}")))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => value.clone_into(&mut wanted.kind),
            "dest" => wanted.dest = Some(value.to_owned()).filter(|dest| !dest.is_empty()),
            "name" => wanted.names = names(value)?,
            "push" => wanted.push = boolean(key, value)?,
            "tar" => wanted.unpacked = !boolean(key, value)?,
            key => return Err(Failure::new(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    match wanted.kind.as_str() {
        "" => return Err(Failure::new("type is required for output")),
        "registry" => {
            wanted.push = true;
            "image".clone_into(&mut wanted.kind);
        }
        "image" | "local" | "tar" | "oci" | "docker" | "cacheonly" => {}
        kind => return Err(Failure::new(format!("unknown output type {kind:?}"))),
    }
    if wanted.push && wanted.kind != "image" {
        return Err(Failure::new(format!("push is of no use for output {}", wanted.kind)));
    }
    if wanted.unpacked && (wanted.dest.is_none() || !matches!(wanted.kind.as_str(), "oci" | "docker")) {
        return Err(Failure::new("tar=false is for outputs oci and docker with a dest"));
    }
    Ok(wanted)
}

fn names(text: &str) -> Outcome<Vec<String>> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let read = |name: &str| match name.parse::<Reference>() {
        Ok(_) => Ok(name.to_owned()),
        Err(error) => Err(Failure::new(format!("invalid name of an image {name:?}: {error}"))),
    };
    names.map(read).collect()
}

/// The value of a key that is true or false.
pub fn boolean(key: &str, value: &str) -> Outcome<bool> {
    values::boolean(value)
        .map_err(|_| Failure::new(format!("invalid value {value:?} of {key}: true or false")))
}

/// A directory that a tree goes to.
fn directory(dest: &str) -> Outcome<PathBuf> {
    if dest == "-" {
        return Err(Failure::new("a tree cannot be written to standard output: use type=tar"));
    }
    let path = std::path::absolute(dest).map_err(|error| Failure::io("current directory", &error))?;
    match std::fs::metadata(&path) {
        Ok(about) if !about.is_dir() => Err(Failure::new(format!("{dest} is no directory"))),
        _ => Ok(path),
    }
}

/// A file, or standard output if that is none of a user's.
fn file(kind: &str, dest: Option<&str>) -> Outcome<Sink> {
    match dest {
        None | Some("-") if terminal::is_output() => Err(Failure::new(format!(
            "dest file is required for {kind} exporter. refusing to write to console"
        ))),
        None | Some("-") => Ok(Sink::Stdout),
        Some(dest) => {
            let path = std::path::absolute(dest).map_err(|error| Failure::io("current directory", &error))?;
            match path.is_dir() {
                true => Err(Failure::new(format!("destination file {dest} is a directory"))),
                false => Ok(Sink::File(path)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_as_buildx_reads_them() {
        let wanted =
            |kind: &str, dest: Option<&str>| Wanted { dest: dest.map(str::to_owned), ..Wanted::of(kind) };
        for (text, expected) in [
            ("out", wanted("local", Some("out"))),
            ("a=b", wanted("local", Some("a=b"))),
            ("-", wanted("tar", Some("-"))),
            ("type=tar,dest=x.tar", wanted("tar", Some("x.tar"))),
            ("type=docker", wanted("docker", None)),
            ("type=oci,dest=d,tar=false", Wanted { unpacked: true, ..wanted("oci", Some("d")) }),
            (
                "type=image,\"name=a,b:1\",push=1",
                Wanted { names: vec!["a".into(), "b:1".into()], push: true, ..wanted("image", None) },
            ),
            ("type=registry", Wanted { push: true, ..wanted("image", None) }),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, words) in [
            ("", "needs a type"),
            ("type=", "type is required"),
            ("type=zip,dest=x", "unknown output type \"zip\""),
            ("type=tar,x", "invalid value x"),
            ("type=tar,depth=1", "unexpected key 'depth' in 'depth=1'"),
            ("type=image,push=perhaps", "invalid value \"perhaps\" of push"),
            ("type=tar,push=true", "push is of no use for output tar"),
            ("type=image,name=A", "invalid name of an image \"A\""),
            ("type=tar,tar=false,dest=x", "tar=false is for outputs oci and docker"),
            ("type=\"tar", "quoted-field"),
        ] {
            let told = check(text).unwrap_err();
            assert!(told.contains(words), "{text}: {told}");
        }
    }
}
