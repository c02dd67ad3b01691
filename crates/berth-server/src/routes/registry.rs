//! What speaks to registries: pushes, logins, looks at what they have.

use berth_api::auth::AuthConfig;
use berth_api::version::ApiVersion;

use super::{Outcome, images, platforms};
use crate::answer;
use crate::call::Call;

/// Before this version the platform is not looked at.
const WITH_PLATFORM: ApiVersion = ApiVersion::new(1, 46);

pub async fn push(call: Call, name: &str) -> Outcome {
    let platform = platforms::single(&call.query, call.version, WITH_PLATFORM)?;
    let (name, tag) = (name.to_owned(), call.query.given("tag").map(str::to_owned));
    let auth = call.registry_auth();
    let engine = call.engine.clone();
    images::progress(|messages| async move {
        engine.image_push(&name, tag.as_deref(), platform, auth, messages).await
    })
    .await
}

pub async fn login(mut call: Call) -> Outcome {
    let auth: AuthConfig = call.required_json().await?;
    Ok(answer::ok(&call.engine.login(auth).await?))
}

pub async fn distribution(call: Call, name: &str) -> Outcome {
    let auth = call.registry_auth();
    Ok(answer::ok(&call.engine.distribution(name, auth).await?))
}
