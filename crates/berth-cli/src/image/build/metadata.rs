//! `--metadata-file`.

use serde_json::{Map, Value};

use super::outputs::Outputs;
use crate::failure::{Failure, Outcome};

/// What is told of a build, under the names that buildx has for it. `digest` is that of what was pushed.
///
/// # Errors
/// None that can be met: strings are always JSON.
pub fn text(id: &str, digest: Option<&str>, outputs: &Outputs) -> Outcome<String> {
    let mut all = Map::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            all.insert(name.to_owned(), Value::from(value));
        }
    };
    add("containerimage.config.digest", id);
    add("containerimage.digest", digest.unwrap_or_default());
    add("image.name", &outputs.names.join(","));
    let text = serde_json::to_string_pretty(&all).map_err(|error| Failure::new(error.to_string()))?;
    Ok(text + "\n")
}
