//! With whose keys repositories are fetched: those that the build's client lends by its session, and never the daemon's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use crate::Error;
use crate::build::executor::Worker;

/// Names of secrets, as in BuildKit: one for a host stands before one for all, and a header before a token. A token is told
/// from a header by the latter part.
const SECRETS: [(&str, bool); 2] = [("GIT_AUTH_HEADER", false), ("GIT_AUTH_TOKEN", true)];
/// The agent that keys are asked for.
const AGENT: &str = "default";
/// Nobody's settings and keys. Hosts are known by the list of the daemon's host, or believed the first time.
const SSH: &str = "ssh -F /dev/null -o IdentityFile=/dev/null -o UserKnownHostsFile=/dev/null \
    -o StrictHostKeyChecking=accept-new -o BatchMode=yes";
/// One token of this host's is for all of its repositories, which name each other as submodules.
const GITHUB: &str = "https://github.com/";

/// What `git` is told in its environment. It is not shown: there may be secrets in it.
pub(super) struct Access(pub Vec<(&'static str, String)>);

impl Access {
    /// What the client lends for a repository. Blocks.
    pub fn of(worker: &Worker, remote: &str) -> Result<Access, Error> {
        let mut environment = vec![("GIT_SSH_COMMAND", SSH.to_owned())];
        let keys = &worker.request.keys.0;
        if let Some(url) = Url::parse(remote).ok().filter(|url| matches!(url.scheme(), "http" | "https")) {
            let secret = |name: &str| keys.secret(name);
            if let Some(header) = header(&host(&url), secret)? {
                let scope = if remote.starts_with(GITHUB) { GITHUB } else { remote };
                // In the environment, and not among the words that everyone on the host can read.
                environment.push(("GIT_CONFIG_COUNT", "1".to_owned()));
                environment.push(("GIT_CONFIG_KEY_0", format!("http.{scope}.extraheader")));
                environment.push(("GIT_CONFIG_VALUE_0", format!("Authorization: {header}")));
            }
        } else if !remote.starts_with("git://")
            && let Some(socket) = keys.ssh(AGENT, (0, 0), 0o600)?
        {
            environment.push(("SSH_AUTH_SOCK", socket.to_string_lossy().into_owned()));
        }
        Ok(Access(environment))
    }
}

/// The host of an address, with the port that is not the usual one.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The header that the first secret there is makes.
fn header(
    host: &str,
    secret: impl Fn(&str) -> Result<Option<Vec<u8>>, Error>,
) -> Result<Option<String>, Error> {
    for suffix in [format!(".{host}"), String::new()] {
        for (name, is_token) in SECRETS {
            let name = format!("{name}{suffix}");
            let Some(value) = secret(&name)? else { continue };
            let text = String::from_utf8(value).ok();
            let text = text.as_deref().map(str::trim).filter(|text| !text.contains(char::is_control));
            let text = text.ok_or_else(|| {
                Error::InvalidParameter(format!("secret {name}: it cannot be the value of a header"))
            })?;
            return Ok(Some(match is_token {
                true => format!("basic {}", STANDARD.encode(format!("x-access-token:{text}"))),
                false => text.to_owned(),
            }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_secret_is_taken() {
        let of = |secrets: &[(&str, &str)]| {
            header("h:8080", |name| {
                let found = secrets.iter().find(|(own, _)| *own == name);
                Ok(found.map(|(_, value)| value.as_bytes().to_vec()))
            })
        };
        assert_eq!(of(&[]).unwrap(), None);
        let token = ("GIT_AUTH_TOKEN", "hush\n");
        assert_eq!(of(&[token]).unwrap().unwrap(), "basic eC1hY2Nlc3MtdG9rZW46aHVzaA==");
        let header = ("GIT_AUTH_HEADER", "bearer x");
        assert_eq!(of(&[token, header]).unwrap().unwrap(), "bearer x");
        let nearer = ("GIT_AUTH_TOKEN.h:8080", "hush");
        assert_eq!(of(&[header, nearer]).unwrap().unwrap(), "basic eC1hY2Nlc3MtdG9rZW46aHVzaA==");
        assert!(of(&[("GIT_AUTH_HEADER", "a\r\nb: c")]).is_err());
        assert_eq!(host(&Url::parse("https://u@h:443/x").unwrap()), "h");
        assert_eq!(host(&Url::parse("http://h:8080/x").unwrap()), "h:8080");
    }
}
