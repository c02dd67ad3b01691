//! Devices of a container, from flags to the request: paths, names, rules, rates.

use berth_api::container::{DeviceMapping, DeviceRequest, HostConfig, ThrottleDevice, WeightDevice};
use clap::ArgMatches;

use crate::failure::{Failure, Outcome};
use crate::flags::{list, some};
use crate::values::size;

/// Reads all flags about devices into the fields that they fill.
pub fn read(matches: &ArgMatches) -> Outcome<HostConfig> {
    let (named, paths): (Vec<_>, Vec<_>) =
        list(matches, "device").into_iter().partition(|text| is_named(text));
    let mut requests = list(matches, "gpus").iter().map(|text| gpus(text)).collect::<Outcome<Vec<_>>>()?;
    if !named.is_empty() {
        let device_ids = Some(named);
        requests.push(DeviceRequest { driver: "cdi".into(), device_ids, ..DeviceRequest::default() });
    }
    let rules = some(matches, "device-cgroup-rule");
    if let Some(bad) = rules.iter().flatten().find(|rule| !is_rule(rule)) {
        return Err(Failure::new(format!(
            "invalid argument {bad:?} for \"--device-cgroup-rule\" flag: invalid device cgroup format '{bad}'"
        )));
    }
    let filled = |list: Vec<_>| Some(list).filter(|list| !list.is_empty());
    let rates = |name: &str, read: fn(&str) -> Option<i64>| {
        let all =
            list(matches, name).iter().map(|text| throttle(name, text, read)).collect::<Outcome<Vec<_>>>()?;
        Ok::<_, Failure>(filled(all))
    };
    let weights =
        list(matches, "blkio-weight-device").iter().map(|text| weight(text)).collect::<Outcome<Vec<_>>>()?;
    let devices = paths.iter().map(|text| device(text)).collect::<Outcome<Vec<_>>>()?;
    let count = |text: &str| text.parse().ok();
    let bytes = |text: &str| size::bytes(text).ok();
    Ok(HostConfig {
        devices: Some(devices).filter(|devices| !devices.is_empty()),
        device_cgroup_rules: rules,
        device_requests: Some(requests).filter(|requests| !requests.is_empty()),
        blkio_weight_device: Some(weights).filter(|weights| !weights.is_empty()),
        blkio_device_read_bps: rates("device-read-bps", bytes)?,
        blkio_device_write_bps: rates("device-write-bps", bytes)?,
        blkio_device_read_iops: rates("device-read-iops", count)?,
        blkio_device_write_iops: rates("device-write-iops", count)?,
        ..HostConfig::default()
    })
}

/// Whether a device is given by its name, `vendor.com/class=name`, and not by a path.
fn is_named(text: &str) -> bool {
    let kind = text.split_once('=').map(|(kind, _)| kind);
    !text.starts_with('/') && kind.is_some_and(|kind| kind.contains('/') && !kind.contains(':'))
}

fn device(text: &str) -> Outcome<DeviceMapping> {
    let refuse =
        |why: String| Failure::new(format!("invalid argument {text:?} for \"--device\" flag: {why}"));
    let is_mode = |text: &str| !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, permissions) = match parts.as_slice() {
        ["", ..] => return Err(refuse(format!("bad format for path: {text}"))),
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, mode] if is_mode(mode) => (*host, *inside, *mode),
        [_, _, mode] => return Err(refuse(format!("bad mode specified: {mode}"))),
        _ => return Err(refuse(format!("bad format for path: {text}"))),
    };
    if !inside.starts_with('/') {
        return Err(refuse(format!("{inside} is not an absolute path")));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: permissions.to_owned(),
    })
}

/// `c 13:* rwm`.
fn is_rule(text: &str) -> bool {
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = words.as_slice() else { return false };
    let is_number =
        |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    matches!(*kind, "a" | "b" | "c")
        && numbers.split_once(':').is_some_and(|(major, minor)| is_number(major) && is_number(minor))
        && (1..=3).contains(&access.len())
        && access.bytes().all(|byte| b"rwm".contains(&byte))
}

/// A path of a device, and what follows its colon.
fn of_device<'a>(flag: &str, text: &'a str) -> Outcome<(&'a str, &'a str)> {
    let refuse =
        |why: String| Failure::new(format!("invalid argument {text:?} for \"--{flag}\" flag: {why}"));
    let (path, value) = text.split_once(':').ok_or_else(|| refuse(format!("bad format: {text}")))?;
    if path.starts_with("/dev/") {
        Ok((path, value))
    } else {
        Err(refuse(format!("bad format for device path: {text}")))
    }
}

