//! Plugins that a daemon fetches and runs itself. There are none here; those of the host are found in its directories.

use http::StatusCode;

use super::Outcome;
use crate::answer;
use crate::call::Call;
use crate::failure::Failure;

/// `GET /plugins`.
pub fn list(call: &Call) -> Outcome {
    let filters = call.query.filters()?;
    if let Some(other) = filters.names().find(|name| !matches!(*name, "enabled" | "capability")) {
        return Err(Failure::invalid(format!("invalid filter '{other}'")));
    }
    let (yes, no) = (["1", "true"], ["0", "false"]);
    if let Some(other) = filters.get("enabled").find(|value| !yes.contains(value) && !no.contains(value)) {
        return Err(Failure::invalid(format!("invalid filter 'enabled=[{other}]'")));
    }
    Ok(answer::ok::<[(); 0]>(&[]))
}

/// What is asked of one of them.
pub fn no_such(name: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("plugin {name:?} not found"))
}
