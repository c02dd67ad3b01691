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
    fn filters_are_pairs() {
        assert_eq!(filter("Name = a=b "), Ok(("name".to_owned(), "a=b".to_owned())));
        assert!(filter("name").is_err());
        let gathered = filters(&[filter("a=1").unwrap(), filter("a=2").unwrap()]);
        assert_eq!(gathered.get("a").collect::<Vec<_>>(), ["1", "2"]);
    }
}
