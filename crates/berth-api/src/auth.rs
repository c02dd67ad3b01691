//! Credentials for a registry, as the `X-Registry-Auth` header carries them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Credentials of a registry account. The header is URL-safe base64 of this, in JSON.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub struct AuthConfig {
    /// The account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Its password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// `username:password` in base64, an older way to say both.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// The registry for which they are.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serveraddress: String,
    /// A token to be exchanged for a registry token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    /// A bearer token to be sent as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registrytoken: String,
}

impl fmt::Debug for AuthConfig {
    /// Leaves secrets out.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

/// The answer to a login.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AuthResponse {
    /// `Login Succeeded`.
    pub status: String,
    /// A token to use from now on instead of the password; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
}
