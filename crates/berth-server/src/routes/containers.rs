//! Containers: made, shown, and led through their life.

use berth_api::container::{Config, CreateRequest, PortsUpdate, UpdateRequest, WaitError, WaitResponse};
use berth_api::version::ApiVersion;
use berth_engine::op;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};

use super::{Outcome, legacy, requests};
use crate::answer;
use crate::body::Body;
use crate::call::{Call, Query};
use crate::failure::Failure;
use crate::words;

pub async fn create(mut call: Call) -> Outcome {
    let mut request: CreateRequest = call.required_json().await?;
    if request.config == Config::default() {
        return Err(Failure::invalid("config cannot be empty in order to create a container"));
    }
    check_ports(&request)?;
    let host = requests::Host { unified: berth_engine::has_unified_cgroups() };
    requests::create(call.version, &mut request, host)?;
    let mut warnings = requests::warnings(call.version, &request);
    warnings.extend(requests::link_sysctls(call.version, &mut request)?);
    requests::fill_bindings(&mut request);
    let platform = call.query.given("platform").filter(|_| call.version >= ApiVersion::new(1, 41));
    let mut operation = op::CreateContainer::parse(call.query.given("name"), platform, request)?;
    operation.read_only_top = call.version < ApiVersion::new(1, 44);
    let mut created = call.engine.create(operation).await?;
    created.warnings.extend(warnings);
    Ok(answer::json(StatusCode::CREATED, &created))
}

/// Ports are types of their own in Docker's API, and a malformed one a malformed document.
fn check_ports(request: &CreateRequest) -> Result<(), Failure> {
    let bindings = request.host_config.iter().filter_map(|host| host.port_bindings.as_ref());
    let exposed = request.config.exposed_ports.iter().flat_map(|ports| ports.keys());
    for text in bindings.flat_map(|bindings| bindings.keys()).chain(exposed) {
        let number = text.split('/').next().unwrap_or_default();
        // What is a range is told by the engine.
        if let Err(why) = words::unsigned(number, 16)
            && !number.contains('-')
        {
            return Err(Failure::invalid(format!("invalid JSON: invalid port '{number}': {why}")));
        }
    }
    Ok(())
}

pub async fn list(call: Call) -> Outcome {
    let limit =
        call.query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let operation = op::List {
        all: call.query.flag("all"),
        limit,
        size: call.query.flag("size"),
        filters: call.query.filters()?,
    };
    Ok(legacy::containers(call.version, call.engine.list(operation).await?))
}

pub async fn inspect(call: Call, name: &str) -> Outcome {
    let container = call.engine.inspect(name, call.query.flag("size")).await?;
    Ok(legacy::container(call.version, container))
}

