//! The containers, as `ps` shows them.

pub(crate) mod filter;
pub(crate) mod pattern;

use std::collections::HashMap;
use std::sync::Arc;

use berth_api::container::{Summary, SummaryHealth, SummaryHost, SummaryNetworks};
use jiff::Timestamp;

use crate::blocking::blocking;
use crate::container::{Container, Kept};
use crate::engine::Parts;
use crate::{Engine, Error, inspect, networks, op};
use filter::Filter;

impl Engine {
    /// Containers, the newest first.
    pub async fn list(&self, op: op::List) -> Result<Vec<Summary>, Error> {
        let parts = Arc::clone(&self.parts);
        // Names of images are looked up in the database, and sizes need walks.
        blocking(move || list(&parts, &op)).await
    }
}

fn list(parts: &Parts, op: &op::List) -> Result<Vec<Summary>, Error> {
    let filter = Filter::new(parts, &op.filters)?;
    let all = op.all || op.limit.is_some() || filter.names_states();
    let mut containers = parts.containers.all();
    containers.sort_by(|a, b| {
        let key = |c: &Arc<Container>| (c.definition.created, c.id().to_owned());
        key(b).cmp(&key(a))
    });
    let now = Timestamp::now();
    let mut names = ImageNames::default();
    let mut found = Vec::new();
    for container in containers {
        if op.limit.is_some_and(|limit| found.len() >= limit) {
            break;
        }
        // One look at a container: what is filtered is what is shown.
        let kept = container.kept();
        if (all || kept.state.to_api().running) && filter.passes(&container, &kept) {
            found.push(summary(parts, &container, &kept, &mut names, op.size, now)?);
        }
    }
    Ok(found)
}

fn summary(
    parts: &Parts,
    container: &Container,
    kept: &Kept,
    names: &mut ImageNames,
    size: bool,
    now: Timestamp,
) -> Result<Summary, Error> {
    let definition = &container.definition;
    let running = kept.state.running();
    let (size_rw, size_root_fs) = if size { inspect::sizes(parts, definition)? } else { (None, None) };
    Ok(Summary {
        id: definition.id.clone(),
        names: std::iter::once(&kept.name)
            .chain(&parts.containers.link_names(&definition.id))
            .map(|name| format!("/{name}"))
            .collect(),
        image: names.shown(parts, &definition.config.image, &definition.image),
        image_id: definition.image.clone(),
        image_manifest_descriptor: definition.image_manifest.clone(),
        command: command(&definition.path, &definition.args),
        created: definition.created.as_second(),
        ports: match running {
            Some(_) if definition.network.has_endpoints() => {
                networks::port_summaries(definition, kept.state.endpoints())
            }
            _ => Vec::new(),
        },
        size_rw,
        size_root_fs,
        labels: definition.config.labels.clone().unwrap_or_default(),
        state: kept.state.status(),
        status: kept.state.describe(now, kept.health.as_deref().map(|health| health.status)),
        host_config: SummaryHost {
            network_mode: definition.host.network_mode.clone(),
            annotations: definition.host.annotations.clone(),
        },
        network_settings: SummaryNetworks { networks: networks::endpoints(definition, kept) },
        mounts: inspect::mount_points(parts, definition),
        health: Some(SummaryHealth {
            status: kept.health.as_deref().map_or("none", |health| health.status.as_str()).into(),
            failing_streak: kept.health.as_deref().map_or(0, |health| health.failing_streak.into()),
        }),
    })
}

/// Program and arguments as Docker joins them.
fn command(path: &str, args: &[String]) -> String {
    let mut line = path.to_owned();
    for arg in args {
        line.push(' ');
        if arg.contains(' ') {
            line.push('\'');
            line.push_str(arg);
            line.push('\'');
        } else {
            line.push_str(arg);
        }
    }
    line
}

/// Which image a name means now, remembered for one list.
#[derive(Default)]
struct ImageNames(HashMap<String, Option<String>>);

impl ImageNames {
    /// The name that the user gave, or the ID once the name means another image.
    fn shown(&mut self, parts: &Parts, name: &str, id: &str) -> String {
        let current = self
            .0
            .entry(name.to_owned())
            .or_insert_with(|| parts.images.id(name).ok().map(|id| id.to_string()));
        if current.as_deref() == Some(id) { name.to_owned() } else { id.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_joined_as_docker_joins_them() {
        for (path, args, line) in [
            ("sh", &[][..], "sh"),
            ("sh", &["-c", "echo a b"], "sh -c 'echo a b'"),
            ("/bin/x", &["", "y"], "/bin/x  y"),
        ] {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            assert_eq!(command(path, &args), line);
        }
    }
}
