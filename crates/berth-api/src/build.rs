//! What Berth's builder takes and tells beyond Docker's API: documents in parameters of `POST /build`, and in its answer.
//! `docs/dockerfile.md` describes them for other clients.

use serde::{Deserialize, Serialize};

/// What `Berth-Build` of `/_ping` says of a daemon that takes all that is here.
pub const EXTENSIONS: &str = "check,outputs,contexts,cache";

/// A form in which the client gets what was built, over its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// The files of the image, as a tar.
    Tar,
    /// The image as an OCI layout.
    Oci,
    /// The same with the documents of `docker save`.
    Docker,
}

/// An entry of the parameter `outputs`; its place there is the number by which the session takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Output {
    /// In which form.
    #[serde(rename = "Type")]
    pub kind: OutputKind,
    /// Names that the image has there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// Where steps of builds are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheKind {
    /// In a repository of a registry.
    Registry,
    /// In a directory of the client.
    Local,
}

/// Which steps are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Those that the image consists of.
    #[default]
    Min,
    /// Those of all stages.
    Max,
}

/// An entry of the parameters `cacheto` and `cachesources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Cache {
    /// Where it is.
    #[serde(rename = "Type")]
    pub kind: CacheKind,
    /// The repository and its tag; of a directory, the number or the name by which the session knows it.
    pub place: String,
    /// What is written.
    #[serde(default)]
    pub mode: CacheMode,
    /// Whether the directories of `RUN --mount=type=cache` are part of it.
    #[serde(default)]
    pub mounts: bool,
    /// Whether a build goes on if it cannot be written.
    #[serde(default)]
    pub ignore_error: bool,
}

/// What `lint` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lint {
    /// No warnings are told.
    #[default]
    No,
    /// `warn`: they are told at the end of the build.
    Also,
    /// `only`: they are told, and nothing is built.
    Only,
}

/// The auxiliary data of a message that tells of warnings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Checked {
    /// What was found; absent in other data.
    pub warnings: Option<Vec<Warning>>,
    /// The Dockerfile.
    pub source: String,
}

/// The auxiliary data of a message that tells where in the Dockerfile a build has failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Failed {
    /// The instruction; absent in other data.
    pub failed: Option<Place>,
    /// The Dockerfile.
    pub source: String,
}

/// Lines of a Dockerfile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Place {
    /// The first one, counted from 1.
    pub first: usize,
    /// The last one.
    pub last: usize,
}

/// Something in a Dockerfile that had better be otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Warning {
    /// The rule, by BuildKit's name.
    pub rule: String,
    /// The rule in words.
    pub description: String,
    /// Where more is said about it; empty for nowhere.
    #[serde(rename = "URL")]
    pub url: String,
    /// What is wrong here.
    pub message: String,
    /// The first line, counted from 1.
    pub first: usize,
    /// The last line.
    pub last: usize,
}
