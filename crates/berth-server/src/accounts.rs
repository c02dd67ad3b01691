//! Accounts for registries that clients send in headers. As in Docker, unreadable ones count as none.

use std::collections::HashMap;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use berth_api::auth::AuthConfig;
use berth_api::json;
use http::HeaderMap;
use serde::de::DeserializeOwned;

const TOLERANT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The account of `X-Registry-Auth`.
pub fn one(headers: &HeaderMap) -> Option<AuthConfig> {
    decoded(headers, "x-registry-auth").filter(|auth| *auth != AuthConfig::default())
}

/// The accounts of `X-Registry-Config`, by the addresses of their registries.
pub fn all(headers: &HeaderMap) -> HashMap<String, AuthConfig> {
    decoded(headers, "x-registry-config").unwrap_or_default()
}

fn decoded<T: DeserializeOwned>(headers: &HeaderMap, name: &str) -> Option<T> {
    let text = headers.get(name)?.as_bytes();
    let alphabets = [alphabet::URL_SAFE, alphabet::STANDARD];
    let bytes =
        alphabets.iter().find_map(|alphabet| GeneralPurpose::new(alphabet, TOLERANT).decode(text).ok())?;
    json::from_slice(&bytes).ok()
}
