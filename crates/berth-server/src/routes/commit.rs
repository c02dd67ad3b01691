//! Images of what containers have changed.

use berth_api::container::Config;
use berth_api::image::CommitResponse;
use berth_engine::op;
use http::StatusCode;

use super::Outcome;
use crate::answer;
use crate::call::Call;

pub async fn container(mut call: Call) -> Outcome {
    let config: Option<Config> = call.json().await?;
    let query = &call.query;
    let request = op::Commit {
        container: query.get("container").to_owned(),
        name: op::new_image_name(query.get("repo"), query.get("tag"))?,
        comment: query.get("comment").to_owned(),
        author: query.get("author").to_owned(),
        pause: query.flag_or("pause", true),
        config,
        changes: query.all("changes").map(str::to_owned).collect(),
    };
    let id = call.engine.commit(request).await?;
    Ok(answer::json(StatusCode::CREATED, &CommitResponse { id }))
}
