//! Which options each driver has. The messages are Docker's.

pub(super) use super::remote_options::{facility, syslog_form};
use super::value::{binary_size, boolean, decimal_size, integer};
use super::{CACHE, Options, remote_options};

/// The log drivers, in order.
pub const DRIVERS: [&str; 8] =
    ["fluentd", "gelf", "journald", "json-file", "local", "none", "splunk", "syslog"];

/// Options that every driver has.
const COMMON: [&str; 5] = ["env", "env-regex", "labels", "labels-regex", "tag"];
/// Options that are not the drivers' own.
const BUILT_IN: [&str; 6] =
    ["mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];

/// Checks the options of a driver. `none` takes anything, as in Docker.
///
/// # Errors
/// What is wrong, in Docker's words.
pub fn check(driver: &str, options: &Options) -> Result<(), String> {
    if driver == "none" {
        return Ok(());
    }
    delivery(options)?;
    if let Some(text) = options.get("cache-disabled").filter(|text| !text.is_empty()) {
        boolean(text).map_err(|_| format!("invalid value for option cache-disabled: {text}"))?;
    }
    if !DRIVERS.contains(&driver) {
        return Err(format!("error looking up logging plugin {driver}: plugin {driver:?} not found"));
    }
    let own = |name: &&String| {
        let cached = name.strip_prefix(CACHE).is_some_and(|name| COMMON.contains(&name));
        !(cached || BUILT_IN.contains(&name.as_str()) || COMMON.contains(&name.as_str()))
    };
    let mut names = options.keys().filter(own);
    match driver {
        "json-file" => {
            if let Some(name) = names.find(|name| !FILES.contains(&name.as_str())) {
                return Err(format!("unknown log opt '{name}' for json-file log driver"));
            }
            json_file(options)?;
        }
        "local" => {
            if let Some(name) = names.find(|name| !FILES.contains(&name.as_str())) {
                return Err(format!("unknown log opt '{name}' for log driver {driver}"));
            }
            local(options, "")?;
        }
        _ => remote_options::check(driver, names, options)?,
    }
    local(options, CACHE)?;
    for name in ["labels-regex", "env-regex"] {
        if let Some(pattern) = options.get(name) {
            regex::Regex::new(pattern)
                .map_err(|_| format!("error parsing regexp: invalid pattern: `{pattern}`"))?;
        }
    }
    Ok(())
}

const FILES: [&str; 3] = ["compress", "max-file", "max-size"];

fn delivery(options: &Options) -> Result<(), String> {
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(format!("logger: logging mode not supported: {mode}"));
    }
    if let Some(size) = options.get("max-buffer-size") {
        if mode != "non-blocking" {
            return Err("logger: max-buffer-size option is only supported with 'mode=non-blocking'".into());
        }
        binary_size(size).map_err(|error| format!("error parsing option max-buffer-size: {error}"))?;
    }
    Ok(())
}

fn json_file(options: &Options) -> Result<(), String> {
    if let Some(text) = options.get("max-size")
        && decimal_size(text)? == 0
    {
        return Err("max-size must be a positive number".into());
    }
    let files = options.get("max-file").map(|text| integer(text)).transpose()?;
    if files.is_some_and(|files| files < 1) {
        return Err("max-file cannot be less than 1".into());
    }
    let compress = options.get("compress").map(|text| boolean(text)).transpose()?;
    if compress == Some(true) && files == Some(1) {
        return Err("compress cannot be true when max-file is less than 2 or max-size is not set".into());
    }
    Ok(())
}

fn local(options: &Options, prefix: &str) -> Result<(), String> {
    let get = |name: &str| options.get(&format!("{prefix}{name}"));
    if let Some(text) = get("max-size") {
        let size =
            decimal_size(text).map_err(|error| format!("invalid value for max-size: {text}: {error}"))?;
        if size == 0 {
            return Err("max-size must be a positive number".into());
        }
    }
    if let Some(text) = get("max-file") {
        let files = integer(text).map_err(|error| format!("invalid value for max-file: {text}: {error}"))?;
        if files < 1 {
            return Err("max-file must be at least 1".into());
        }
    }
    if let Some(text) = get("compress") {
        let compress =
            boolean(text).map_err(|error| format!("invalid boolean value for compress: {error}"))?;
        if compress && get("max-file").is_some_and(|files| files == "1") {
            return Err("compression cannot be enabled when max file count is 1".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(driver: &str, pairs: &[(&str, &str)]) -> Result<(), String> {
        check(driver, &pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn known_options_pass() {
        let common = [("labels", "a,b"), ("env-regex", "^X"), ("tag", "{{.Name}}"), ("mode", "blocking")];
        for driver in DRIVERS.into_iter().filter(|driver| *driver != "gelf") {
            checked(driver, &common).unwrap();
        }
        checked("json-file", &[("max-size", "10m"), ("max-file", "3"), ("compress", "true")]).unwrap();
        checked("local", &[("mode", "non-blocking"), ("max-buffer-size", "4m")]).unwrap();
        checked("none", &[("anything", "goes")]).unwrap();
    }

    #[test]
    fn others_are_refused_in_docker_s_words() {
        for (driver, name, value, message) in [
            ("json-file", "x", "1", "unknown log opt 'x' for json-file log driver"),
            ("local", "x", "1", "unknown log opt 'x' for log driver local"),
            ("dove", "x", "1", "error looking up logging plugin dove: plugin \"dove\" not found"),
            ("local", "mode", "x", "logger: logging mode not supported: x"),
            (
                "local",
                "max-buffer-size",
                "1m",
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ),
            ("json-file", "max-size", "x", "invalid size: 'x'"),
            ("json-file", "max-size", "0", "max-size must be a positive number"),
            ("json-file", "max-file", "0", "max-file cannot be less than 1"),
            ("json-file", "compress", "maybe", "strconv.ParseBool: parsing \"maybe\": invalid syntax"),
            ("local", "cache-disabled", "maybe", "invalid value for option cache-disabled: maybe"),
            ("local", "labels-regex", "(", "error parsing regexp: invalid pattern: `(`"),
        ] {
            assert_eq!(checked(driver, &[(name, value)]), Err(message.into()), "{driver} {name}={value}");
        }
    }
}
