//! All routes of the API, in one place.

mod archive;
mod attach;
mod build;
mod commit;
mod containers;
mod debug;
mod exec;
mod images;
mod import;
mod intake;
mod legacy;
mod networks;
mod platforms;
mod plugins;
mod registry;
mod requests;
mod save;
mod session;
mod since;
mod stats;
mod streams;
mod swarm;
mod system;
mod usage;
mod volumes;
mod websocket;

use std::sync::Arc;

use berth_engine::Engine;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

use crate::answer;
use crate::authorization::Authorization;
use crate::body::Body;
use crate::call::Call;
use crate::certificate::Peer;
use crate::failure::Failure;
use crate::incoming::RequestBody;
use crate::metrics;

/// What a route gives: an answer, or an error to be told.
type Outcome = Result<Response<Body>, Failure>;

/// What requests are answered with.
pub struct Serving {
    /// What does the work.
    pub engine: Arc<Engine>,
    /// Who is asked first.
    pub authorization: Authorization,
}

/// Answers a request, whatever it is. `peer` is who sent it, if that is known.
pub async fn answer(
    serving: &Serving,
    peer: Option<&Peer>,
    request: http::Request<Incoming>,
) -> Response<Body> {
    let (request, leftover) = RequestBody::wrap(request);
    let outcome = match Call::new(Arc::clone(&serving.engine), request) {
        Ok(call) => judged(&serving.authorization, peer, call).await,
        Err(failure) => Err(failure),
    };
    let response = finished(outcome);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        leftover.drain().await;
    }
    response
}

/// An outcome as it is sent.
fn finished(outcome: Outcome) -> Response<Body> {
    let mut response = outcome.unwrap_or_else(Failure::into_response);
    answer::add_common_headers(&mut response);
    response
}

/// Does what a request asks for, if nobody objects to the request or to its answer.
async fn judged(authorization: &Authorization, peer: Option<&Peer>, mut call: Call) -> Outcome {
    let (method, path) = (call.method.clone(), call.path.clone());
    let outcome = match authorization.admit(&mut call, peer).await {
        Err(failure) => Err(failure),
        Ok(None) => obeyed(call).await,
        Ok(Some(admitted)) => Ok(admitted.release(finished(obeyed(call).await)).await),
    };
    tracing::debug!(%method, path, status = outcome.as_ref().map_or_else(
        |failure| failure.status.as_u16(),
        |response| response.status().as_u16(),
    ), "request");
    outcome
}

async fn obeyed(call: Call) -> Outcome {
    let action = metrics::Action::of(&call.method, &call.path);
    metrics::timed(action, dispatch(call)).await
}

/// Finds the route. As in Docker, a method that a path does not have is a page that is not found.
async fn dispatch(call: Call) -> Outcome {
    let path = call.path.clone();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    if call.method == Method::OPTIONS {
        return Ok(answer::status(StatusCode::OK));
    }
    since::check(&call, &segments)?;
    match segments.split_first() {
        Some((&"containers", rest)) => container_route(call, rest).await,
        Some((&"exec", rest)) => exec_route(call, rest).await,
        Some((&"images", rest)) => image_route(call, rest).await,
        Some((&"networks", rest)) => match (&call.method, rest) {
            (&Method::GET, []) => networks::list(call).await,
            (&Method::GET, [name]) => networks::inspect(call, name).await,
            (&Method::POST, ["create"]) => networks::create(call).await,
            (&Method::POST, ["prune"]) => networks::prune(call).await,
            (&Method::DELETE, [name]) => networks::remove(call, name).await,
            (&Method::POST, [name, "connect"]) => networks::connect(call, name).await,
            (&Method::POST, [name, "disconnect"]) => networks::disconnect(call, name).await,
            _ => Err(Failure::page_not_found()),
        },
        Some((&"volumes", rest)) => volume_route(call, rest).await,
        Some((&"swarm", ["leave"])) if call.method == Method::POST => Err(swarm::not_a_member()),
        Some((&("swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs"), _)) => {
            Err(swarm::not_a_manager())
        }
        Some(_) => system_route(call, &segments).await,
        None => Err(Failure::page_not_found()),
    }
}

