//! Networks.

use berth_api::network::{NetworkConnect, NetworkCreate, NetworkDisconnect};
use berth_api::version::ApiVersion;
use http::StatusCode;

use super::Outcome;
use crate::answer;
use crate::call::Call;
use crate::failure::Failure;

pub async fn list(call: Call) -> Outcome {
    Ok(answer::ok(&call.engine.network_list(call.query.filters()?).await?))
}

/// Everything about a network. How full it is came with 1.52.
pub async fn inspect(call: Call, name: &str) -> Outcome {
    let verbose = match call.query.get("verbose") {
        "" => false,
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        other => {
            return Err(Failure::invalid(format!(
                "invalid value for verbose: {other}: strconv.ParseBool: parsing {other:?}: invalid syntax"
            )));
        }
    };
    let mut network = call.engine.network_inspect(name, call.query.get("scope"), verbose).await?;
    if call.version < ApiVersion::new(1, 52) {
        network.status = None;
    }
    Ok(answer::ok(&network))
}

/// Makes a network. IPv4 can be turned off since 1.48.
pub async fn create(mut call: Call) -> Outcome {
    let mut request: NetworkCreate = call.required_json().await?;
    if call.version < ApiVersion::new(1, 48) {
        request.enable_ipv4 = None;
    }
    Ok(answer::json(StatusCode::CREATED, &call.engine.network_create(request).await?))
}

pub async fn remove(call: Call, name: &str) -> Outcome {
    call.engine.network_remove(name).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

/// Lets a container join. A hardware address can be asked for since 1.54.
pub async fn connect(mut call: Call, name: &str) -> Outcome {
    let mut request: NetworkConnect = call.required_json().await?;
    if call.version < ApiVersion::new(1, 54)
        && let Some(settings) = &mut request.endpoint_config
    {
        settings.mac_address.clear();
    }
    call.engine.network_connect(name, request).await?;
    Ok(answer::status(StatusCode::OK))
}

pub async fn disconnect(mut call: Call, name: &str) -> Outcome {
    let request: NetworkDisconnect = call.required_json().await?;
    call.engine.network_disconnect(name, request).await?;
    Ok(answer::status(StatusCode::OK))
}

pub async fn prune(call: Call) -> Outcome {
    Ok(answer::ok(&call.engine.network_prune(call.query.filters()?).await?))
}
