//! Files into and out of containers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_api::container::PathStat;
use berth_engine::op;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::Outcome;
use super::images::parts;
use crate::answer;
use crate::body::Body;
use crate::call::{Call, Query};
use crate::failure::Failure;

const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

/// `HEAD /containers/{name}/archive`.
pub async fn stat(call: Call, name: &str) -> Outcome {
    let stat = call.engine.stat_path(name, path(&call.query)?).await?;
    with_stat(answer::status(StatusCode::OK), &stat)
}

/// `GET /containers/{name}/archive`.
pub async fn get(call: Call, name: &str) -> Outcome {
    let (stat, archive) = call.engine.archive_path(name, path(&call.query)?).await?;
    with_stat(super::streams::archive("application/x-tar", archive), &stat)
}

/// `PUT /containers/{name}/archive`.
pub async fn put(call: Call, name: &str) -> Outcome {
    let extract = op::Extract {
        path: path(&call.query)?.to_owned(),
        own: call.query.flag("copyUIDGID"),
        replace: !call.query.flag("noOverwriteDirNonDir"),
    };
    let engine = call.engine.clone();
    engine.extract_to_dir(name, extract, parts(call.request)).await?;
    Ok(answer::status(StatusCode::OK))
}

fn path(query: &Query) -> Result<&str, Failure> {
    let path = query.given("path").ok_or_else(|| Failure::invalid("bad parameter: path cannot be empty"))?;
    match path.contains('\0') {
        true => Err(Failure::invalid("bad parameter: path holds a NUL byte")),
        false => Ok(path),
    }
}

fn with_stat(mut response: Response<Body>, stat: &PathStat) -> Outcome {
    let failed = |why: String| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, why);
    let json = serde_json::to_vec(stat).map_err(|error| failed(error.to_string()))?;
    let value = HeaderValue::from_str(&STANDARD.encode(json)).map_err(|error| failed(error.to_string()))?;
    response.headers_mut().insert(STAT, value);
    Ok(response)
}
