//! Options of the drivers that send elsewhere. The messages are Docker's.

use berth_shim::log::remote::SyslogForm;

use super::value::{binary_size, boolean, duration, integer};
use super::{Options, address, splunk};

const SYSLOG: [&str; 7] = [
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
];
const FACILITIES: [&str; 12] =
    ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];
const FLUENTD_FLAGS: [&str; 3] = ["fluentd-async", "fluentd-request-ack", "fluentd-sub-second-precision"];
const FLUENTD_TIMES: [&str; 4] = [
    "fluentd-async-reconnect-interval",
    "fluentd-read-timeout",
    "fluentd-retry-wait",
    "fluentd-write-timeout",
];
const FLUENTD_OTHERS: [&str; 3] = ["fluentd-address", "fluentd-buffer-limit", "fluentd-max-retries"];

/// Checks the options of a driver; `names` are those of its own.
pub(super) fn check<'a>(
    driver: &str,
    mut names: impl Iterator<Item = &'a String>,
    options: &Options,
) -> Result<(), String> {
    match driver {
        "gelf" => gelf(names, options),
        "syslog" => {
            unknown(driver, names.find(|name| !SYSLOG.contains(&name.as_str())))?;
            if let Some(text) = options.get("syslog-address").filter(|text| !text.is_empty()) {
                address::syslog(text)?;
            }
            facility(options.get("syslog-facility"))?;
            syslog_form(options.get("syslog-format")).map(drop)
        }
        // Its values are looked at when the container starts, as Docker does.
        "splunk" => unknown(driver, names.find(|name| !splunk::OPTIONS.contains(&name.as_str()))),
        "fluentd" => {
            let known = |name: &str| {
                FLUENTD_FLAGS.contains(&name)
                    || FLUENTD_TIMES.contains(&name)
                    || FLUENTD_OTHERS.contains(&name)
            };
            unknown(driver, names.find(|name| !known(name)))?;
            fluentd(options)
        }
        _ => unknown(driver, names.next()),
    }
}

fn unknown(driver: &str, name: Option<&String>) -> Result<(), String> {
    match name {
        Some(name) => Err(format!("unknown log opt '{name}' for {driver} log driver")),
        None => Ok(()),
    }
}

/// The facility's number; `daemon` by default.
pub(super) fn facility(text: Option<&String>) -> Result<u8, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(3) };
    if let Some(number) = FACILITIES.iter().position(|name| name == text) {
        return Ok(number as u8);
    }
    let local =
        text.strip_prefix("local").and_then(|digit| digit.parse::<u8>().ok()).filter(|digit| *digit < 8);
    let number = text.parse::<u8>().ok().filter(|number| *number <= 23);
    local.map(|digit| 16 + digit).or(number).ok_or_else(|| "invalid syslog facility".into())
}

/// The form of messages.
pub(super) fn syslog_form(text: Option<&String>) -> Result<SyslogForm, String> {
    match text.map_or("", String::as_str) {
        "" => Ok(SyslogForm::Local),
        "rfc3164" => Ok(SyslogForm::Rfc3164),
        "rfc5424" => Ok(SyslogForm::Rfc5424),
        "rfc5424micro" => Ok(SyslogForm::Rfc5424Micro),
        _ => Err("Invalid syslog format".into()),
    }
}

fn gelf<'a>(names: impl Iterator<Item = &'a String>, options: &Options) -> Result<(), String> {
    let address = address::gelf(options.get("gelf-address").map_or("", String::as_str))?;
    for name in names {
        let value = &options[name];
        let refused = || format!("unknown value {value:?} for log opt {name:?} for gelf log driver");
        match name.as_str() {
            "gelf-address" => {}
            "gelf-compression-level" | "gelf-compression-type" if !address.is_udp() => {
                return Err("compression is only supported on UDP".into());
            }
            "gelf-compression-level" => {
                integer(value).ok().filter(|level| (-1..=9).contains(level)).ok_or_else(refused)?;
            }
            "gelf-compression-type" if matches!(value.as_str(), "gzip" | "zlib" | "none") => {}
            "gelf-compression-type" => return Err(refused()),
            "gelf-tcp-max-reconnect" | "gelf-tcp-reconnect-delay" if address.is_udp() => {
                return Err(format!("{name:?} is only valid for TCP"));
            }
            "gelf-tcp-max-reconnect" | "gelf-tcp-reconnect-delay" => {
                let positive = integer(value).ok().filter(|number| *number >= 0);
                positive.ok_or_else(|| format!("{name:?} must be a positive integer"))?;
            }
            _ => return Err(format!("unknown log opt {name:?} for gelf log driver")),
        }
    }
    Ok(())
}

