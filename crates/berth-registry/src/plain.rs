//! How registries are spoken to: with TLS, or without where the settings allow that.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use url::Url;

use crate::client::{Wanted, authority_of, lock};
use crate::{Client, Error, Result, config};

/// Registries that are remembered.
const MOST: usize = 1024;

impl Client {
    /// The address of a registry. One that may do without TLS is asked whether it has it, and that is remembered.
    pub(crate) async fn base(&self, authority: &str) -> Result<Url> {
        let address = |scheme: &str| {
            let text = format!("{scheme}://{authority}/");
            Url::parse(&text).map_err(|error| Error::Malformed { operation: text, reason: error.to_string() })
        };
        let secure = address("https")?;
        if !self.look_up(&authority_of(&secure)).await && !self.config().is_insecure(authority) {
            return Ok(secure);
        }
        let known = lock(&self.shared.plain).get(authority).copied();
        let plain = match known {
            Some(plain) => plain,
            None => {
                let mut probe = secure.clone();
                probe.set_path("/v2/");
                let plain = match self.follow(probe, &Wanted::default(), None).await {
                    Ok(_) => false,
                    // Something that does not speak TLS.
                    Err(Error::Tls { .. } | Error::Http { .. }) => true,
                    // Nothing at the default port of TLS; there may be soon.
                    Err(Error::Connect { .. }) => return address("http"),
                    Err(error) => return Err(error),
                };
                let mut registries = lock(&self.shared.plain);
                if registries.len() < MOST {
                    registries.insert(authority.to_owned(), plain);
                }
                plain
            }
        };
        if plain { address("http") } else { Ok(secure) }
    }

    /// Whether what came of a request to a registry at `base` may be because it does not speak any more as it did when it
    /// was asked. That is forgotten then: [`Client::base`] asks again.
    pub(crate) fn doubts(
        &self,
        authority: &str,
        base: &Url,
        outcome: &Result<(Response<Incoming>, String)>,
    ) -> bool {
        let is_odd = match outcome {
            // What servers with TLS answer to requests without.
            Ok((answer, _)) => answer.status() == StatusCode::BAD_REQUEST,
            Err(error) => matches!(error, Error::Tls { .. } | Error::Http { .. }),
        };
        let mut registries = lock(&self.shared.plain);
        // Somebody else may have asked again meanwhile.
        if is_odd && registries.get(authority) == Some(&(base.scheme() == "http")) {
            registries.remove(authority);
        }
        is_odd
    }

    /// Whether a registry that has a name has an address in a network that may do without TLS. As with Docker, such a
    /// network is meant for the registries in it by whatever name; without such networks nothing is looked up.
    pub(crate) async fn look_up(&self, authority: &str) -> bool {
        let config = self.config();
        let host = config::host_of(authority);
        if config.networks().next().is_none() || host.parse::<std::net::IpAddr>().is_ok() {
            return false;
        }
        if let Some(known) = lock(&self.shared.within).get(authority).copied() {
            return known;
        }
        let found = tokio::net::lookup_host((host, 443)).await;
        // A name that is not found now may be later.
        let Ok(mut found) = found else { return false };
        let is_within = found.any(|address| config.is_within(address.ip()));
        let mut within = lock(&self.shared.within);
        if within.len() < MOST {
            within.insert(authority.to_owned(), is_within);
        }
        is_within
    }
}
