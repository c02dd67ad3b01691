//! Hardware addresses that a request asks for.

use std::collections::BTreeMap;

use berth_api::container::Config;
use berth_api::network::EndpointSettings;

use super::NetworkPlan;
use crate::Error;

/// Reads six bytes in hexadecimal with colons or dashes between.
pub fn parse(text: &str) -> Option<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut bytes = [0; 6];
    let mut parts = text.split(separator);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// Settles the address of a request: that of the container as a whole, or of its endpoint on the network `mode`, where
/// newer clients say it. It is kept in the container's configuration, in Docker's notation.
pub fn settle(
    config: &mut Config,
    endpoints: &BTreeMap<String, Option<EndpointSettings>>,
    mode: &str,
    plan: &NetworkPlan,
) -> Result<(), Error> {
    let invalid = |text: String| Err(Error::InvalidParameter(text));
    let names: &[&str] = if *plan == NetworkPlan::Bridge { &["bridge", "default", ""] } else { &[mode] };
    let endpoint = names.iter().find_map(|name| endpoints.get(*name)?.as_ref());
    let wanted = endpoint.map(|endpoint| endpoint.mac_address.as_str()).filter(|text| !text.is_empty());
    let text = match (config.mac_address.as_str(), wanted) {
        ("", None) => return Ok(()),
        ("", Some(text)) | (text, None) => text,
        (whole, Some(text)) if parse(whole) == parse(text) => text,
        _ => {
            return invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, \
                 or be left empty"
                    .into(),
            );
        }
    };
    let Some(bytes) = parse(text) else {
        return invalid(format!("invalid MAC address: {text}"));
    };
    if !matches!(plan, NetworkPlan::Bridge | NetworkPlan::Named(_)) {
        return invalid("conflicting options: mac-address and the network mode".into());
    }
    config.mac_address = crate::networks::mac_text(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(whole: &str, endpoint: Option<(&str, &str)>, plan: &NetworkPlan) -> Result<String, String> {
        let mut config = Config { mac_address: whole.into(), ..Config::default() };
        let settings =
            |mac: &str| EndpointSettings { mac_address: mac.into(), ..EndpointSettings::default() };
        let endpoints =
            endpoint.map(|(name, mac)| (name.to_owned(), Some(settings(mac)))).into_iter().collect();
        settle(&mut config, &endpoints, "host", plan).map_err(|error| error.to_string())?;
        Ok(config.mac_address)
    }

    #[test]
    fn both_places_are_looked_at() {
        let bridge = &NetworkPlan::Bridge;
        assert_eq!(settled("", None, bridge).unwrap(), "");
        assert_eq!(settled("12-34-56-78-9A-bc", None, bridge).unwrap(), "12:34:56:78:9a:bc");
        assert_eq!(settled("", Some(("default", "12:34:56:78:9a:bc")), bridge).unwrap(), "12:34:56:78:9a:bc");
        let same = settled("12-34-56-78-9A-bc", Some(("bridge", "12:34:56:78:9a:bc")), bridge);
        assert_eq!(same.unwrap(), "12:34:56:78:9a:bc");
        let other = settled("12:34:56:78:9a:bc", Some(("bridge", "12:34:56:78:9a:bd")), bridge).unwrap_err();
        assert!(other.contains("must match"), "{other}");
        let host = settled("", Some(("host", "12:34:56:78:9a:bc")), &NetworkPlan::Host).unwrap_err();
        assert_eq!(host, "conflicting options: mac-address and the network mode");
    }

    #[test]
    fn only_six_bytes_are_an_address() {
        for bad in [
            "",
            "x",
            "1:2:3:4:5:6",
            "12:34:56:78:9a",
            "12:34:56:78:9a:bc:de",
            "12:34:56:78:9a:+c",
            "12-34:56:78:9a:bc",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; 6]) {
            assert_eq!(parse(&crate::networks::mac_text(bytes)), Some(bytes));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[0-9a-fA-F:+-]{0,20}|.{0,20}") {
            let _ = parse(&text);
        }
    }
}
