//! `daemon.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::table::{self, FILE_ONLY, Kind, WHOLE};

/// Largest file that is read, in bytes.
const CAP: u64 = 1 << 20;

/// The file's contents, by key, in the notation of flags.
#[derive(Debug, Default)]
pub struct File {
    /// Values by key, as the flag of the same meaning takes them.
    pub values: BTreeMap<String, Vec<String>>,
    /// How Go would print each value, for messages.
    pub shown: BTreeMap<String, String>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("open {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not text.
    #[error("failed to decode configuration JSON at offset {0}")]
    Encoding(usize),
    /// It is no JSON, or not an object.
    #[error("invalid JSON: {0}")]
    Json(String),
    /// A value is of another kind than the option.
    #[error("invalid JSON: cannot use {found} as the value of {key}, which is {expected}")]
    Kind {
        /// The option.
        key: String,
        /// What it takes.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// Keys that nobody knows.
    #[error("the following directives don't match any configuration option: {0}")]
    Unknown(String),
}

impl FileError {
    /// True if there is no such file.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

impl File {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        use std::io::Read as _;
        let io = |source| FileError::Io { path: path.display().to_string(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(CAP + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > CAP {
            return Err(FileError::Json(format!("more than {CAP} bytes")));
        }
        Self::parse(&bytes)
    }

    /// Takes the bytes of a file apart. Nothing at all is an empty configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, FileError> {
        let text = decode(bytes)?;
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let document: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| FileError::Json(error.to_string()))?;
        let flat = flatten(document);
        let known =
            |key: &&String| table::by_key(key).is_none() && FILE_ONLY.iter().all(|(name, _)| name != key);
        let unknown: Vec<&str> = flat.keys().filter(known).map(String::as_str).collect();
        if !unknown.is_empty() {
            return Err(FileError::Unknown(unknown.join(", ")));
        }
        let mut file = Self::default();
        for (key, value) in flat {
            file.shown.insert(key.clone(), as_go_prints(&value));
            // As in Go, null is as good as not there.
            if !value.is_null() {
                file.values.insert(key.clone(), convert(&key, value)?);
            }
        }
        Ok(file)
    }
}

/// UTF-8, or what a byte order mark at the beginning says.
fn decode(bytes: &[u8]) -> Result<String, FileError> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks(2).map(|pair| unit([pair[0], pair.get(1).copied().unwrap_or_default()]));
        char::decode_utf16(units).collect::<Result<String, _>>().map_err(|_| FileError::Encoding(2))
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => std::str::from_utf8(rest)
            .map(str::to_owned)
            .map_err(|error| FileError::Encoding(error.valid_up_to() + bytes.len() - rest.len())),
    }
}

/// Objects that only group keys, such as `proxies`, are replaced by what they hold.
fn flatten(document: Map<String, Value>) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (key, value) in document {
        match value {
            Value::Object(group) if !WHOLE.contains(&key.as_str()) => flat.extend(group),
            value => {
                flat.insert(key, value);
            }
        }
    }
    flat
}

/// The value in the notation of the flag.
fn convert(key: &str, value: Value) -> Result<Vec<String>, FileError> {
    let named = FILE_ONLY.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind);
    let kind = table::by_key(key).map(|option| option.kind).or(named).unwrap_or(Kind::Text);
    // Flags of runtimes are text, but in the file they are objects.
    let kind = if key == "runtimes" { Kind::Object } else { kind };
    match (kind, value) {
        (Kind::Text, Value::String(text)) => Ok(vec![text]),
        (Kind::Switch, Value::Bool(on)) => Ok(vec![on.to_string()]),
        (Kind::Number, Value::Number(number)) if number.is_i64() || number.is_u64() => {
            Ok(vec![number.to_string()])
        }
        (Kind::Size, Value::Number(number)) if number.is_u64() => Ok(vec![number.to_string()]),
        (Kind::Size, Value::String(text)) => Ok(vec![text]),
        (Kind::List, Value::Array(items)) => items.into_iter().map(|item| text(key, item)).collect(),
        (Kind::Map, Value::Object(pairs)) => pairs
            .into_iter()
            .map(|(name, value)| text(key, value).map(|value| format!("{name}={value}")))
            .collect(),
        (Kind::Ulimits, Value::Object(limits)) => limits
            .into_iter()
            .map(|(name, limit)| {
                let half = |half: &str| limit.get(half).and_then(Value::as_i64);
                match (half("Soft"), half("Hard")) {
                    (Some(soft), Some(hard)) => Ok(format!("{name}={soft}:{hard}")),
                    _ => Err(wrong(key, Kind::Ulimits, &limit)),
                }
            })
            .collect(),
        (Kind::Object, value @ Value::Object(_)) | (Kind::Array, value @ Value::Array(_)) => {
            Ok(vec![value.to_string()])
        }
        (kind, value) => Err(wrong(key, kind, &value)),
    }
}

