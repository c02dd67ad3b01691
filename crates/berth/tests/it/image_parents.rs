//! Images that were made from others: what lists show of them, their history, and what removals leave.

use serde_json::Value;

use crate::daemon::{Client, Daemon};
use crate::prune::api;

/// Makes an image of `from` with one more file; gives its ID.
fn commit(daemon: &Daemon, from: &str, file: &str, name: &str) -> String {
    let script = format!("head -c 1000 /dev/zero > /{file}");
    let container = daemon.background(&[from, "sh", "-c", &script]);
    daemon.wait(&container);
    let id = daemon.berth(&["commit", "-m", &format!("of {file}"), &container, name]);
    daemon.berth(&["rm", &container]).ok();
    let id = id.ok();
    assert!(id.starts_with("sha256:"), "{id}");
    id
}

/// busybox, then an image without a name, then one that is named `top`.
fn chain(daemon: &Daemon) -> [String; 3] {
    let base = daemon.inspect("busybox", "{{.Id}}");
    let middle = commit(daemon, "busybox", "one", "passing");
    let top = commit(daemon, "passing", "two", "top");
    daemon.berth(&["rmi", "passing"]).ok();
    [base, middle, top]
}

fn short(id: &str) -> &str {
    &id[7..19]
}

fn all(daemon: &Daemon, client: Client, arguments: &[&str]) -> Vec<String> {
    let text = daemon.with(client, &[&["images", "-q", "--no-trunc"], arguments].concat()).ok();
    let mut ids: Vec<String> = text.lines().map(str::to_owned).collect();
    ids.sort();
    ids
}

fn sorted(ids: &[&String]) -> Vec<String> {
    let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
    ids.sort();
    ids
}

