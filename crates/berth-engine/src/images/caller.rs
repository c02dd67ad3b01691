//! On whose behalf registries are asked.

use std::collections::HashMap;

use berth_api::auth::AuthConfig;
use berth_registry::Credentials;

/// What a request says of who wants something of a registry.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The account, if one came.
    pub auth: Option<AuthConfig>,
    /// Accounts for other registries that may have to be asked, by the addresses of these.
    pub accounts: HashMap<String, AuthConfig>,
    /// What the client calls itself (the value of its `User-Agent`).
    pub agent: Option<Vec<u8>>,
}

impl From<Caller> for berth_registry::Caller {
    fn from(caller: Caller) -> Self {
        let others = caller.accounts.into_iter();
        let others =
            others.filter_map(|(address, auth)| Some((super::push::domain(&address), credentials(auth)?)));
        Self { credentials: caller.auth.and_then(credentials), others: others.collect(), agent: caller.agent }
    }
}

/// What a client sends of credentials, as the registry's client takes it.
fn credentials(auth: AuthConfig) -> Option<Credentials> {
    if !auth.registrytoken.is_empty() {
        return Some(Credentials::Token(auth.registrytoken));
    }
    if !auth.identitytoken.is_empty() {
        return Some(Credentials::Identity(auth.identitytoken));
    }
    let named = !auth.username.is_empty() && !auth.password.is_empty();
    named.then_some(Credentials::Password { user: auth.username, password: auth.password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_a_token_or_both_halves_of_a_password() {
        let auth = |user: &str, password: &str, token: &str| AuthConfig {
            username: user.into(),
            password: password.into(),
            registrytoken: token.into(),
            ..AuthConfig::default()
        };
        assert_eq!(credentials(auth("", "", "")), None);
        assert_eq!(credentials(auth("u", "", "")), None);
        let password = Credentials::Password { user: "u".into(), password: "p".into() };
        assert_eq!(credentials(auth("u", "p", "")), Some(password));
        assert_eq!(credentials(auth("u", "p", "t")), Some(Credentials::Token("t".into())));
    }
}