/// Refuses a body where there was one long ago. As in Docker, one of a few bytes is none: it has no document.
fn refuse_body(headers: &HeaderMap) -> Result<(), Failure> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > 7) || headers.contains_key(TRANSFER_ENCODING) {
        return Err(Failure::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    Ok(())
}

pub async fn start(call: Call, name: &str) -> Outcome {
    if let Some(checkpoint) = call.query.given("checkpoint") {
        return Err(refuse_checkpoint(checkpoint));
    }
    if call.query.given("checkpoint-dir").is_some() {
        return Err(Failure::new(StatusCode::FORBIDDEN, "custom checkpointdir is not supported"));
    }
    refuse_body(call.headers())?;
    call.engine.start(name).await?;
    Ok(answer::done())
}

/// Checkpoints need CRIU, which Berth does not drive.
fn refuse_checkpoint(id: &str) -> Failure {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !id.starts_with(|first: char| first.is_ascii_alphanumeric()) || id.len() < 2 || !id.bytes().all(named)
    {
        return Failure::invalid(format!(
            "invalid checkpoint ID {id:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ));
    }
    Failure::invalid("checkpoint is only supported in experimental mode")
}

/// The parameters of stop and restart.
fn stop_parameters(version: ApiVersion, query: &Query) -> Result<op::Stop, Failure> {
    // The signal can be chosen since 1.42.
    let signal = query.given("signal").filter(|_| version >= ApiVersion::new(1, 42));
    Ok(op::Stop { signal: signal.map(str::to_owned), timeout: query.number("t")? })
}

pub async fn stop(call: Call, name: &str) -> Outcome {
    call.engine.stop(name, stop_parameters(call.version, &call.query)?).await?;
    Ok(answer::done())
}

pub async fn restart(call: Call, name: &str) -> Outcome {
    call.engine.restart(name, stop_parameters(call.version, &call.query)?).await?;
    Ok(answer::done())
}

pub async fn kill(call: Call, name: &str) -> Outcome {
    call.engine.kill(name, call.query.given("signal")).await?;
    Ok(answer::done())
}

pub async fn pause(call: Call, name: &str) -> Outcome {
    call.engine.pause(name).await?;
    Ok(answer::done())
}

pub async fn unpause(call: Call, name: &str) -> Outcome {
    call.engine.unpause(name).await?;
    Ok(answer::done())
}

pub async fn remove(call: Call, name: &str) -> Outcome {
    if call.query.flag("link") {
        call.engine.remove_link(name).await?;
        return Ok(answer::done());
    }
    let operation = op::Remove { force: call.query.flag("force"), volumes: call.query.flag("v") };
    call.engine.remove(name, operation).await?;
    Ok(answer::done())
}

pub async fn prune(call: Call) -> Outcome {
    Ok(answer::ok(&call.engine.prune(call.query.filters()?).await?))
}

pub async fn rename(call: Call, name: &str) -> Outcome {
    call.engine.rename(name, call.query.get("name")).await?;
    Ok(answer::done())
}

/// An update without what a version did not know yet.
fn known_to(version: ApiVersion, mut request: UpdateRequest) -> UpdateRequest {
    if version < ApiVersion::new(1, 40) {
        request.pids_limit = None;
    }
    if version < ApiVersion::new(1, 55) {
        request.blkio_weight_device = None;
        request.blkio_device_read_bps = None;
        request.blkio_device_write_bps = None;
        request.blkio_device_read_iops = None;
        request.blkio_device_write_iops = None;
    }
    request
}

pub async fn update(mut call: Call, name: &str) -> Outcome {
    let request: UpdateRequest = call.required_json().await?;
    let operation = op::Update::parse(known_to(call.version, request));
    Ok(answer::ok(&call.engine.update(name, operation).await?))
}

/// Beyond Docker: ports published, and taken back, while the container is there.
pub async fn update_ports(mut call: Call, name: &str) -> Outcome {
    let changes: PortsUpdate = call.required_json().await?;
    call.engine.update_ports(name, changes).await?;
    Ok(answer::done())
}

/// Sends the head at once, so that the client knows its wait counts, and the body when the wait ends.
pub async fn wait(call: Call, name: &str) -> Outcome {
    let before = |minor| call.version < ApiVersion::new(1, minor);
    // Before 1.30 there were no conditions, and all came at the end.
    let condition = if before(30) { "" } else { call.query.get("condition") };
    let condition = op::WaitCondition::parse(condition)?;
    // Before 1.34 there was no room for an error: no answer is one.
    let silent = before(34) && condition == op::WaitCondition::Removed;
    let waiting = call.engine.wait(name, condition).await?;
    let line = async move {
        let response = waiting.finish().await.unwrap_or_else(|error| WaitResponse {
            status_code: -1,
            error: Some(WaitError { message: error.to_string() }),
        });
        match response.error {
            Some(_) if silent => Bytes::new(),
            _ => answer::to_line(&response).unwrap_or_default(),
        }
    };
    if before(30) {
        let json = HeaderValue::from_static("application/json");
        return Ok(answer::with(StatusCode::OK, Some(json), line.await.into()));
    }
    Ok(answer::stream("application/json", Body::stream(stream::once(line))))
}

/// Rows and columns of a resize. As in Docker 32 bits are allowed, of which the kernel knows 16.
pub fn size(query: &Query) -> Result<(u16, u16), Failure> {
    let number = |name: &str, what: &str| {
        let text = query.get(name);
        let number = words::unsigned(text, 32)
            .map_err(|why| Failure::invalid(format!("invalid resize {what} {text:?}: {why}")))?;
        Ok::<_, Failure>(u16::try_from(number).unwrap_or(u16::MAX))
    };
    Ok((number("h", "height")?, number("w", "width")?))
}

pub async fn resize(call: Call, name: &str) -> Outcome {
    let (rows, columns) = size(&call.query)?;
    call.engine.resize(name, rows, columns).await?;
    Ok(answer::status(StatusCode::OK))
}

pub async fn top(call: Call, name: &str) -> Outcome {
    Ok(answer::ok(&call.engine.top(name, call.query.get("ps_args")).await?))
}

pub async fn changes(call: Call, name: &str) -> Outcome {
    Ok(answer::ok(&call.engine.changes(name).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert_eq!(size(&Query::parse("h=24&w=80")).unwrap(), (24, 80));
        assert_eq!(size(&Query::parse("h=0&w=70000")).unwrap(), (0, u16::MAX));
        for (bad, message) in [
            ("", "invalid resize height \"\": invalid syntax"),
            ("h=24", "invalid resize width \"\": invalid syntax"),
            ("h=a&w=1", "invalid resize height \"a\": invalid syntax"),
            ("h=%2B1&w=1", "invalid resize height \"+1\": invalid syntax"),
            ("h=-1&w=80", "invalid resize height \"-1\": value out of range"),
            ("h=1&w=4294967296", "invalid resize width \"4294967296\": value out of range"),
        ] {
            let failure = size(&Query::parse(bad)).unwrap_err();
            assert_eq!(failure.status, StatusCode::BAD_REQUEST, "{bad}");
            assert_eq!(failure.message, message, "{bad}");
        }
    }

    #[test]
    fn updates_change_what_their_version_knows() {
        let request = UpdateRequest {
            pids_limit: Some(5),
            blkio_device_read_bps: Some(Vec::new()),
            ..Default::default()
        };
        assert_eq!(known_to(ApiVersion::NEWEST, request.clone()), request);
        let older = known_to(ApiVersion::new(1, 54), request.clone());
        assert_eq!((older.pids_limit, older.blkio_device_read_bps), (Some(5), None));
        assert_eq!(known_to(ApiVersion::new(1, 39), request), UpdateRequest::default());
    }

    #[test]
    fn stop_parameters_are_checked() {
        let query = Query::parse("t=-1&signal=SIGINT");
        let stop = stop_parameters(ApiVersion::NEWEST, &query).unwrap();
        assert_eq!((stop.timeout, stop.signal.as_deref()), (Some(-1), Some("SIGINT")));
        for (minor, signal) in [(41, None), (42, Some("SIGINT"))] {
            let stop = stop_parameters(ApiVersion::new(1, minor), &query).unwrap();
            assert_eq!((stop.timeout, stop.signal.as_deref()), (Some(-1), signal), "{minor}");
        }
        assert!(stop_parameters(ApiVersion::NEWEST, &Query::parse("t=soon")).is_err());
    }
}
