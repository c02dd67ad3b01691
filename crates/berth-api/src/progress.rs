//! Messages of long operations: one JSON object per line (pull, load, push, build).

use serde::{Deserialize, Serialize};

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonMessage {
    /// Text to print as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// What goes on with `id`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// How far it is.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// A bar drawn by the daemon, for old clients.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// Short ID of a layer, or a tag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The operation failed, and how; the last message.
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// The same as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Extra data for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

impl JsonMessage {
    /// A status line without progress.
    pub fn status(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self { id: id.into(), status: status.into(), ..Self::default() }
    }

    /// Text to print as it is.
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: text.into(), ..Self::default() }
    }

    /// The message that ends a failed operation.
    pub fn error(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            error: message.clone(),
            error_detail: Some(ErrorDetail { code: 0, message }),
            ..Self::default()
        }
    }
}

/// How far something is. `{}` clears a bar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    /// Done so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: i64,
    /// In all; zero: unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// How an operation failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// A number for programs; zero: none.
    #[serde(skip_serializing_if = "is_zero_code")]
    pub code: i32,
    /// In words.
    pub message: String,
}

fn is_zero_code(number: &i32) -> bool {
    *number == 0
}
