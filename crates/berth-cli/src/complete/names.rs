//! Names of objects, from the daemon.

use berth_api::container::Summary;
use berth_api::filter::Filters;
use berth_api::volume::ListResponse;
use berth_api::{container, image};
use berth_client::{Client, Query};
use serde_json::Value;

use super::Kind;
use crate::context::Context;
use crate::contexts::store::DEFAULT;
use crate::format::human::short_id;

/// The names of objects of some kinds; none from a daemon that does not answer.
pub async fn all(context: &Context, kinds: &[Kind], typed: &str) -> Vec<String> {
    let mut found = Vec::new();
    if kinds.contains(&Kind::Contexts) {
        found.push(DEFAULT.to_owned());
        found.extend(context.store().list().unwrap_or_default().into_iter().map(|context| context.name));
    }
    if kinds == [Kind::Contexts] {
        return found;
    }
    if kinds.contains(&Kind::Networks) && kinds.len() == 1 {
        found.extend(["bridge", "host", "none", "container:"].map(str::to_owned));
    }
    // A daemon that does not run is not started for this.
    let Ok(client) = context.existing().await else { return found };
    for kind in kinds {
        found.extend(of(&client, *kind, typed).await.unwrap_or_default());
    }
    found
}

async fn of(client: &Client, kind: Kind, typed: &str) -> Result<Vec<String>, berth_client::Error> {
    let states: &[&str] = match kind {
        Kind::Containers => &[],
        Kind::Running => &["running", "paused", "restarting"],
        Kind::Stopped => &["created", "exited", "dead"],
        Kind::Paused => &["paused"],
        Kind::Images => return images(client, typed).await,
        Kind::Networks => {
            let networks: Vec<Value> = client.get("/networks").await?;
            return Ok(networks.iter().filter_map(|network| text(&network["Name"])).collect());
        }
        Kind::Volumes => {
            let volumes: ListResponse = client.get("/volumes").await?;
            return Ok(volumes.volumes.iter().map(|volume| clean(&volume.name)).collect());
        }
        Kind::Runtimes => {
            let info: Value = client.get("/info").await?;
            let runtimes = info["Runtimes"].as_object();
            return Ok(runtimes.into_iter().flat_map(serde_json::Map::keys).cloned().collect());
        }
        Kind::Contexts => return Ok(Vec::new()),
    };
    let mut filters = Filters::default();
    states.iter().for_each(|state| filters.add("status", *state));
    let path = Query::new().flag("all", true).filters(&filters).on("/containers/json");
    let found: Vec<container::Summary> = client.get(&path).await?;
    Ok(found.iter().flat_map(|container| names_of(container, typed)).collect())
}

/// A container's name, and its ID if that is what is being typed.
fn names_of(container: &Summary, typed: &str) -> Vec<String> {
    let about = clean(&format!("{}, {}", container.image, container.status));
    let name = container.names.first().map(|name| name.trim_start_matches('/'));
    let mut names: Vec<String> = name.map(|name| format!("{name}\t{about}")).into_iter().collect();
    names.extend(id(&container.id, typed).map(|id| format!("{id}\t{about}")));
    names
}

/// An ID, short unless more of it is typed; none while nothing of it is.
fn id(id: &str, typed: &str) -> Option<String> {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    if typed.is_empty() || !hex.starts_with(typed) {
        return None;
    }
    Some(if typed.len() > 12 { hex } else { short_id(hex) }.to_owned())
}

async fn images(client: &Client, typed: &str) -> Result<Vec<String>, berth_client::Error> {
    let found: Vec<image::Summary> = client.get("/images/json").await?;
    let mut names = Vec::new();
    for image in &found {
        for tag in image.repo_tags.iter().filter(|tag| !tag.contains("<none>")) {
            names.push(tag.clone());
            // Whoever means the newest does not say so.
            names.extend(tag.strip_suffix(":latest").map(str::to_owned));
        }
        names.extend(id(&image.id, typed));
    }
    Ok(names)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(clean)
}

/// A text without what would end a line, or a candidate, early.
fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_offered_to_those_who_type_them() {
        let container = Summary {
            id: "0123456789abcdef".into(),
            names: vec!["/web".into()],
            image: "busy\nbox".into(),
            status: "Up".into(),
            ..Summary::default()
        };
        assert_eq!(names_of(&container, ""), ["web\tbusy box, Up"]);
        assert_eq!(names_of(&container, "01"), ["web\tbusy box, Up", "0123456789ab\tbusy box, Up"]);
        assert_eq!(names_of(&container, "0123456789abc")[1], "0123456789abcdef\tbusy box, Up");
        assert_eq!(names_of(&container, "1").len(), 1);
    }
}
