//! The `WWW-Authenticate` header (RFC 9110, section 11.6.1), as far as registries use it.

/// How the registry wants to be convinced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token from a realm.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    /// User name and password.
    Basic,
}

/// The best challenge of a header's values: a token rather than a password.
pub(crate) fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut found = None;
    for value in values {
        match parse(value) {
            Some(bearer @ Challenge::Bearer { .. }) => return Some(bearer),
            Some(Challenge::Basic) => found = Some(Challenge::Basic),
            None => {}
        }
    }
    found
}

fn parse(value: &str) -> Option<Challenge> {
    let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = rest;
    while let Some((name, value, after)) = parameter(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
        rest = after;
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// `name="value"` or `name=value` at the start of `text`, and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (name, rest) = text.split_once('=')?;
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(',').unwrap_or(rest.len());
        return Some((name.trim(), rest[..end].trim().to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((name.trim(), value, &quoted[index + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull""#;
        assert_eq!(
            parse(hub),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".to_owned(),
                service: Some("registry.docker.io".to_owned()),
                scope: Some("repository:library/debian:pull".to_owned()),
            })
        );
        assert_eq!(parse("basic realm=x"), Some(Challenge::Basic));
        assert_eq!(parse("Negotiate"), None);
        assert_eq!(parse("Bearer service=x"), None);
        assert_eq!(
            parse(r#"Bearer realm="a\"b" , scope=c, d"#),
            Some(Challenge::Bearer { realm: "a\"b".to_owned(), service: None, scope: Some("c".to_owned()) })
        );
        let best = choose(["Basic", r#"Bearer realm="r""#].into_iter());
        assert!(matches!(best, Some(Challenge::Bearer { .. })));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "\\PC*", rest in "[a-z=\",\\\\ é]*") {
            parse(&text);
            parse(&format!("Bearer {rest}"));
        }
    }
}
