//! Docker's event filters.

use berth_api::event::Message;
use berth_api::filter::Filters;
use berth_oci::Reference;

use crate::Error;
use crate::list::filter::{check_known, has_all};

/// Filters whose values name objects of one kind.
const KINDS: [&str; 9] =
    ["config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume"];
const OTHERS: [&str; 5] = ["event", "image", "label", "scope", "type"];

/// Refuses filters that do not exist.
pub fn check(filters: &Filters) -> Result<(), Error> {
    check_known(filters, &[&KINDS[..], &OTHERS].concat())
}

/// Whether a message satisfies all filters.
pub fn passes(filters: &Filters, message: &Message) -> bool {
    let any =
        |name: &str, matches: &dyn Fn(&str) -> bool| !filters.has(name) || filters.get(name).any(matches);
    any("type", &|wanted| message.kind == wanted)
        && any("scope", &|wanted| message.scope == wanted)
        && any("event", &|wanted| is_action(message, wanted))
        && KINDS.iter().all(|kind| any(kind, &|wanted| message.kind == *kind && names(message, wanted)))
        && any("image", &|wanted| is_image(message, wanted))
        && has_all(filters, "label", Some(&message.actor.attributes))
}

/// An action may be followed by what was executed or what the state is: `exec_start: ls`.
fn is_action(message: &Message, wanted: &str) -> bool {
    message.action == wanted || message.action.split(':').next() == Some(wanted)
}

/// Whether a text is the beginning of the actor's ID or name.
fn names(message: &Message, wanted: &str) -> bool {
    let named = message.actor.attributes.get("name").is_some_and(|name| name.starts_with(wanted));
    message.actor.id.starts_with(wanted) || named
}

/// Whether the event is of the image, or of a container of it; names count with and without a tag.
fn is_image(message: &Message, wanted: &str) -> bool {
    let attribute = if message.kind == "image" { "name" } else { "image" };
    let name = message.actor.attributes.get(attribute).map(String::as_str).unwrap_or_default();
    [message.actor.id.as_str(), name].into_iter().any(|text| text == wanted || without_tag(text) == wanted)
}

fn without_tag(image: &str) -> String {
    image.parse::<Reference>().map_or_else(|_| image.to_owned(), |name| name.familiar_repository())
}

#[cfg(test)]
mod tests {
    use berth_api::StringMap;

    use super::*;

    fn message(kind: &str, id: &str, action: &str, attributes: &[(&str, &str)]) -> Message {
        let mut message =
            Message { kind: kind.into(), action: action.into(), scope: "local".into(), ..Message::default() };
        message.actor.id = id.into();
        let pairs = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        message.actor.attributes = pairs.collect::<StringMap>();
        message
    }

    #[test]
    fn filters_select() {
        let attributes = [("name", "web-1"), ("image", "localhost:5000/team/app:v1"), ("tier", "front")];
        let container = message("container", "cafe01", "exec_start: ls -l", &attributes);
        let pulled = message("image", "busybox:latest", "pull", &[("name", "busybox")]);
        let daemon = message("daemon", "D1", "reload", &[("name", "host")]);
        let network = message("network", "beef", "connect", &[("name", "bridge"), ("container", "cafe01")]);
        for (filters, passing) in [
            ("{}", vec![&container, &pulled, &daemon, &network]),
            (r#"{"type":["container","image"]}"#, vec![&container, &pulled]),
            (r#"{"event":["exec_start"]}"#, vec![&container]),
            (r#"{"event":["exec_start: ls -l","pull"]}"#, vec![&container, &pulled]),
            (r#"{"container":["web"]}"#, vec![&container]),
            (r#"{"container":["cafe"]}"#, vec![&container]),
            (r#"{"container":["b"]}"#, vec![]),
            (r#"{"image":["localhost:5000/team/app"]}"#, vec![&container]),
            (r#"{"image":["localhost:5000/team/app:v1"]}"#, vec![&container]),
            (r#"{"image":["busybox"]}"#, vec![&pulled]),
            (r#"{"image":["busybox:latest"]}"#, vec![&pulled]),
            (r#"{"daemon":["host"]}"#, vec![&daemon]),
            (r#"{"daemon":["D1"],"event":["reload"]}"#, vec![&daemon]),
            (r#"{"network":["bridge"],"type":["network"]}"#, vec![&network]),
            (r#"{"label":["tier=front"]}"#, vec![&container]),
            (r#"{"label":["tier=back"]}"#, vec![]),
            (r#"{"label":["tier","name=web-1"]}"#, vec![&container]),
            (r#"{"scope":["swarm"]}"#, vec![]),
            (r#"{"node":["n"]}"#, vec![]),
        ] {
            let filters = Filters::parse(filters).unwrap();
            check(&filters).unwrap();
            let all = [&container, &pulled, &daemon, &network];
            let found: Vec<&Message> = all.into_iter().filter(|message| passes(&filters, message)).collect();
            assert_eq!(found, passing, "{filters:?}");
        }
        assert!(check(&Filters::parse(r#"{"colour":["red"]}"#).unwrap()).is_err());
    }
}