with_both_clients! {
    fn intermediate_images_show_when_asked_for(daemon: &Daemon, client: Client) {
        let [base, middle, top] = chain(daemon);
        assert_eq!(all(daemon, client, &[]), sorted(&[&base, &top]));
        assert_eq!(all(daemon, client, &["-a"]), sorted(&[&base, &middle, &top]));
        assert_eq!(all(daemon, client, &["-a", "-f", "dangling=true"]), Vec::<String>::new());
        assert_eq!(all(daemon, client, &["-a", "-f", "dangling=false"]), sorted(&[&base, &top]));
        let own = commit(daemon, "busybox", "three", "other:v1");
        daemon.berth(&["tag", "busybox", "other:v1"]).ok();
        assert_eq!(all(daemon, client, &["-f", "dangling=true"]), sorted(&[&own]), "a child of none is dangling");
        let parent = daemon.with(client, &["inspect", "-f", "{{.Parent}}", &top]).ok();
        assert_eq!(parent, middle);
        assert_eq!(daemon.with(client, &["inspect", "-f", "{{.Comment}}", &top]).ok(), "of two");
        let tagged = daemon.with(client, &["inspect", "-f", "{{.Metadata.LastTagTime}}", "top"]).ok();
        assert!(tagged.starts_with("20"), "{tagged}");
    }

    fn containers_are_found_by_what_their_image_was_made_from(daemon: &Daemon, client: Client) {
        let [_, middle, top] = chain(daemon);
        let built = daemon.root.path().join("built");
        std::fs::create_dir(&built).unwrap();
        std::fs::write(built.join("Dockerfile"), "FROM top\nRUN touch /x\nLABEL a=b\n").unwrap();
        daemon.berth(&["build", "-q", "-t", "built", built.to_str().unwrap()]).ok();
        for image in ["busybox", &middle, "top", "built"] {
            let name = image.split(':').next_back().unwrap();
            daemon.berth(&["create", "--name", name, image]).ok();
        }
        let of = |ancestors: &[&str]| {
            let filters: Vec<String> = ancestors.iter().map(|name| format!("-fancestor={name}")).collect();
            let mut arguments = vec!["ps", "-a", "--format", "{{.Names}}"];
            arguments.extend(filters.iter().map(String::as_str));
            let text = daemon.with(client, &arguments).ok();
            let mut names: Vec<String> = text.lines().map(|line| line.chars().take(8).collect()).collect();
            names.sort();
            names
        };
        let middle_name = middle[7..15].to_owned();
        let whole = ["busybox".to_owned(), "top".into(), "built".into(), middle_name.clone()];
        let expected = |names: &[&str]| {
            let mut names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(of(&["busybox"]), expected(&whole.each_ref().map(String::as_str)));
        assert_eq!(of(&[&middle]), expected(&["top", "built", &middle_name]));
        assert_eq!(of(&[&top]), expected(&["top", "built"]));
        assert_eq!(of(&["built"]), ["built"]);
        assert_eq!(of(&["built", "nosuch"]), ["built"]);
        assert_eq!(of(&["nosuch"]), Vec::<String>::new());
    }

    fn history_names_the_images_of_its_steps(daemon: &Daemon, client: Client) {
        let [base, middle, top] = chain(daemon);
        let empty = daemon.background(&["top", "true"]);
        daemon.wait(&empty);
        let last = daemon.berth(&["commit", "-c", "LABEL a=b", &empty, "last"]).ok();
        let history = |arguments: &[&str]| daemon.with(client, &[&["history"], arguments, &["last"]].concat()).ok();
        let full = history(&["--no-trunc", "-q"]);
        let ids: Vec<&str> = full.lines().collect();
        assert_eq!(&ids[..3], [&last, &top, &middle]);
        // The image that came here has one step that is an image, and others that are not.
        assert!(ids[3] == base && ids[4..].iter().all(|id| *id == "<missing>"), "{full}");
        let brief = history(&["-q"]);
        assert_eq!(brief.lines().next().unwrap(), short(&last));
        let rows = history(&["--human=false", "--format", "{{.ID}} {{.Size}} {{.Comment}}"]);
        let rows: Vec<&str> = rows.lines().collect();
        assert_eq!(rows[0].trim_end(), format!("{} 0", short(&last)), "nothing was written");
        assert_eq!(rows[1], format!("{} 1000 of two", short(&top)));
        assert_eq!(rows[2], format!("{} 1000 of one", short(&middle)));
        let human = history(&["--format", "{{.Size}} {{.CreatedSince}}"]);
        let second = human.lines().nth(1).unwrap();
        assert!(second.starts_with("1kB ") && second.ends_with(" ago"), "{second}");
        let table = history(&[]);
        assert!(table.starts_with("IMAGE ") && table.lines().next().unwrap().contains("CREATED BY"), "{table}");
        let json = history(&["--format", "json"]);
        let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!(first["ID"], short(&last));
        assert_eq!(first["Size"], "0B");
    }

    fn archives_keep_parents_that_they_hold(daemon: &Daemon, client: Client) {
        let [base, middle, top] = chain(daemon);
        let folder = daemon.root.path();
        let (one, both) = (folder.join("one.tar"), folder.join("both.tar"));
        daemon.with(client, &["save", "-o", one.to_str().unwrap(), "top"]).ok();
        daemon.with(client, &["save", "-o", both.to_str().unwrap(), "top", &middle, "busybox"]).ok();
        let parent = |id: &str| daemon.inspect(id, "{{if .Parent}}{{.Parent}}{{end}}");
        for (archive, expected) in [(&one, ""), (&both, middle.as_str())] {
            daemon.berth(&["rmi", "top"]).ok();
            daemon.with(client, &["load", "-i", archive.to_str().unwrap()]).ok();
            assert_eq!(parent(&top), expected, "{archive:?}");
        }
        assert_eq!((parent(&middle), parent(&base)), (base, String::new()));
        // Names that an image has already are no new ones.
        let named = || daemon.inspect("top", "{{.Metadata.LastTagTime}}");
        let before = named();
        daemon.with(client, &["load", "-i", both.to_str().unwrap()]).ok();
        assert_eq!(named(), before);
    }

    fn parents_go_with_their_last_child(daemon: &Daemon, client: Client) {
        let [base, middle, top] = chain(daemon);
        let rmi = |arguments: &[&str]| daemon.with(client, &[&["rmi"], arguments].concat());
        let child = format!("conflict: unable to delete {} (cannot be forced) - image has dependent child images", short(&middle));
        rmi(&[&middle]).fails(1, &child);
        rmi(&["-f", &middle]).fails(1, &child);
        let text = rmi(&["top"]).ok();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["Untagged: top:latest".to_owned(), format!("Deleted: {top}")], "{text}");
        assert!(lines[2].starts_with("Deleted: sha256:"), "its layer: {text}");
        assert_eq!(lines[3], format!("Deleted: {middle}"), "{text}");
        assert!(lines[4].starts_with("Deleted: sha256:") && lines.len() == 5, "{text}");
        assert_eq!(all(daemon, client, &["-a"]), sorted(&[&base]), "what has a name stays");
    }

    fn parents_stay_if_asked_to_or_in_use(daemon: &Daemon, client: Client) {
        let [base, middle, top] = chain(daemon);
        daemon.with(client, &["rmi", "--no-prune", "top"]).ok();
        assert_eq!(all(daemon, client, &["-a"]), sorted(&[&base, &middle]));
        assert_eq!(all(daemon, client, &["-f", "dangling=true"]), sorted(&[&middle]), "without a child it dangles");
        let again = commit(daemon, &middle, "two", "again");
        assert_ne!(again, top);
        let container = daemon.berth(&["create", &middle]).ok();
        let text = daemon.with(client, &["rmi", "again"]).ok();
        assert!(text.contains(&format!("Deleted: {again}")) && !text.contains(&middle), "{text}");
        let stopped = format!(
            "conflict: unable to delete {} (must be forced) - image is being used by stopped container {}",
            short(&middle), &container[..12],
        );
        daemon.with(client, &["rmi", &middle]).fails(1, &stopped);
        daemon.berth(&["rm", &container]).ok();
        daemon.with(client, &["rmi", &middle]).ok();
        assert_eq!(all(daemon, client, &["-a"]), sorted(&[&base]));
    }

    fn a_name_goes_and_the_image_stays_for_its_child(daemon: &Daemon, client: Client) {
        let [base, middle, top] = chain(daemon);
        assert_eq!(daemon.with(client, &["rmi", "busybox"]).ok(), "Untagged: busybox:latest");
        assert_eq!(all(daemon, client, &[]), sorted(&[&top]), "it is intermediate now");
        assert_eq!(all(daemon, client, &["-a"]), sorted(&[&base, &middle, &top]));
        // What prune removes takes its parents along, and leaves those of others.
        assert_eq!(daemon.with(client, &["image", "prune", "-f"]).ok(), "Total reclaimed space: 0B");
        daemon.berth(&["tag", &middle, "kept"]).ok();
        daemon.berth(&["rmi", "--no-prune", "top"]).ok();
        assert_eq!(all(daemon, client, &["-a"]), sorted(&[&base, &middle]));
        let before: Value = serde_json::from_str(&api(daemon, "GET", "/v1.50/system/df").1).unwrap();
        let text = daemon.with(client, &["image", "prune", "-af"]).ok();
        assert!(text.contains("untagged: kept:latest") && text.contains(&format!("deleted: {base}")), "{text}");
        assert_eq!(all(daemon, client, &["-a"]), Vec::<String>::new());
        let events = ["events", "--since", "1h", "--until", "0s", "-f", "event=prune", "-f", "type=image", "--format", "{{.Actor.Attributes.reclaimed}}"];
        let freed = daemon.berth(&events).ok();
        assert_eq!(freed.lines().last().unwrap(), before["LayersSize"].to_string());
    }

    fn several_names_are_forced_by_id(daemon: &Daemon, client: Client) {
        let id = commit(daemon, "busybox", "one", "first:v1");
        daemon.berth(&["tag", "first:v1", "host:5000/second:v2"]).ok();
        let several = format!("conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories", short(&id));
        daemon.with(client, &["rmi", &id]).fails(1, &several);
        let text = daemon.with(client, &["rmi", "-f", &id]).ok();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["Untagged: first:v1", "Untagged: host:5000/second:v2", &format!("Deleted: {id}")], "{text}");
        daemon.with(client, &["rmi", " "]).fails(1, "image name cannot be blank");
    }
}

