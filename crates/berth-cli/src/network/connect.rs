//! `network connect` and `network disconnect`.

use berth_api::StringMap;
use berth_api::network::{EndpointIpamConfig, EndpointSettings, NetworkConnect, NetworkDisconnect};
use berth_client::segment;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, list, many, number, on, one, or_empty, some, switch};
use crate::values;

/// The command.
pub fn command() -> Command {
    Command::new("connect").about("Lets a container join a network").defer(|command| {
        command
            .args([
                many("alias", "NAME").value_delimiter(',').help("Name on the network"),
                many("link", "CONTAINER[:NAME]").help("Another container, by a name that it is to have"),
                one("ip", "ADDRESS").help("IPv4 address"),
                one("ip6", "ADDRESS").help("IPv6 address"),
                many("link-local-ip", "ADDRESS").value_delimiter(',').help("Link-local address"),
                many("driver-opt", "NAME=VALUE").value_delimiter(',').help("Option of the driver"),
                one("gw-priority", "NUMBER")
                    .value_parser(values::integer)
                    .help("The network with the highest has the default route"),
            ])
            .arg(flags::operand("network").value_name("NETWORK"))
            .arg(flags::operand("container").value_name("CONTAINER"))
    })
}

/// The command that undoes it.
pub fn command_of_disconnect() -> Command {
    Command::new("disconnect").about("Lets a container leave a network").defer(|command| {
        command
            .arg(switch("force").short('f').help("Also if the network is gone"))
            .arg(flags::operand("network").value_name("NETWORK"))
            .arg(flags::operand("container").value_name("CONTAINER"))
    })
}

/// Runs `connect`.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let request = NetworkConnect {
        container: or_empty(matches, "container"),
        endpoint_config: Some(settings(matches)?),
    };
    let path = format!("/networks/{}/connect", segment(&or_empty(matches, "network")));
    context.client().await?.post_json(&path, &request).await?;
    Ok(())
}

/// Runs `disconnect`.
pub async fn disconnect(context: &Context, matches: &ArgMatches) -> Outcome {
    let request =
        NetworkDisconnect { container: or_empty(matches, "container"), force: on(matches, "force") };
    let path = format!("/networks/{}/disconnect", segment(&or_empty(matches, "network")));
    context.client().await?.post_json(&path, &request).await?;
    Ok(())
}

fn settings(matches: &ArgMatches) -> Outcome<EndpointSettings> {
    let mut options = StringMap::new();
    for pair in list(matches, "driver-opt") {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::new("invalid key/value pair format in driver options"))?;
        options.insert(name.to_owned(), value.to_owned());
    }
    let ipam = EndpointIpamConfig {
        ipv4_address: or_empty(matches, "ip"),
        ipv6_address: or_empty(matches, "ip6"),
        link_local_ips: some(matches, "link-local-ip"),
    };
    Ok(EndpointSettings {
        ipam_config: Some(ipam).filter(|ipam| *ipam != EndpointIpamConfig::default()),
        links: some(matches, "link"),
        aliases: some(matches, "alias"),
        driver_opts: Some(options).filter(|options| !options.is_empty()),
        gw_priority: number(matches, "gw-priority"),
        ..EndpointSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_settings() {
        let of = |line: &str| settings(&command().try_get_matches_from(line.split(' ')).unwrap());
        assert_eq!(of("connect n c").unwrap(), EndpointSettings::default());
        let full =
            of("connect --alias a,b --ip 10.0.0.7 --ip6 fd00::7 --driver-opt x=y --gw-priority -2 n c");
        let full = full.unwrap();
        assert_eq!(full.aliases.unwrap(), ["a", "b"]);
        assert_eq!(full.ipam_config.unwrap().ipv6_address, "fd00::7");
        assert_eq!((full.driver_opts.unwrap()["x"].as_str(), full.gw_priority), ("y", -2));
        assert!(of("connect --driver-opt x n c").is_err());
    }
}
