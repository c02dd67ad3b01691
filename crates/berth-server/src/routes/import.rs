//! Images of archives of files.

use berth_api::version::ApiVersion;
use berth_engine::op;
use berth_oci::Platform;

use super::Outcome;
use super::images::{parts, progress};
use super::intake::carried;
use crate::call::{Call, Query};
use crate::failure::Failure;

/// `POST /images/create` without an image to pull.
pub async fn image(call: Call) -> Outcome {
    let Some(source) = call.query.given("fromSrc").map(str::to_owned) else {
        return Err(Failure::invalid("either fromImage or fromSrc must be given"));
    };
    let request = request(call.version, &call.query, &source)?;
    let engine = call.engine.clone();
    if source == "-" {
        let body = parts(call.request);
        return progress(|messages| {
            carried(
                body,
                |archive| async move { engine.image_import(request, Box::new(archive), messages).await },
            )
        })
        .await;
    }
    progress(|messages| async move { engine.image_import_from(request, &source, messages).await }).await
}

fn request(version: ApiVersion, query: &Query, source: &str) -> Result<op::Import, Failure> {
    let platform = query.given("platform").filter(|_| version >= ApiVersion::new(1, 32));
    let platform = platform.map(str::parse::<Platform>).transpose();
    let message = query.given("message").map_or_else(|| format!("Imported from {source}"), str::to_owned);
    Ok(op::Import {
        name: op::new_image_name(query.get("repo"), query.get("tag"))?,
        message,
        changes: query.all("changes").map(str::to_owned).collect(),
        platform: platform.map_err(|error| Failure::invalid(error.to_string()))?,
    })
}
