//! Trying credentials.

use http::StatusCode;
use url::Url;

use crate::challenge::Challenge;
use crate::client::Wanted;
use crate::token::Grant;
use crate::upload::{as_refusal, challenge_of};
use crate::{Client, Credentials, Error, Result};

/// What a login gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// A token to be kept instead of the password, from realms that have such.
    pub identity: Option<String>,
}

impl Client {
    /// Tries this client's credentials for the registry `domain`.
    ///
    /// # Errors
    /// [`Error::Refused`]; failures to connect.
    pub async fn login(&self, domain: &str) -> Result<Login> {
        let source = self.source(domain).await?;
        let url = source.base.join("v2/").map_err(|error| Error::malformed("login", error))?;
        let (answer, _) = self.follow(url.clone(), &Wanted::default(), None).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return outcome(&url, answer.status()).map(|()| Login { identity: None });
        }
        let (header, identity) = match challenge_of(answer.headers()) {
            Some(Challenge::Bearer { realm, service, .. }) => {
                let grant = Grant { service: service.as_deref(), scope: "", offline: true };
                let token = self.grant(&url, &realm, &grant, source.credentials).await;
                let token = token.map_err(as_refusal).map_err(|error| match error {
                    Error::Refused { message } => {
                        Error::Refused { message: format!("Get \"{url}\": {message}") }
                    }
                    error => error,
                })?;
                (format!("Bearer {}", token.token), token.identity)
            }
            Some(Challenge::Basic) => match source.credentials.and_then(Credentials::header) {
                Some(header) => (header, None),
                None => {
                    let message = format!("Get \"{url}\": no basic auth credentials");
                    return Err(Error::Refused { message });
                }
            },
            None => return outcome(&url, answer.status()).map(|()| Login { identity: None }),
        };
        let (answer, _) = self.follow(url.clone(), &Wanted::default(), Some(&header)).await?;
        outcome(&url, answer.status()).map(|()| Login { identity })
    }
}

fn outcome(url: &Url, status: StatusCode) -> Result<()> {
    if status == StatusCode::OK {
        return Ok(());
    }
    let message = format!("login attempt to {url} failed with status: {status}");
    Err(if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        Error::Refused { message }
    } else {
        Error::Status { operation: format!("GET {url}"), status, message }
    })
}
