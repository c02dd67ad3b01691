//! `volume create`.

use berth_api::StringMap;
use berth_api::volume::{CreateRequest, Volume};
use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, many, one};
use crate::values::size;

/// Flags that are for volumes of a swarm alone.
const CLUSTER: [&str; 7] =
    ["group", "scope", "sharing", "availability", "type", "limit-bytes", "required-bytes"];

/// The command.
pub fn command() -> Command {
    Command::new("create").about("Makes a volume").defer(|command| {
        command
            .arg(one("driver", "DRIVER").short('d').default_value("local").help("What keeps it"))
            .arg(many("label", "NAME=VALUE").help("A label"))
            .arg(
                many("opt", "NAME=VALUE")
                    .short('o')
                    .help("An option of the driver; of local: type, device, o, size"),
            )
            .args(cluster())
            .arg(one("name", "VOLUME").hide(true))
            .arg(Arg::new("volume").help("Its name (a random one)"))
    })
}

fn cluster() -> Vec<Arg> {
    let bytes = |name: &'static str| one(name, "BYTES").value_parser(size::bytes);
    let all = [
        one("availability", "STATE").default_value("active"),
        one("group", "GROUP"),
        bytes("limit-bytes"),
        bytes("required-bytes"),
        one("scope", "SCOPE").default_value("single"),
        many("secret", "NAME=VALUE"),
        one("sharing", "KIND").default_value("none"),
        many("topology-preferred", "TOPOLOGY"),
        many("topology-required", "TOPOLOGY"),
        one("type", "KIND").default_value("block"),
    ];
    all.into_iter().map(|arg| arg.hide(true).help("Of volumes of a swarm")).collect()
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let request = request(matches)?;
    let made: Volume = context.client().await?.post("/volumes/create", &request).await?;
    outln!("{}", made.name);
    Ok(())
}

fn request(matches: &ArgMatches) -> Outcome<CreateRequest> {
    let (flag, operand) = (flags::or_empty(matches, "name"), flags::or_empty(matches, "volume"));
    if !flag.is_empty() && !operand.is_empty() {
        let why =
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg";
        return Err(Failure::new(why));
    }
    let is_of_cluster = CLUSTER.iter().any(|name| flags::given(matches, name));
    let options = pairs(&flags::list(matches, "opt"));
    Ok(CreateRequest {
        name: if operand.is_empty() { flag } else { operand },
        driver: flags::or_empty(matches, "driver"),
        driver_opts: Some(options).filter(|options| !options.is_empty()),
        labels: Some(labels(&flags::list(matches, "label"))?).filter(|labels| !labels.is_empty()),
        // The daemon tells that there is no swarm.
        cluster_volume_spec: is_of_cluster.then(|| json!({ "Group": flags::or_empty(matches, "group") })),
    })
}

/// As Docker reads maps: what has no value is empty.
fn pairs(given: &[String]) -> StringMap {
    let split = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    given.iter().map(split).collect()
}

fn labels(given: &[String]) -> Outcome<StringMap> {
    if let Some(bad) = given.iter().find(|text| text.is_empty() || text.starts_with('=')) {
        return Err(Failure::new(format!("invalid label '{bad}': empty name")));
    }
    Ok(pairs(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<CreateRequest, String> {
        let matches = command().try_get_matches_from(line.split(' ')).unwrap();
        request(&matches).map_err(|failure| failure.message)
    }

    #[test]
    fn requests_say_no_more_than_was_said() {
        let plain = read("create").unwrap();
        assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"Driver":"local"}"#);
        let all = read("create -d x --label a=1 --label b -o type=tmpfs -o o=size=1m,uid=5 vol").unwrap();
        assert_eq!(
            serde_json::to_string(&all).unwrap(),
            r#"{"Name":"vol","Driver":"x","DriverOpts":{"o":"size=1m,uid=5","type":"tmpfs"},"Labels":{"a":"1","b":""}}"#
        );
        assert!(read("create --scope multi").unwrap().cluster_volume_spec.is_some());
        assert_eq!(read("create --name a").unwrap().name, "a");
        assert!(read("create --name a b").unwrap_err().starts_with("conflicting options"));
    }
}
