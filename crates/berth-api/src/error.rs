//! The body of every error answer.

use serde::{Deserialize, Serialize};

/// `{"message": …}`, sent with every status from 400 on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorResponse {
    /// What went wrong, in words that clients show (and sometimes match on).
    pub message: String,
}

impl ErrorResponse {
    /// An error body with this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}
