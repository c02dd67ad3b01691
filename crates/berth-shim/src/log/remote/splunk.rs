//! Splunk's HTTP Event Collector: one JSON document per line, many of them in one request.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Message, random_name};
use crate::log::Stream;

/// Events of one request, at most; Docker's batch.
pub(crate) const MOST_EVENTS: usize = 1000;
/// Bytes of one request's events, about.
pub(crate) const MOST_BYTES: usize = 512 << 10;

/// What a line is within its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplunkForm {
    /// Text.
    Inline,
    /// JSON where the line is that, and else text.
    Json,
    /// The event itself, after the tag and the attributes.
    Raw,
}

/// What is the same in all requests and events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splunk {
    /// The collector as a URL has it, `host:port`.
    pub authority: String,
    /// Path of its events.
    pub path: String,
    /// What it knows this sender by.
    pub token: String,
    /// Requests are compressed with gzip, from 0 to 9.
    pub gzip: Option<u32>,
    /// Requests name a channel, which a collector with acknowledgements asks for.
    pub channel: bool,
    /// Name of this host.
    pub host: String,
    /// `source`, `sourcetype` and `index` of events; left out where empty.
    pub origin: [String; 3],
    /// What a line is.
    pub form: SplunkForm,
    /// The tag; left out where empty.
    pub tag: String,
    /// Labels and variables.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Event<'a> {
    event: Body<'a>,
    time: String,
    host: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    sourcetype: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    index: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Raw(String),
    Line {
        line: Value,
        source: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        tag: &'a str,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        attrs: &'a BTreeMap<String, String>,
    },
}

impl Splunk {
    /// The event of a message; none where a collector would take none.
    pub(super) fn encode(&self, message: &Message<'_>) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(message.text);
        let event = match self.form {
            SplunkForm::Raw if text.trim().is_empty() => return None,
            SplunkForm::Raw => Body::Raw(format!("{}{text}", self.prefix())),
            form => {
                let parsed = (form == SplunkForm::Json).then(|| serde_json::from_str(&text).ok()).flatten();
                let line = parsed.unwrap_or_else(|| text.into_owned().into());
                let source = if message.stream == Stream::Stdout { "stdout" } else { "stderr" };
                Body::Line { line, source, tag: &self.tag, attrs: &self.attributes }
            }
        };
        let [source, sourcetype, index] = &self.origin;
        let micros = message.time.as_microsecond();
        let time = format!("{}.{:06}", micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        serde_json::to_vec(&Event { event, time, host: &self.host, source, sourcetype, index }).ok()
    }

    fn prefix(&self) -> String {
        let mut prefix = String::new();
        if !self.tag.is_empty() {
            prefix = format!("{} ", self.tag);
        }
        for (name, value) in &self.attributes {
            prefix.push_str(&format!("{name}={value} "));
        }
        prefix
    }

    /// The request that brings events.
    pub(crate) fn request(&self, events: Vec<u8>) -> Vec<u8> {
        let (body, compressed) = match self.gzip.and_then(|level| compress(&events, level)) {
            Some(body) => (body, true),
            None => (events, false),
        };
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Splunk {}\r\nUser-Agent: berth\r\nContent-Length: {}\r\n",
            self.path,
            self.authority,
            self.token,
            body.len()
        );
        if compressed {
            head.push_str("Content-Encoding: gzip\r\n");
        }
        if self.channel {
            head.push_str(&format!("X-Splunk-Request-Channel: {}\r\n", channel()));
        }
        head.push_str("\r\n");
        [head.into_bytes(), body].concat()
    }
}

/// A random UUID.
fn channel() -> String {
    let mut text = random_name(32);
    // Version 4, variant 1.
    text.replace_range(12..13, "4");
    text.replace_range(16..17, "a");
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

fn compress(events: &[u8], level: u32) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(level.min(9)));
    encoder.write_all(events).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read;

    use serde_json::json;

    use super::*;

    pub(crate) fn splunk(form: SplunkForm) -> Splunk {
        Splunk {
            authority: "h:8088".into(),
            path: "/services/collector/event/1.0".into(),
            token: "secret".into(),
            gzip: None,
            channel: false,
            host: "here".into(),
            origin: ["s".into(), String::new(), String::new()],
            form,
            tag: "t".into(),
            attributes: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        }
    }

    fn event(form: SplunkForm, text: &[u8]) -> Option<Value> {
        let encoded = splunk(form).encode(&super::super::message(text))?;
        Some(serde_json::from_slice(&encoded).unwrap())
    }

    #[test]
    fn a_line_is_text_json_or_the_event() {
        let inline = event(SplunkForm::Inline, br#"{"x":1}"#).unwrap();
        let line = json!({ "line": "{\"x\":1}", "source": "stdout", "tag": "t", "attrs": { "a": "b" } });
        let expected = json!({ "event": line, "time": "1700000000.123456", "host": "here", "source": "s" });
        assert_eq!(inline, expected);
        assert_eq!(event(SplunkForm::Json, br#"{"x":1}"#).unwrap()["event"]["line"], json!({ "x": 1 }));
        assert_eq!(event(SplunkForm::Json, b"{x").unwrap()["event"]["line"], "{x");
        assert_eq!(event(SplunkForm::Raw, b"hi").unwrap()["event"], "t a=b hi");
        assert_eq!(event(SplunkForm::Raw, b"  "), None);
    }

    #[test]
    fn requests_say_how_long_they_are_and_how_they_are_compressed() {
        let mut splunk = splunk(SplunkForm::Inline);
        let text = String::from_utf8(splunk.request(b"{}{}".to_vec())).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("POST /services/collector/event/1.0 HTTP/1.1\r\nHost: h:8088\r\n"),
            "{head}"
        );
        assert!(
            head.contains("\r\nAuthorization: Splunk secret\r\n") && head.contains("\r\nContent-Length: 4")
        );
        assert_eq!(body, "{}{}");
        (splunk.gzip, splunk.channel) = (Some(9), true);
        let request = splunk.request(b"{}{}".to_vec());
        let at = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&request[..at]).unwrap();
        let channel = head.split_once("Channel: ").unwrap().1;
        assert_eq!(channel.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{head}");
        let mut body = String::new();
        flate2::read::GzDecoder::new(&request[at + 4..]).read_to_string(&mut body).unwrap();
        assert_eq!(body, "{}{}");
    }
}
