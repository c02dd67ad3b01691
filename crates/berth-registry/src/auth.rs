//! Credentials and tokens.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// Most tokens kept.
const TOKENS: usize = 128;
/// Lifetime of a token whose realm names none (token specification).
const LIFETIME: Duration = Duration::from_secs(60);
/// A token is not used in its last seconds.
const MARGIN: Duration = Duration::from_secs(5);

/// What a user has for a registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// A name with its password.
    Password {
        /// The name.
        user: String,
        /// The password or personal token.
        password: String,
    },
    /// A token that the registry takes as it is.
    Token(String),
    /// A token that a login gave, which the realm exchanges for others.
    Identity(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets do not belong in logs.
        formatter.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// The header's value, if they can be sent as they are.
    pub(crate) fn header(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
            }
            Self::Token(token) => Some(format!("Bearer {token}")),
            Self::Identity(_) => None,
        }
    }
}

/// What a realm answers.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: Option<String>,
}

/// A token of a realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What is sent to the registry.
    pub token: String,
    /// How long it is good.
    pub lifetime: Duration,
    /// What a login gives instead of the password.
    pub identity: Option<String>,
}

impl TokenAnswer {
    /// The token.
    pub fn read(bytes: &[u8]) -> Result<Token, String> {
        let answer: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let named = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let token = named.ok_or("authorization server did not include a token in the response")?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token holds characters that no header may".to_owned());
        }
        let lifetime = answer.expires_in.map_or(LIFETIME, Duration::from_secs);
        Ok(Token { token, lifetime, identity: answer.refresh_token.filter(|token| !token.is_empty()) })
    }
}

/// What a token is for: registry, scope, and whose it is.
pub(crate) type Key = (String, String, Option<Credentials>);

/// Values of authorization headers until they expire.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    found: Mutex<HashMap<Key, (String, Instant)>>,
}

impl Tokens {
    pub fn get(&self, key: &Key) -> Option<String> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(key).filter(|(_, until)| Instant::now() < *until).map(|(token, _)| token.clone())
    }

    pub fn put(&self, key: Key, token: String, lifetime: Duration) {
        let now = Instant::now();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|_, (_, until)| now < *until);
        if found.len() < TOKENS
            && let Some(until) = now.checked_add(lifetime.saturating_sub(MARGIN))
        {
            found.insert(key, (token, until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_realms_are_read() {
        let token = |token: &str, lifetime, identity: Option<&str>| {
            Ok(Token { token: token.to_owned(), lifetime, identity: identity.map(str::to_owned) })
        };
        assert_eq!(TokenAnswer::read(br#"{"token":"abc"}"#), token("abc", LIFETIME, None));
        let all = br#"{"token":"","access_token":"d","expires_in":300,"refresh_token":"r"}"#;
        assert_eq!(TokenAnswer::read(all), token("d", Duration::from_secs(300), Some("r")));
        assert!(TokenAnswer::read(b"{}").is_err());
        assert!(TokenAnswer::read(br#"{"token":"a\r\nX: y"}"#).is_err());
    }

    #[test]
    fn tokens_expire_and_are_not_shared_between_users() {
        let tokens = Tokens::default();
        let user = Credentials::Password { user: "u".into(), password: "p".into() };
        let key = |who: Option<&Credentials>| ("r".to_owned(), "s".to_owned(), who.cloned());
        tokens.put(key(Some(&user)), "t".into(), Duration::from_secs(60));
        assert_eq!(tokens.get(&key(Some(&user))).as_deref(), Some("t"));
        assert_eq!(tokens.get(&key(None)), None);
        tokens.put(key(None), "old".into(), Duration::from_secs(1));
        assert_eq!(tokens.get(&key(None)), None);
        assert_eq!(user.header().as_deref(), Some("Basic dTpw"));
        assert_eq!(format!("{user:?}"), "Credentials(..)");
    }
}
