//! Images as an archive.

use super::streams::archive;
use super::{Outcome, platforms};
use crate::call::Call;
use crate::failure::Failure;

pub async fn images(call: Call) -> Outcome {
    let names: Vec<String> =
        call.query.all("names").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Failure::invalid("no image is named"));
    }
    save(call, names).await
}

pub async fn image(call: Call, name: &str) -> Outcome {
    save(call, vec![name.to_owned()]).await
}

async fn save(call: Call, names: Vec<String>) -> Outcome {
    let platforms = platforms::of_archive(call.version, &call.query)?;
    let stream = call.engine.image_save(names, platforms).await?;
    Ok(archive("application/x-tar", stream))
}