fn throttle(flag: &str, text: &str, read: fn(&str) -> Option<i64>) -> Outcome<ThrottleDevice> {
    let (path, value) = of_device(flag, text)?;
    let rate = read(value).and_then(|rate| u64::try_from(rate).ok()).ok_or_else(|| {
        let (unit, more) = match flag.ends_with("bps") {
            true => ("[<unit>]", ". Unit is optional and can be kb, mb, or gb"),
            false => ("", ""),
        };
        Failure::new(format!(
            "invalid argument {text:?} for \"--{flag}\" flag: invalid rate for device: {text}. The correct format is <device-path>:<number>{unit}. Number must be a positive integer{more}"
        ))
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

fn weight(text: &str) -> Outcome<WeightDevice> {
    let (path, value) = of_device("blkio-weight-device", text)?;
    let weight = value.parse::<u16>().ok().filter(|weight| *weight == 0 || (10..=1000).contains(weight));
    let weight = weight.ok_or_else(|| {
        Failure::new(format!(
            "invalid argument {text:?} for \"--blkio-weight-device\" flag: invalid weight for device: {text}"
        ))
    })?;
    Ok(WeightDevice { path: path.to_owned(), weight })
}

/// `all`, `2`, `device=0`, `"device=0,1",capabilities=utility`.
fn gpus(text: &str) -> Outcome<DeviceRequest> {
    let refuse = |why: String| Failure::new(format!("invalid argument {text:?} for \"--gpus\" flag: {why}"));
    let mut request = DeviceRequest::default();
    let mut capabilities = vec!["gpu".to_owned()];
    let mut seen: Vec<String> = Vec::new();
    let mut counted = None;
    for field in fields(text).ok_or_else(|| refuse("a quotation mark is missing".into()))? {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        if seen.iter().any(|known| known == key) {
            return Err(refuse(format!("gpu request key '{key}' can be specified only once")));
        }
        seen.push(key.to_owned());
        let words = || value.split(',').map(str::to_owned);
        match key {
            "driver" => request.driver = value.to_owned(),
            "count" if value == "all" => counted = Some(-1),
            "count" => {
                counted = Some(value.parse::<i64>().map_err(|_| {
                    refuse(format!("invalid count ({value}): value must be either \"all\" or an integer"))
                })?);
            }
            "device" => request.device_ids = Some(words().collect()),
            "capabilities" => capabilities.extend(words()),
            "options" => {
                let pair = |text: &str| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
                request.options = Some(value.split(',').filter_map(pair).collect());
            }
            _ => return Err(refuse(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    let fallback = if request.device_ids.is_some() { 0 } else { 1 };
    request.count = counted.unwrap_or(fallback);
    capabilities.sort();
    capabilities.dedup();
    request.capabilities = Some(vec![capabilities]);
    Ok(request)
}

/// Fields between commas; quotation marks keep commas, and are doubled to stand for themselves.
fn fields(text: &str) -> Option<Vec<String>> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn devices_by_path() {
        let parts =
            |text: &str| device(text).map(|d| [d.path_on_host, d.path_in_container, d.cgroup_permissions]);
        assert_eq!(parts("/dev/a").unwrap(), ["/dev/a", "/dev/a", "rwm"]);
        assert_eq!(parts("/dev/a:r").unwrap(), ["/dev/a", "/dev/a", "r"]);
        assert_eq!(parts("/dev/a:/b").unwrap(), ["/dev/a", "/b", "rwm"]);
        assert_eq!(parts("/dev/a:/b:rw").unwrap(), ["/dev/a", "/b", "rw"]);
        for (bad, words) in [
            ("/dev/a:rx", "rx is not an absolute path"),
            ("/dev/a:/b:x", "bad mode specified: x"),
            ("/dev/a:/b:r:w", "bad format for path: /dev/a:/b:r:w"),
            (":/b", "bad format for path: :/b"),
        ] {
            assert!(parts(bad).unwrap_err().message.ends_with(words), "{bad}");
        }
    }

    #[test]
    fn devices_by_name() {
        assert!(is_named("vendor.com/class=one"));
        for path in ["/dev/a=b", "/dev/a", "a=b", "x"] {
            assert!(!is_named(path), "{path}");
        }
    }

    #[test]
    fn gpus_are_counted_or_named() {
        let all = gpus("all").unwrap();
        assert_eq!((all.count, all.capabilities.unwrap()), (-1, vec![vec!["gpu".to_owned()]]));
        assert_eq!(gpus("3").unwrap().count, 3);
        let named = gpus("\"device=0,1\",capabilities=utility,driver=nvidia").unwrap();
        assert_eq!((named.count, named.driver.as_str()), (0, "nvidia"));
        assert_eq!(named.device_ids.unwrap(), ["0", "1"]);
        assert_eq!(named.capabilities.unwrap(), [["gpu", "utility"]]);
        assert_eq!(gpus("driver=x").unwrap().count, 1);
        for (bad, words) in [
            ("many", "value must be either \"all\" or an integer"),
            ("1,count=2", "can be specified only once"),
            ("what=1", "unexpected key 'what' in 'what=1'"),
            ("\"a", "quotation"),
        ] {
            assert!(gpus(bad).unwrap_err().message.contains(words), "{bad}");
        }
    }

    #[test]
    fn rates_and_weights() {
        let read = |text: &str| size::bytes(text).ok();
        assert_eq!(throttle("device-read-bps", "/dev/a:1mb", read).unwrap().rate, 1 << 20);
        assert_eq!(weight("/dev/a:10").unwrap().weight, 10);
        let count = |text: &str| text.parse().ok();
        let bad = throttle("device-read-iops", "/dev/a:-1", count).unwrap_err().message;
        assert!(bad.contains("invalid rate for device: /dev/a:-1. The correct format"), "{bad}");
        assert!(
            throttle("device-read-bps", "a:1", read)
                .unwrap_err()
                .message
                .contains("bad format for device path")
        );
        assert!(weight("/dev/a:9").is_err() && weight("/dev/a").is_err());
    }

    #[test]
    fn rules_have_three_words() {
        assert!(is_rule("c 13:* rwm") && is_rule("a *:* m"));
        for bad in ["", "c 13 r", "x 1:1 r", "c 1:1 q", "c 1:1 rwmr", "c :1 r", "c 1:1  r"] {
            assert!(!is_rule(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = (device(&text), gpus(&text), weight(&text), is_rule(&text), is_named(&text));
        }
    }
}