async fn container_route(call: Call, segments: &[&str]) -> Outcome {
    match (&call.method, segments) {
        (&Method::POST, ["create"]) => containers::create(call).await,
        (&Method::GET, ["json"]) => containers::list(call).await,
        (&Method::POST, ["prune"]) => containers::prune(call).await,
        (&Method::GET, [name, "json"]) => containers::inspect(call, name).await,
        (&Method::POST, [name, "start"]) => containers::start(call, name).await,
        (&Method::POST, [name, "stop"]) => containers::stop(call, name).await,
        (&Method::POST, [name, "restart"]) => containers::restart(call, name).await,
        (&Method::POST, [name, "kill"]) => containers::kill(call, name).await,
        (&Method::POST, [name, "pause"]) => containers::pause(call, name).await,
        (&Method::POST, [name, "unpause"]) => containers::unpause(call, name).await,
        (&Method::POST, [name, "wait"]) => containers::wait(call, name).await,
        (&Method::POST, [name, "update"]) => containers::update(call, name).await,
        (&Method::POST, [name, "ports"]) => containers::update_ports(call, name).await,
        (&Method::POST, [name, "rename"]) => containers::rename(call, name).await,
        (&Method::POST, [name, "resize"]) => containers::resize(call, name).await,
        (&Method::GET, [name, "top"]) => containers::top(call, name).await,
        (&Method::GET, [name, "changes"]) => containers::changes(call, name).await,
        (&Method::GET, [name, "export"]) => streams::export(call, name).await,
        (&Method::POST, [name, "attach"]) => attach::container(call, name).await,
        (&Method::GET, [name, "attach", "ws"]) => websocket::attach(call, name).await,
        (&Method::GET, [name, "logs"]) => streams::logs(call, name).await,
        (&Method::GET, [name, "stats"]) => stats::container(call, name).await,
        (&Method::POST, [name, "exec"]) => exec::create(call, name).await,
        (&Method::DELETE, [name]) => containers::remove(call, name).await,
        (&Method::HEAD, [name, "archive"]) => archive::stat(call, name).await,
        (&Method::GET, [name, "archive"]) => archive::get(call, name).await,
        (&Method::PUT, [name, "archive"]) => archive::put(call, name).await,
        (&Method::DELETE, [parent, alias]) => containers::remove(call, &format!("{parent}/{alias}")).await,
        // A link's name, which has a slash, is a name of its target.
        (_, [parent, alias, rest @ ..]) if call.engine.is_link(&format!("{parent}/{alias}")) => {
            let name = format!("{parent}/{alias}");
            let segments = [&[name.as_str()], rest].concat();
            Box::pin(container_route(call, &segments)).await
        }
        _ => Err(Failure::page_not_found()),
    }
}

async fn volume_route(call: Call, segments: &[&str]) -> Outcome {
    match (&call.method, segments) {
        (&Method::GET, []) => volumes::list(call).await,
        (&Method::POST, ["create"]) => volumes::create(call).await,
        (&Method::POST, ["prune"]) => volumes::prune(call).await,
        (&Method::GET, [name]) => volumes::inspect(call, name).await,
        (&Method::PUT, [_]) => Err(volumes::update()),
        (&Method::DELETE, [name]) => volumes::remove(call, name).await,
        // Beyond Docker.
        (&Method::POST, [name, "rename"]) => volumes::rename(call, name).await,
        (&Method::POST, [name, "snapshot"]) => volumes::snapshot(call, name).await,
        (&Method::GET, [name, "archive"]) => volumes::export(call, name).await,
        (&Method::PUT, [name, "archive"]) => volumes::import(call, name).await,
        _ => Err(Failure::page_not_found()),
    }
}

