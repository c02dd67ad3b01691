//! Proxies of the user's settings, which containers are told of.

use berth_api::container::CreateRequest;
use berth_client::Host;

use crate::config::Settings;

/// The variables that tell programs of the user's proxies for a daemon, in both cases.
pub fn variables(settings: &Settings, host: &Host) -> Vec<(String, String)> {
    let found = settings.proxies.get(&host.to_string()).or_else(|| settings.proxies.get("default"));
    let Some(proxies) = found else { return Vec::new() };
    let all = [
        ("ALL_PROXY", &proxies.all_proxy),
        ("FTP_PROXY", &proxies.ftp_proxy),
        ("HTTP_PROXY", &proxies.http_proxy),
        ("HTTPS_PROXY", &proxies.https_proxy),
        ("NO_PROXY", &proxies.no_proxy),
    ];
    let set = all.into_iter().filter(|(_, value)| !value.is_empty());
    set.flat_map(|(name, value)| [name.to_owned(), name.to_lowercase()].map(|name| (name, value.clone())))
        .collect()
}

/// Adds the variables that tell of proxies to a container's, unless the user set them. `given` are the variables of
/// flags, with or without values.
pub fn add(settings: &Settings, host: &Host, given: &[String], request: &mut CreateRequest) {
    let variables = variables(settings, host);
    if variables.is_empty() {
        return;
    }
    let known: Vec<&str> = given.iter().map(|text| text.split('=').next().unwrap_or_default()).collect();
    let all = request.config.env.get_or_insert_default();
    for (name, value) in variables.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        all.push(format!("{name}={value}"));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Proxies;

    use super::*;

    fn added(host: &str, given: &[&str]) -> Vec<String> {
        let proxies = |text: &str| Proxies { http_proxy: text.into(), ..Proxies::default() };
        let settings = Settings {
            proxies: [("default".into(), proxies("d")), ("tcp://h:1".into(), proxies("h"))].into(),
            ..Settings::default()
        };
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        let mut request = CreateRequest::default();
        add(&settings, &Host::parse(host).unwrap(), &given, &mut request);
        request.config.env.unwrap()
    }

    #[test]
    fn both_cases_are_told_unless_the_user_says_otherwise() {
        assert_eq!(added("unix:///x", &[]), ["HTTP_PROXY=d", "http_proxy=d"]);
        assert_eq!(added("tcp://h:1", &["HTTP_PROXY"]), ["http_proxy=h"]);
        assert!(added("tcp://h:1", &["HTTP_PROXY=", "http_proxy=x"]).is_empty());
    }
}
