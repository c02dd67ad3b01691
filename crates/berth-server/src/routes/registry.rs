//! What speaks to registries: pushes, logins, looks at what they have.

use berth_api::auth::AuthConfig;
use berth_api::version::ApiVersion;
use berth_engine::Caller;

use super::{Failure, Outcome, images, platforms};
use crate::answer;
use crate::call::Call;

/// Before this version the platform is not looked at.
const WITH_PLATFORM: ApiVersion = ApiVersion::new(1, 46);

pub async fn push(call: Call, name: &str) -> Outcome {
    let platform = platforms::single(&call.query, call.version, WITH_PLATFORM)?;
    let (name, tag) = (name.to_owned(), call.query.given("tag").map(str::to_owned));
    let caller = call.caller();
    let engine = call.engine.clone();
    images::progress(|messages| async move {
        engine.image_push(&name, tag.as_deref(), platform, caller, messages).await
    })
    .await
}

pub async fn login(mut call: Call) -> Outcome {
    let auth: AuthConfig = call.required_json().await?;
    let caller = Caller { auth: Some(auth), ..call.caller() };
    Ok(answer::ok(&call.engine.login(caller).await?))
}

pub async fn distribution(call: Call, name: &str) -> Outcome {
    let caller = call.caller();
    Ok(answer::ok(&call.engine.distribution(name, caller).await?))
}

pub async fn search(call: Call) -> Outcome {
    let invalid = || Failure::invalid("invalid limit specified");
    let limit = match call.query.given("limit") {
        None => 0,
        Some(text) => text.parse::<u32>().map_err(|_| invalid())?,
    };
    let filters = call.query.filters()?;
    let term = call.query.get("term").to_owned();
    let caller = call.caller();
    Ok(answer::ok(&call.engine.image_search(&term, limit, &filters, caller).await?))
}

/// Berth's own: what a pull would bring.
pub async fn estimate(call: Call, name: &str) -> Outcome {
    let caller = call.caller();
    Ok(answer::ok(&call.engine.image_estimate(name, call.query.given("platform"), caller).await?))
}
