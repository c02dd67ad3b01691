//! Commands run in a container beside its own.

use serde::{Deserialize, Serialize};

use crate::json::string_or_list;

/// Body of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateRequest {
    /// `user[:group]`; empty: the container's.
    pub user: String,
    /// All capabilities.
    pub privileged: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Terminal size at start: rows, columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u32; 2]>,
    /// Attach standard input.
    pub attach_stdin: bool,
    /// Attach standard error.
    pub attach_stderr: bool,
    /// Attach standard output.
    pub attach_stdout: bool,
    /// Keys that detach; empty: the default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detach_keys: String,
    /// Environment beyond the container's.
    pub env: Option<Vec<String>>,
    /// Working directory; empty: the container's.
    pub working_dir: String,
    /// Program and arguments.
    #[serde(deserialize_with = "string_or_list")]
    pub cmd: Option<Vec<String>>,
}

/// Answer to create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    /// The new exec.
    pub id: String,
}

/// Body of `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct StartRequest {
    /// Do not attach.
    pub detach: bool,
    /// As at create; decides the framing.
    pub tty: bool,
    /// Terminal size: rows, columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u32; 2]>,
}

/// `GET /exec/{id}/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Inspect {
    /// The exec.
    #[serde(rename = "ID")]
    pub id: String,
    /// Has a process.
    pub running: bool,
    /// None while it runs.
    pub exit_code: Option<i64>,
    /// What runs.
    pub process_config: ProcessConfig,
    /// Standard input is open.
    pub open_stdin: bool,
    /// Standard error is attached.
    pub open_stderr: bool,
    /// Standard output is attached.
    pub open_stdout: bool,
    /// Can be removed.
    pub can_remove: bool,
    /// The container.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Keys that detach, as bytes in base64.
    pub detach_keys: String,
    /// Process ID on the host; zero before it started.
    pub pid: i64,
}

/// The process of an exec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessConfig {
    /// Has a terminal.
    pub tty: bool,
    /// Program.
    pub entrypoint: String,
    /// Arguments.
    pub arguments: Vec<String>,
    /// All capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    /// `user[:group]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}
