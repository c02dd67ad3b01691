//! Headers that the user wants sent with every request.

use std::collections::BTreeMap;

use berth_client::{HeaderMap, HeaderName, HeaderValue};

use crate::failure::{Failure, Outcome};
use crate::values::csv;

/// Names headers as `name=value,…`, in place of those of the settings.
const VARIABLE: &str = "DOCKER_CUSTOM_HEADERS";

/// Those of the environment, or else those of the settings.
pub fn read(configured: &BTreeMap<String, String>) -> Outcome<HeaderMap> {
    match std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()) {
        Some(text) => parse(&text),
        None => make(configured.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
    }
}

fn parse(text: &str) -> Outcome<HeaderMap> {
    let fields = csv::record(text).ok_or_else(|| {
        Failure::new(format!(
            "failed to parse custom headers from {VARIABLE} environment variable: value must be formatted as \
             comma-separated key=value pairs"
        ))
    })?;
    let failed = |reason: String| {
        Failure::new(format!("failed to set custom headers from {VARIABLE} environment variable: {reason}"))
    };
    let mut pairs = Vec::new();
    for field in &fields {
        let (name, value) = match field.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (field.as_str(), None),
        };
        if name.trim().is_empty() {
            return Err(failed(format!("value contains a key=value pair with an empty key: '{field}'")));
        }
        let value = value.ok_or_else(|| failed(format!("missing \"=\" in key=value pair: '{field}'")))?;
        pairs.push((name.trim(), value));
    }
    make(pairs.into_iter())
}

fn make<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Outcome<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Failure::new(format!("net/http: invalid header field name {name:?}")))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| Failure::new(format!("net/http: invalid header field value for {name:?}")))?;
        headers.insert(key, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_a_list_of_pairs() {
        let headers = parse("a=b, C = d,\"e=f,g\"").unwrap();
        assert_eq!(
            (&headers["a"], &headers["c"], &headers["e"]),
            (&"b".parse().unwrap(), &HeaderValue::from_static(" d"), &HeaderValue::from_static("f,g"))
        );
        for (text, message) in [
            ("=b", "value contains a key=value pair with an empty key: '=b'"),
            ("ab", "missing \"=\" in key=value pair: 'ab'"),
            ("a=b,\"c", "value must be formatted as comma-separated key=value pairs"),
            ("a b=c", "invalid header field name \"a b\""),
            ("a=\n", "invalid header field value for \"a\""),
        ] {
            assert!(parse(text).unwrap_err().message.ends_with(message), "{text}");
        }
    }
}
