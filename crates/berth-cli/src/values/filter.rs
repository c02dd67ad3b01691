//! `--filter name=value`.

use berth_api::filter::Filters;
use clap::ArgMatches;

/// Gathers filters from flags.
pub fn filters(flags: &[(String, String)]) -> Filters {
    let mut filters = Filters::default();
    for (name, value) in flags {
        filters.add(name, value);
    }
    filters
}

/// The filters among a command's flags.
pub fn given(matches: &ArgMatches) -> Vec<(String, String)> {
    matches.get_many("filter").map(|all| all.cloned().collect()).unwrap_or_default()
}

/// Adds the filters of the user's settings to those of flags, except labels that a flag says the opposite of.
pub fn with_configured(mut given: Vec<(String, String)>, configured: &[String]) -> Vec<(String, String)> {
    let flags = given.clone();
    for text in configured {
        // What is no pair is passed over, as Docker's client does.
        let Some((name, value)) = text.split_once('=') else { continue };
        let opposite = match name {
            "label" => "label!",
            "label!" => "label",
            _ => "",
        };
        if !flags.iter().any(|(flag, other)| flag == opposite && other == value) {
            given.push((name.to_owned(), value.to_owned()));
        }
    }
    given
}

/// Reads one filter.
pub fn filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_lowercase(), value.trim().to_owned())),
        None => Err("bad format of filter (expected name=value)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_beat_settings() {
        let given = vec![filter("label!=a").unwrap()];
        let configured = ["label=a", "label=b", "until=1h", "nonsense"].map(str::to_owned);
        let all = with_configured(given, &configured);
        let names: Vec<_> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(names, ["label!=a", "label=b", "until=1h"]);
    }

    #[test]
    fn filters_are_pairs() {
        assert_eq!(filter("Name = a=b "), Ok(("name".to_owned(), "a=b".to_owned())));
        assert!(filter("name").is_err());
        let gathered = filters(&[filter("a=1").unwrap(), filter("a=2").unwrap()]);
        assert_eq!(gathered.get("a").collect::<Vec<_>>(), ["1", "2"]);
    }
}
