//! Where a container's output is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::LogSettings;

/// Where a container's output is kept; nowhere by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The files on this host.
    pub file: Option<FilePlan>,
}

/// The files of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilePlan {
    /// Berth's own format.
    Segments {
        /// Made (0700) if it is missing.
        directory: PathBuf,
        /// Its bounds.
        settings: LogSettings,
    },
    /// Docker's format.
    JsonFile {
        /// The file that is written; its directory exists.
        path: PathBuf,
        /// Its bounds.
        settings: LogSettings,
        /// Rotated files are compressed.
        compress: bool,
        /// What goes into every line.
        attributes: BTreeMap<String, String>,
    },
}
