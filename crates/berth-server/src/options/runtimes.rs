//! Options that are about runtimes.

use std::collections::BTreeMap;

use berth_engine::{AddedRuntime, Runtimes, Settings};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{OptionError, value};
use crate::config::Given;

/// A runtime in the file.
#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Described {
    path: String,
    runtime_args: Vec<String>,
    runtime_type: String,
    options: Map<String, Value>,
}

/// Fills in which runtimes there are, and which is that of containers that ask for none.
pub fn runtimes(settings: &mut Settings, given: &Given) -> Result<(), OptionError> {
    let mut added = BTreeMap::new();
    for text in given.list("add-runtime") {
        // A flag is NAME=PATH; the file's object comes as JSON.
        if text.starts_with('{') {
            added.extend(described(text)?);
        } else {
            let (name, path) = text
                .split_once('=')
                .filter(|(name, path)| !name.is_empty() && !path.is_empty())
                .ok_or_else(|| value(format!("invalid runtime: {text}: use the form NAME=PATH")))?;
            added.insert(name.to_owned(), AddedRuntime { path: path.to_owned(), ..AddedRuntime::default() });
        }
    }
    settings.runtimes = Runtimes::with(added).map_err(value)?;
    match given.text("default-runtime").filter(|name| !name.is_empty()) {
        Some(name) if settings.runtimes.knows(name) => name.clone_into(&mut settings.defaults.runtime),
        Some(name) => return Err(value(format!("specified default runtime '{name}' does not exist"))),
        None => {}
    }
    Ok(())
}

fn described(text: &str) -> Result<BTreeMap<String, AddedRuntime>, OptionError> {
    let described: BTreeMap<String, Described> =
        serde_json::from_str(text).map_err(|error| value(format!("runtimes: {error}")))?;
    let mut added = BTreeMap::new();
    for (name, runtime) in described {
        if !runtime.path.is_empty() && !runtime.options.is_empty() {
            return Err(value(format!("runtime {name}: options cannot be used with a path runtime")));
        }
        let Described { path, runtime_args: arguments, runtime_type: kind, .. } = runtime;
        added.insert(name, AddedRuntime { path, arguments, kind });
    }
    Ok(added)
}