fn text(key: &str, value: Value) -> Result<String, FileError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong(key, Kind::List, &other)),
    }
}

fn wrong(key: &str, kind: Kind, found: &Value) -> FileError {
    let expected = match kind {
        Kind::Text => "a string",
        Kind::Switch => "true or false",
        Kind::Number => "a whole number",
        Kind::Size => "a size",
        Kind::List => "a list of strings",
        Kind::Map => "an object of strings",
        Kind::Ulimits => "an object of limits with Name, Soft and Hard",
        Kind::Object => "an object",
        Kind::Array => "a list",
    };
    let found = match found {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(_) => "a string".to_owned(),
        other => other.to_string(),
    };
    FileError::Kind { key: key.to_owned(), expected, found }
}

/// A value as Go's `%v` prints it.
fn as_go_prints(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(as_go_prints).collect::<Vec<_>>().join(" ")),
        Value::Object(pairs) => {
            let pairs = pairs.iter().map(|(name, value)| format!("{name}:{}", as_go_prints(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        File::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn nothing_is_an_empty_configuration() {
        for text in ["", " \n", "{}"] {
            assert!(File::parse(text.as_bytes()).unwrap().values.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn values_become_what_the_flags_take() {
        let text = r#"{
            "debug": true, "labels": ["a=b", "c=d"], "mtu": 1400, "default-shm-size": "64M", "pidfile": null,
            "log-opts": {"max-size": "2m"}, "proxies": {"http-proxy": "http://p"},
            "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 7, "Soft": 5}}, "runtimes": {"x": {"path": "/x"}}
        }"#;
        let file = File::parse(text.as_bytes()).unwrap();
        let values = |key: &str| file.values.get(key).map(|list| list.join("|")).unwrap_or_default();
        assert_eq!(values("debug"), "true");
        assert_eq!(values("labels"), "a=b|c=d");
        assert_eq!(values("mtu"), "1400");
        assert_eq!(values("default-shm-size"), "64M");
        assert_eq!(values("log-opts"), "max-size=2m");
        assert_eq!(values("http-proxy"), "http://p");
        assert_eq!(values("default-ulimits"), "nofile=5:7");
        assert_eq!(values("runtimes"), r#"{"x":{"path":"/x"}}"#);
        assert!(!file.values.contains_key("pidfile"));
        assert_eq!(file.shown["labels"], "[a=b c=d]");
        assert_eq!(file.shown["log-opts"], "map[max-size:2m]");
    }

    #[test]
    fn unknown_keys_are_named_all() {
        assert_eq!(
            error(r#"{"nope": 1, "debug": true, "also": {}, "group": {"inner": 1}}"#),
            "the following directives don't match any configuration option: inner, nope"
        );
    }

    #[test]
    fn wrong_kinds_say_which_key() {
        assert_eq!(
            error(r#"{"debug": "yes"}"#),
            "invalid JSON: cannot use a string as the value of debug, which is true or false"
        );
        for text in [
            r#"{"labels": "a=b"}"#,
            r#"{"labels": [1]}"#,
            r#"{"mtu": 1.5}"#,
            r#"{"mtu": "1400"}"#,
            r#"{"log-opts": {"a": 1}}"#,
            r#"{"default-ulimits": {"nofile": 3}}"#,
            r#"{"features": []}"#,
            r#"{"data-root": 3}"#,
        ] {
            assert!(error(text).starts_with("invalid JSON: cannot use"), "{text}");
        }
        for text in ["{", "[]", "3", "{} {}", r#"{"debug" true}"#] {
            assert!(error(text).starts_with("invalid JSON: "), "{text}");
        }
    }

    #[test]
    fn byte_order_marks_are_understood() {
        let wide: Vec<u8> = "\u{feff}{\"debug\":true}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = "\u{feff}{\"debug\":true}".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [wide, big, "\u{feff}{\"debug\":true}".as_bytes().to_vec()] {
            assert_eq!(File::parse(&bytes).unwrap().values["debug"], ["true"]);
        }
        assert!(matches!(File::parse(b"{\"debug\":\xff}"), Err(FileError::Encoding(9))));
        assert!(File::parse(&[0xff, 0xfe, 0x7b]).is_err());
    }
}
