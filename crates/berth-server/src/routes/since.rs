//! Routes that older versions of the API do not have.

use berth_api::version::ApiVersion;
use http::Method;

use crate::call::Call;
use crate::failure::Failure;

/// The minor version that brought a route, and the route as Docker names it.
fn since(method: &Method, segments: &[&str]) -> Option<(u16, &'static str)> {
    Some(match (method.as_str(), segments) {
        ("POST", ["containers", "prune"]) => (25, "POST /containers/prune"),
        ("POST", ["images", "prune"]) => (25, "POST /images/prune"),
        ("POST", ["networks", "prune"]) => (25, "POST /networks/prune"),
        ("POST", ["volumes", "prune"]) => (25, "POST /volumes/prune"),
        ("PUT", ["volumes", _]) => (42, "PUT /volumes/{name:.*}"),
        ("POST", ["build", "prune"]) => (31, "POST /build/prune"),
        ("GET", ["distribution", _, .., "json"]) => (30, "GET /distribution/{name:.*}/json"),
        ("POST", ["plugins", _, .., "upgrade"]) => (26, "POST /plugins/{name:.*}/upgrade"),
        ("GET", ["secrets"]) => (25, "GET /secrets"),
        ("POST", ["secrets", "create"]) => (25, "POST /secrets/create"),
        ("GET", ["secrets", _]) => (25, "GET /secrets/{id}"),
        ("DELETE", ["secrets", _]) => (25, "DELETE /secrets/{id}"),
        ("POST", ["secrets", _, "update"]) => (25, "POST /secrets/{id}/update"),
        ("GET", ["configs"]) => (30, "GET /configs"),
        ("POST", ["configs", "create"]) => (30, "POST /configs/create"),
        ("GET", ["configs", _]) => (30, "GET /configs/{id}"),
        ("DELETE", ["configs", _]) => (30, "DELETE /configs/{id}"),
        ("POST", ["configs", _, "update"]) => (30, "POST /configs/{id}/update"),
        _ => return None,
    })
}

/// Refuses a route that the request's version does not have.
pub fn check(call: &Call, segments: &[&str]) -> Result<(), Failure> {
    match since(&call.method, segments) {
        Some((minor, route)) if call.version < ApiVersion::new(1, minor) => {
            Err(Failure::invalid(format!("{route} requires minimum API version 1.{minor}")))
        }
        _ => Ok(()),
    }
}
