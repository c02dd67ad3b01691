//! Syslog, in the forms that Docker has.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::Message;
use crate::log::Stream;

/// The form of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogForm {
    /// As a program on the same host writes it: no host name.
    Local,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424, times in seconds.
    Rfc5424,
    /// RFC 5424, times in microseconds.
    Rfc5424Micro,
}

/// What is the same in all messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syslog {
    /// The form.
    pub form: SyslogForm,
    /// The facility's number, 0 to 23.
    pub facility: u8,
    /// Which program is said to write.
    pub tag: String,
    /// Name of this host.
    pub host: String,
    /// Which process is said to write.
    pub pid: u32,
    /// Each message says its length first (RFC 5425), as over TLS.
    #[serde(default)]
    pub counted: bool,
    /// The host's time zone as in `/etc/localtime`, for the forms that have local times; empty for UTC.
    pub zone: Vec<u8>,
}

impl Syslog {
    /// Empty lines are not sent.
    pub(super) fn encode(&self, message: &Message<'_>) -> Option<Vec<u8>> {
        if message.text.is_empty() {
            return None;
        }
        let severity = if message.stream == Stream::Stdout { 6 } else { 3 };
        let priority = self.facility << 3 | severity;
        let Self { tag, host, pid, .. } = self;
        let time = || self.local_time(message).strftime("%b %e %H:%M:%S");
        let head = match self.form {
            SyslogForm::Local => format!("<{priority}>{} {tag}[{pid}]: ", time()),
            SyslogForm::Rfc3164 => format!("<{priority}>{} {host} {tag}[{pid}]: ", time()),
            SyslogForm::Rfc5424 => {
                let time = message.time.strftime("%Y-%m-%dT%H:%M:%SZ");
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ")
            }
            SyslogForm::Rfc5424Micro => {
                let time = message.time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ")
            }
        };
        let bytes = [head.as_bytes(), message.text, b"\n"].concat();
        Some(if self.counted { [bytes.len().to_string().as_bytes(), b" ", &bytes].concat() } else { bytes })
    }

    fn local_time(&self, message: &Message<'_>) -> jiff::Zoned {
        let zone = TimeZone::tzif("local", &self.zone).unwrap_or(TimeZone::UTC);
        message.time.to_zoned(zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_docker_s() {
        let mut syslog = Syslog {
            form: SyslogForm::Local,
            facility: 3,
            tag: "t".into(),
            host: "h".into(),
            pid: 7,
            counted: false,
            zone: vec![],
        };
        for (form, expected) in [
            (SyslogForm::Local, "<30>Nov 14 22:13:20 t[7]: hi\n"),
            (SyslogForm::Rfc3164, "<30>Nov 14 22:13:20 h t[7]: hi\n"),
            (SyslogForm::Rfc5424, "<30>1 2023-11-14T22:13:20Z h t 7 t - hi\n"),
            (SyslogForm::Rfc5424Micro, "<30>1 2023-11-14T22:13:20.123456Z h t 7 t - hi\n"),
        ] {
            syslog.form = form;
            let bytes = syslog.encode(&super::super::message(b"hi")).unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
        syslog.counted = true;
        let bytes = syslog.encode(&super::super::message(b"hi")).unwrap();
        assert_eq!(bytes, b"47 <30>1 2023-11-14T22:13:20.123456Z h t 7 t - hi\n");
        syslog.counted = false;
        let error = Message { stream: Stream::Stderr, ..super::super::message(b"x") };
        assert!(syslog.encode(&error).unwrap().starts_with(b"<27>"));
        assert!(syslog.encode(&super::super::message(b"")).is_none());
    }
}
