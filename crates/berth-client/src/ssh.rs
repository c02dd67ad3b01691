//! Servers that are reached through the `ssh` program.

use std::fmt;

/// An address `ssh://[USER@]HOST[:PORT][/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// Whom to log in as; none leaves it to ssh's own configuration.
    pub user: Option<String>,
    /// The machine, as ssh knows it.
    pub host: String,
    /// Its port; none leaves it to ssh's own configuration.
    pub port: Option<u16>,
    /// The daemon's socket there; none is where it usually is.
    pub path: Option<String>,
    /// Ask for `berth` there before `docker`; otherwise only for `docker`, as Docker's client does.
    pub berth_first: bool,
}

impl Ssh {
    /// Reads what follows `ssh://`; errors are what Docker's client calls them.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some((_, fragment)) = text.split_once('#') {
            return Err(format!("fragments are not allowed: {fragment:?}"));
        }
        if let Some((_, query)) = text.split_once('?') {
            return Err(format!("query parameters are not allowed: {query:?}"));
        }
        let (authority, path) = text.find('/').map_or((text, ""), |slash| text.split_at(slash));
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err("plain-text password is not supported".to_owned());
        }
        let (host, port) = split_port(address)?;
        if host.is_empty() {
            return Err("hostname is empty".to_owned());
        }
        let user = user.filter(|user| !user.is_empty()).map(decoded).transpose()?;
        let path = decoded(path)?;
        for (what, text) in [("host", Some(host)), ("user", user.as_deref())] {
            if text.is_some_and(|text| !is_plain(text)) {
                return Err(format!("invalid {what}: {:?}", text.unwrap_or_default()));
            }
        }
        if path.contains('\0') {
            return Err("invalid path".to_owned());
        }
        Ok(Self {
            user,
            host: host.to_owned(),
            port,
            path: Some(path).filter(|path| !path.trim_matches('/').is_empty()),
            berth_first: false,
        })
    }

    /// Arguments of the `ssh` program.
    pub fn arguments(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(user) = &self.user {
            all.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            all.extend(["-p".to_owned(), port.to_string()]);
        }
        // No terminal over there: it would make a login shell of the command.
        all.extend(["-o ConnectTimeout=30", "-T", "--"].map(str::to_owned));
        all.extend([self.host.clone(), self.remote_command()]);
        all
    }

    /// What the shell over there is to run.
    fn remote_command(&self) -> String {
        let run = |program: &str| match &self.path {
            Some(path) => format!("{program} {} system dial-stdio", quoted(&format!("--host=unix://{path}"))),
            None => format!("{program} system dial-stdio"),
        };
        if self.berth_first {
            format!("command -v berth >/dev/null && exec {} || exec {}", run("berth"), run("docker"))
        } else {
            run("docker")
        }
    }
}

/// Host and port; the host without the brackets of an IPv6 address.
fn split_port(address: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("missing ']' in host")?;
            (host, port.strip_prefix(':').or((!port.is_empty()).then_some("?")))
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    match port {
        None | Some("") => Ok((host, None)),
        Some(port) => match port.parse() {
            Ok(port) => Ok((host, Some(port))),
            Err(_) => Err(format!("invalid port {port:?} after host")),
        },
    }
}

/// Whether ssh, and a shell that its configuration may hand the text to, take it as one word and as no option.
fn is_plain(text: &str) -> bool {
    !text.starts_with('-') && text.chars().all(|c| c.is_alphanumeric() || "._-@%+:=,".contains(c))
}

/// A text whose `%XX` stand for bytes.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.ok_or_else(|| format!("invalid URL escape in {text:?}"))?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("invalid URL escape in {text:?}"))
}

/// A word for a POSIX shell.
fn quoted(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/._-=:@%+,".contains(c);
    if text.chars().all(safe) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

impl fmt::Display for Ssh {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(formatter, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(formatter, "[{}]", self.host)?,
            false => formatter.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(formatter, ":{port}")?;
        }
        formatter.write_str(self.path.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_become_arguments() {
        for (text, arguments) in [
            ("h", "-o ConnectTimeout=30|-T|--|h|docker system dial-stdio"),
            ("me@h:33", "-l|me|-p|33|-o ConnectTimeout=30|-T|--|h|docker system dial-stdio"),
            ("[::1]:2", "-p|2|-o ConnectTimeout=30|-T|--|::1|docker system dial-stdio"),
            ("h/", "-o ConnectTimeout=30|-T|--|h|docker system dial-stdio"),
            (
                "h/run/a%20b.sock",
                "-o ConnectTimeout=30|-T|--|h|docker '--host=unix:///run/a b.sock' system dial-stdio",
            ),
        ] {
            assert_eq!(Ssh::parse(text).unwrap().arguments().join("|"), arguments, "{text}");
        }
        let both = Ssh { berth_first: true, ..Ssh::parse("h/s").unwrap() };
        assert_eq!(
            both.arguments().pop().unwrap(),
            "command -v berth >/dev/null && exec berth --host=unix:///s system dial-stdio \
             || exec docker --host=unix:///s system dial-stdio"
        );
    }

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        for (text, message) in [
            ("", "hostname is empty"),
            ("me@", "hostname is empty"),
            ("u:p@h", "plain-text password is not supported"),
            ("h?x=1", "query parameters are not allowed: \"x=1\""),
            ("h#f", "fragments are not allowed: \"f\""),
            ("h:x", "invalid port \"x\" after host"),
            ("h:99999", "invalid port \"99999\" after host"),
            ("-oProxyCommand=x", "invalid host: \"-oProxyCommand=x\""),
            ("a$(b)@h", "invalid user: \"a$(b)\""),
            ("h/%zz", "invalid URL escape in \"/%zz\""),
        ] {
            assert_eq!(Ssh::parse(text).unwrap_err(), message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_address_becomes_an_option_or_breaks_the_shell(text in "\\PC{0,40}") {
            if let Ok(ssh) = Ssh::parse(&text) {
                let arguments = ssh.arguments();
                let dashes = arguments.iter().position(|argument| argument == "--").unwrap();
                prop_assert_eq!(arguments.len(), dashes + 3);
                prop_assert!(!arguments[dashes + 1].starts_with('-'));
                let again = Ssh::parse(&ssh.to_string()["ssh://".len()..]);
                let special = ssh.to_string().contains(['%', '?', '#']);
                prop_assert!(special || again == Ok(ssh));
            }
        }
    }
}
