//! Which requests go through a proxy, and through which one.

use std::net::IpAddr;

use ipnet::IpNet;
use url::Url;

use crate::{Error, Result};

/// Proxies for requests to registries. Loopback never goes through one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http` addresses; an `http` or `https` address itself, perhaps with a user.
    pub http: String,
    /// For `https` addresses.
    pub https: String,
    /// Hosts that are reached without, separated by commas: names with all that is below them, addresses, networks,
    /// each perhaps with a port, or `*`.
    pub none: String,
}

/// A URL without its user and password, otherwise as it was written; any other text as it is.
#[must_use]
pub fn without_credentials(text: &str) -> String {
    let masked = || {
        let url = Url::parse(text).ok()?;
        let (scheme, rest) = text.split_once("://")?;
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let host = authority.rfind('@')? + 1;
        let has_user = !url.username().is_empty() || url.password().is_some();
        has_user.then(|| format!("{scheme}://xxxxx:xxxxx@{}", &rest[host..]))
    };
    masked().unwrap_or_else(|| text.to_owned())
}

impl Proxies {
    /// Those that the environment names, in capitals or not.
    pub fn from_environment() -> Self {
        let variable = |name: &str| {
            let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            value(name).or_else(|| value(&name.to_lowercase())).unwrap_or_default()
        };
        Self { http: variable("HTTP_PROXY"), https: variable("HTTPS_PROXY"), none: variable("NO_PROXY") }
    }

    /// The same without users and passwords, for people to see.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mask = |text: &String| without_credentials(text);
        Self { http: mask(&self.http), https: mask(&self.https), none: mask(&self.none) }
    }

    /// The proxy for requests to `url`.
    ///
    /// # Errors
    /// One that cannot be used: nothing is asked past it then.
    pub(crate) fn for_url(&self, url: &Url) -> Result<Option<Proxy>> {
        let text = if url.scheme() == "https" { &self.https } else { &self.http };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Ok(None) };
        if text.is_empty() || self.spares(host.trim_matches(['[', ']']), port) {
            return Ok(None);
        }
        let proxy = Proxy::parse(text);
        proxy.map(Some).ok_or_else(|| Error::Proxy { proxy: without_credentials(text) })
    }

    fn spares(&self, host: &str, port: u16) -> bool {
        let address = host.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        self.none.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
            let (name, wanted) = match entry.rsplit_once(':') {
                Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
                    (name, digits.parse().ok())
                }
                _ => (entry, None),
            };
            let name = name.trim_matches(['[', ']']).to_ascii_lowercase();
            let matches = match (name.parse::<IpNet>(), name.parse::<IpAddr>()) {
                (Ok(network), _) => address.is_some_and(|address| network.contains(&address)),
                (_, Ok(one)) => address == Some(one),
                _ if name == "*" => true,
                _ => is_below(&host.to_ascii_lowercase(), &name),
            };
            matches && wanted.is_none_or(|wanted: u16| wanted == port)
        })
    }
}

/// Whether `host` is `name` or below it; a name that begins with a dot is not meant itself.
fn is_below(host: &str, name: &str) -> bool {
    let bare = name.trim_start_matches("*.").trim_start_matches('.');
    let below = host.strip_suffix(bare).is_some_and(|rest| rest.ends_with('.'));
    below || (host == name && !name.starts_with('.'))
}

/// A proxy that is spoken to by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it is spoken to with TLS.
    pub is_secure: bool,
    /// What `Proxy-Authorization` says.
    pub authorization: Option<String>,
}

impl Proxy {
    fn parse(text: &str) -> Option<Self> {
        use base64::Engine as _;
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&text).ok()?;
        let is_secure = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let decoded = |text: &str| {
            let pairs = format!("x={}", text.replace('+', "%2B"));
            url::form_urlencoded::parse(pairs.as_bytes()).next().map(|(_, value)| value.into_owned())
        };
        let authorization = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                let pair = format!("{}:{}", decoded(user)?, decoded(password.unwrap_or_default())?);
                Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
            }
        };
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        Some(Self { host, port: url.port_or_known_default()?, is_secure, authorization })
    }

    /// Host and port, as settings name it.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.is_secure && self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(none: &str) -> Proxies {
        Proxies { http: "http://p:1".into(), https: "http://u:s%40e@q:2".into(), none: none.into() }
    }

    fn goes(none: &str, url: &str) -> bool {
        proxies(none).for_url(&Url::parse(url).unwrap()).unwrap().is_some()
    }

    #[test]
    fn the_scheme_chooses_the_proxy() {
        let proxy = proxies("").for_url(&Url::parse("http://a.example/").unwrap()).unwrap().unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port, proxy.authorization), ("p", 1, None));
        let proxy = proxies("").for_url(&Url::parse("https://a.example/").unwrap()).unwrap().unwrap();
        assert_eq!((proxy.host.as_str(), proxy.authorization.unwrap().as_str()), ("q", "Basic dTpzQGU="));
        assert_eq!(Proxy::parse("x:3128").unwrap().authority(), "x:3128");
        let secure = Proxy::parse("https://[2001:db8::1]").unwrap();
        assert!(secure.is_secure && secure.port == 443 && secure.authority() == "[2001:db8::1]");
    }

    #[test]
    fn what_cannot_be_a_proxy_is_not_gone_past() {
        for text in ["socks5://u:secret@x:1", "ftp://u:secret@x", "http://"] {
            let proxies = Proxies { http: text.into(), ..Proxies::default() };
            let for_url = |url: &str| proxies.for_url(&Url::parse(url).unwrap());
            let told = for_url("http://a.example/").unwrap_err().to_string();
            assert!(
                told.contains("http://[USER:PASSWORD@]HOST[:PORT]") && !told.contains("secret"),
                "{told}"
            );
            assert_eq!(for_url("http://localhost/").unwrap(), None);
            assert_eq!(for_url("https://a.example/").unwrap(), None);
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = proxies("a,b").masked();
        assert_eq!(shown.http, proxies("a,b").http);
        assert!(shown.https.starts_with("http://xxxxx:xxxxx@q:2"), "{shown:?}");
        for (given, shown) in [
            ("https://u:p@example.org", "https://xxxxx:xxxxx@example.org"),
            ("http://u@h:1/a@b?c", "http://xxxxx:xxxxx@h:1/a@b?c"),
            ("http://u:p@ss@h", "http://xxxxx:xxxxx@h"),
            ("http://h/x@y", "http://h/x@y"),
            ("[a b]", "[a b]"),
        ] {
            assert_eq!(without_credentials(given), shown);
        }
    }

    #[test]
    fn some_hosts_are_spared() {
        for (none, url) in [
            ("", "http://localhost:5000/"),
            ("", "http://127.0.0.1:5000/"),
            ("", "http://[::1]:5000/"),
            ("example.com", "https://example.com/"),
            ("x, example.com", "https://a.example.com/"),
            (".example.com", "https://a.example.com/"),
            ("EXAMPLE.com:443", "https://example.com/"),
            ("10.0.0.0/8", "http://10.1.2.3/"),
            ("10.1.2.3", "http://10.1.2.3/"),
            ("[2001:db8::1]:80", "http://[2001:db8::1]/"),
            ("*", "http://anything/"),
        ] {
            assert!(!goes(none, url), "{none} {url}");
        }
        for (none, url) in [
            ("", "http://example.com/"),
            ("example.com", "http://badexample.com/"),
            (".example.com", "http://example.com/"),
            ("example.com:444", "https://example.com/"),
            ("10.0.0.0/8", "http://11.1.2.3/"),
        ] {
            assert!(goes(none, url), "{none} {url}");
        }
    }
}
