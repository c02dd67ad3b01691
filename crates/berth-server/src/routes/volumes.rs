//! Volumes: made, listed, shown, removed.

use berth_api::version::ApiVersion;
use berth_api::volume::CreateRequest;
use http::StatusCode;

use super::images::parts;
use super::{Outcome, streams, swarm};
use crate::answer;
use crate::call::Call;
use crate::failure::Failure;

pub async fn list(call: Call) -> Outcome {
    Ok(answer::ok(&call.engine.volume_list(call.query.filters()?).await?))
}

pub async fn create(mut call: Call) -> Outcome {
    let request: CreateRequest = call.json().await?;
    if request.cluster_volume_spec.is_some() && call.version >= ApiVersion::new(1, 42) {
        return Err(swarm::not_a_manager());
    }
    Ok(answer::json(StatusCode::CREATED, &call.engine.volume_create(request).await?))
}

pub async fn inspect(call: Call, name: &str) -> Outcome {
    Ok(answer::ok(&call.engine.volume_inspect(name).await?))
}

pub async fn remove(call: Call, name: &str) -> Outcome {
    call.engine.volume_remove(name, call.query.flag("force")).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

pub async fn prune(call: Call) -> Outcome {
    let mut filters = call.query.filters()?;
    // Those with a name were spared only later.
    if call.version < ApiVersion::new(1, 42) {
        filters.add("all", "true");
    }
    Ok(answer::ok(&call.engine.volume_prune(filters).await?))
}

/// Only volumes of a swarm can be changed.
pub fn update() -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
}

pub async fn rename(call: Call, name: &str) -> Outcome {
    Ok(answer::ok(&call.engine.volume_rename(name, call.query.get("name")).await?))
}

pub async fn snapshot(call: Call, name: &str) -> Outcome {
    let pause = call.query.flag_or("pause", true);
    let made = call.engine.volume_snapshot(name, call.query.get("name"), pause).await?;
    Ok(answer::json(StatusCode::CREATED, &made))
}

pub async fn export(call: Call, name: &str) -> Outcome {
    Ok(streams::archive("application/x-tar", call.engine.volume_export(name).await?))
}

pub async fn import(call: Call, name: &str) -> Outcome {
    let engine = call.engine.clone();
    engine.volume_import(name, parts(call.request)).await?;
    Ok(answer::status(StatusCode::OK))
}