#[test]
fn old_clients_and_new_ones_see_their_fields() {
    let daemon = Daemon::start();
    let [_, middle, top] = chain(&daemon);
    let get = |path: &str| -> Value { serde_json::from_str(&api(&daemon, "GET", path).1).unwrap() };
    let list = get("/v1.55/images/json?all=1&shared-size=1");
    let found = list.as_array().unwrap().iter().find(|image| image["Id"] == top.as_str()).unwrap();
    assert_eq!(found["ParentId"], middle.as_str());
    assert_eq!(found["SharedSize"].as_i64().unwrap() + 1000, found["Size"].as_i64().unwrap());
    assert_eq!(get("/v1.41/images/json?shared-size=1")[0]["SharedSize"], -1);
    assert_eq!(get("/v1.50/images/json")[0]["Containers"], -1);
    assert_eq!(get("/v1.51/images/json")[0]["Containers"], 0);
    let nameless = get("/v1.42/images/json?all=1");
    assert!(nameless.as_array().unwrap().iter().any(|image| image["RepoTags"][0] == "<none>:<none>"));
    let new = get("/v1.55/images/busybox/json");
    assert!(new.get("Parent").is_none() && new.get("Author").is_none(), "{new}");
    let old = get("/v1.51/images/busybox/json");
    assert_eq!(
        (&old["Parent"], &old["Author"], &old["Config"]["User"]),
        (&"".into(), &"".into(), &"".into())
    );
    assert_eq!(get("/v1.55/images/top/json")["Parent"], middle.as_str());
    assert_eq!(get("/v1.40/images/busybox/json")["Config"]["AttachStdin"], false);
}
