//! Log drivers: what a container asks for, checked, and what its shim is told.

mod address;
mod attributes;
mod options;
mod plan;
mod remote;
mod remote_options;
mod secure;
mod splunk;
pub(crate) mod value;

use std::collections::BTreeMap;

use berth_api::container::LogConfig;

use crate::{Error, LogDefaults};

pub(crate) use attributes::details;
pub use options::{DRIVERS, check};
pub(crate) use plan::{Subject, json_path, plan, reader};

/// The options of a log driver by name.
pub type Options = BTreeMap<String, String>;

/// Options about the local copy of what goes elsewhere are those of `local` with this before them.
const CACHE: &str = "cache-";

/// Fills in the daemon's defaults, as `inspect` then shows them, and checks what comes out.
///
/// # Errors
/// In Docker's words, if there is no such driver or it does not know an option.
pub(crate) fn settle(config: &mut LogConfig, defaults: &LogDefaults) -> Result<(), Error> {
    if config.driver.is_empty() {
        config.driver.clone_from(&defaults.driver);
    }
    let is_default = config.driver == defaults.driver;
    let options = config.config.get_or_insert_default();
    for (name, value) in &defaults.options {
        if is_default || name.starts_with(CACHE) {
            options.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    check(&config.driver, options).map_err(Error::InvalidParameter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn defaults_belong_to_the_default_driver() {
        let defaults = LogDefaults {
            driver: "json-file".into(),
            options: options(&[("max-size", "1k"), ("cache-disabled", "true")]),
        };
        let mut config = LogConfig { driver: String::new(), config: Some(options(&[("max-file", "5")])) };
        settle(&mut config, &defaults).unwrap();
        assert_eq!(config.driver, "json-file");
        let expected = options(&[("cache-disabled", "true"), ("max-file", "5"), ("max-size", "1k")]);
        assert_eq!(config.config, Some(expected));
        let mut other = LogConfig { driver: "local".into(), config: None };
        settle(&mut other, &defaults).unwrap();
        assert_eq!(other.config, Some(options(&[("cache-disabled", "true")])));
    }
}
