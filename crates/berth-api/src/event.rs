//! Events.

use serde::{Deserialize, Serialize};

use crate::StringMap;

/// One event of `GET /events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// The action, as clients before API 1.22 read it; not sent since 1.52.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The actor, likewise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The image, likewise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `network`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `exec_start: true`, …
    #[serde(rename = "Action")]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "is_zero")]
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano", skip_serializing_if = "is_zero")]
    pub time_nano: i64,
}

/// What an event happened to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actor {
    /// ID, or an image's name.
    #[serde(rename = "ID")]
    pub id: String,
    /// Labels, name, exit code and the like.
    #[serde(rename = "Attributes")]
    pub attributes: StringMap,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