async fn exec_route(call: Call, segments: &[&str]) -> Outcome {
    match (&call.method, segments) {
        (&Method::POST, [id, "start"]) => exec::start(call, id).await,
        (&Method::POST, [id, "resize"]) => exec::resize(call, id).await,
        (&Method::GET, [id, "json"]) => exec::inspect(call, id).await,
        _ => Err(Failure::page_not_found()),
    }
}

async fn image_route(call: Call, segments: &[&str]) -> Outcome {
    // Names of images hold slashes.
    match (&call.method, segments) {
        (&Method::GET, ["json"]) => images::list(call).await,
        (&Method::POST, ["create"]) => images::create(call).await,
        (&Method::POST, ["load"]) => images::load(call).await,
        (&Method::GET, ["get"]) => save::images(call).await,
        (&Method::POST, ["prune"]) => images::prune(call).await,
        (&Method::GET, ["search"]) => registry::search(call).await,
        (&Method::GET, [name @ .., "json"]) => images::inspect(call, &name.join("/")).await,
        (&Method::GET, [name @ .., "get"]) => save::image(call, &name.join("/")).await,
        (&Method::GET, [name @ .., "estimate"]) => registry::estimate(call, &name.join("/")).await,
        (&Method::GET, [name @ .., "history"]) => images::history(call, &name.join("/")).await,
        (&Method::POST, [name @ .., "tag"]) => images::tag(call, &name.join("/")).await,
        (&Method::POST, [name @ .., "push"]) => registry::push(call, &name.join("/")).await,
        (&Method::DELETE, name @ [_, ..]) => images::remove(call, &name.join("/")).await,
        _ => Err(Failure::page_not_found()),
    }
}

async fn system_route(call: Call, segments: &[&str]) -> Outcome {
    match (&call.method, segments) {
        (&Method::GET | &Method::HEAD, ["_ping"]) => Ok(system::ping(&call)),
        (&Method::GET, ["version"]) => Ok(system::version(&call)),
        (&Method::GET, ["info"]) => system::info(call).await,
        (&Method::GET, ["events"]) => streams::events(&call),
        (&Method::POST, ["session"]) => session::open(call).await,
        (&Method::GET, ["debug", rest @ ..]) => debug::answer(&call, rest),
        (_, ["plugins", rest @ ..]) => plugin_route(&call, rest),
        (&Method::GET, ["system", "df"]) => usage::disk_usage(call).await,
        (&Method::GET, ["berth", "images", name @ .., "layers"]) => {
            images::layers(call, &name.join("/")).await
        }
        (&Method::POST, ["build", "prune"]) => usage::prune_cache(call).await,
        (&Method::POST, ["commit"]) => commit::container(call).await,
        (&Method::POST, ["auth"]) => registry::login(call).await,
        (&Method::GET, ["distribution", name @ .., "json"]) => {
            registry::distribution(call, &name.join("/")).await
        }
        (&Method::POST, ["build"]) => build::image(call).await,
        _ => Err(Failure::page_not_found()),
    }
}

fn plugin_route(call: &Call, segments: &[&str]) -> Outcome {
    match (&call.method, segments) {
        (&Method::GET, []) => plugins::list(call),
        (&Method::GET, ["privileges"]) | (&Method::POST, ["pull" | "create"]) => unsupported(call),
        (&Method::GET, [name @ .., "json"])
        | (&Method::POST, [name @ .., "enable" | "disable" | "push" | "upgrade" | "set"])
        | (&Method::DELETE, name)
            if !name.is_empty() =>
        {
            Err(plugins::no_such(&name.join("/")))
        }
        _ => Err(Failure::page_not_found()),
    }
}

/// A route of Docker's that nothing here answers yet.
fn unsupported(call: &Call) -> Outcome {
    Err(Failure::new(
        StatusCode::NOT_IMPLEMENTED,
        format!("{} /{} is not supported by Berth yet", call.method, call.path),
    ))
}
