//! `RUN`.

use super::document::Document;
use super::flags::{self, Kind};
use super::instruction::CommandLine;
use super::lines::Raw;
use super::mount::MountText;
use super::parse;
use crate::error::{Result, wrong};

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What runs.
    pub command: CommandLine,
    /// Here-documents that the line begins; the shell reads them after the line.
    pub documents: Vec<Document>,
    /// `--mount`.
    pub mounts: Vec<MountText>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
}

/// Which network a step has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// That of the build.
    #[default]
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// How confined a step is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Security {
    /// As a container.
    #[default]
    Sandbox,
    /// As a privileged container.
    Insecure,
}

impl Network {
    /// Its name as a flag's value.
    pub fn name(self) -> &'static str {
        match self {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        }
    }
}

const FLAGS: [(&str, Kind); 3] = [("mount", Kind::List), ("network", Kind::Text), ("security", Kind::Text)];

pub(super) fn run(raw: Raw) -> Result<Run> {
    let flags = flags::check(&raw.flags, &FLAGS)?;
    let network = match flags.text("network").as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => return wrong(format!("invalid network mode {other:?}")),
    };
    let security = match flags.text("security").as_deref() {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(other) => return wrong(format!("security {other:?} is not valid")),
    };
    let mounts = flags.list("mount").iter().map(|text| MountText::parse(text)).collect::<Result<_>>()?;
    Ok(Run { command: parse::command(&raw.rest)?, documents: raw.documents, mounts, network, security })
}