fn fluentd(options: &Options) -> Result<(), String> {
    address::fluentd(options.get("fluentd-address").map_or("", String::as_str))?;
    let given = |name: &str| options.get(name).filter(|text| !text.is_empty());
    if let Some(text) = given("fluentd-buffer-limit") {
        binary_size(text)?;
    }
    for text in FLUENTD_FLAGS.iter().filter_map(|name| given(name)) {
        boolean(text)?;
    }
    if let Some(text) = given("fluentd-max-retries") {
        let parsed = text
            .parse::<u32>()
            .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))?;
        if parsed > i32::MAX as u32 {
            return Err("invalid fluentd-max-retries: value out of range".into());
        }
    }
    for name in FLUENTD_TIMES {
        let Some(text) = given(name) else { continue };
        let nanos = duration(text)
            .map_err(|error| format!("invalid value for {name}: value must be a duration: {error}"))?;
        if nanos < 0 {
            return Err(format!("invalid value for {name}: value must be a duration that is non-negative"));
        }
        let within = (100_000_000..=10_000_000_000).contains(&nanos);
        if name == "fluentd-async-reconnect-interval" && nanos != 0 && !within {
            return Err(format!("invalid value for {name}: value ({text:?}) must be between 100ms and 10s"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    fn checked(driver: &str, pairs: &[(&str, &str)]) -> Result<(), String> {
        let options = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        super::super::check(driver, &options)
    }

    #[test]
    fn known_options_pass() {
        checked("syslog", &[("syslog-address", "udp://h"), ("syslog-facility", "local7"), ("tag", "x")])
            .unwrap();
        checked("syslog", &[("syslog-format", "rfc5424micro"), ("syslog-facility", "23")]).unwrap();
        checked("gelf", &[("gelf-address", "udp://h:1"), ("gelf-compression-level", "-1")]).unwrap();
        checked("gelf", &[("gelf-address", "tcp://h:1"), ("gelf-tcp-max-reconnect", "0")]).unwrap();
        checked("fluentd", &[("fluentd-async", "true"), ("fluentd-async-reconnect-interval", "250ms")])
            .unwrap();
        checked("splunk", &[("splunk-url", "what?"), ("splunk-gzip", "maybe")]).unwrap();
        checked("journald", &[("labels", "a"), ("cache-disabled", "true")]).unwrap();
    }

    #[test]
    fn others_are_refused_in_docker_s_words() {
        let udp = ("gelf-address", "udp://h:1");
        for (driver, pairs, message) in [
            ("syslog", &[("x", "1")][..], "unknown log opt 'x' for syslog log driver"),
            ("syslog", &[("syslog-facility", "24")], "invalid syslog facility"),
            ("syslog", &[("syslog-format", "x")], "Invalid syslog format"),
            ("journald", &[("x", "1")], "unknown log opt 'x' for journald log driver"),
            ("splunk", &[("x", "1")], "unknown log opt 'x' for splunk log driver"),
            ("gelf", &[], "gelf-address is a required parameter"),
            ("gelf", &[udp, ("x", "1")], "unknown log opt \"x\" for gelf log driver"),
            (
                "gelf",
                &[udp, ("gelf-tcp-max-reconnect", "1")],
                "\"gelf-tcp-max-reconnect\" is only valid for TCP",
            ),
            (
                "gelf",
                &[udp, ("gelf-compression-type", "x")],
                "unknown value \"x\" for log opt \"gelf-compression-type\" for gelf log driver",
            ),
            ("fluentd", &[("x", "1")], "unknown log opt 'x' for fluentd log driver"),
            (
                "fluentd",
                &[("fluentd-async-reconnect-interval", "20s")],
                "invalid value for fluentd-async-reconnect-interval: value (\"20s\") must be between 100ms and 10s",
            ),
        ] {
            assert_eq!(checked(driver, pairs), Err(message.into()));
        }
    }
}
