//! `network create`.

use berth_api::StringMap;
use berth_api::network::{ConfigReference, Ipam, NetworkCreate, NetworkCreated};
use clap::{ArgMatches, Command};

use super::subnets;
use crate::container::environment;
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, given, list, many, on, one, or_empty, switch};

/// The command.
pub fn command() -> Command {
    Command::new("create").about("Makes a network").defer(|command| {
        command
            .args([
                one("driver", "NAME")
                    .short('d')
                    .default_value("bridge")
                    .help("Driver: bridge, macvlan or ipvlan"),
                many("opt", "NAME=VALUE").short('o').help("Option of the driver"),
                many("label", "NAME[=VALUE]").help("Label"),
                switch("internal").help("Without a way out"),
                switch("ipv4").default_value("true").help("Give containers IPv4 addresses"),
                switch("ipv6").help("Give containers IPv6 addresses"),
                many("subnet", "SUBNET").value_delimiter(',').help("Subnet, such as 10.5.0.0/16"),
                many("ip-range", "SUBNET")
                    .value_delimiter(',')
                    .help("Part of a subnet that addresses are taken from"),
                many("gateway", "ADDRESS").value_delimiter(',').help("Gateway of a subnet"),
                many("aux-address", "NAME=ADDRESS").help("Address of a subnet that is someone else's"),
                one("ipam-driver", "NAME").default_value("default").help("Driver that gives out addresses"),
                many("ipam-opt", "NAME=VALUE").help("Option of that driver"),
            ])
            .args([
                switch("attachable").help("Let containers join it by hand (of no effect without a cluster)"),
                switch("ingress").help("Make it a cluster's routing mesh (refused without a cluster)"),
                one("scope", "SCOPE").help("Scope: local"),
                switch("config-only").help("Make nothing but a configuration for other networks"),
                one("config-from", "NETWORK").help("Network whose configuration it has"),
            ])
            .arg(flags::operand("network").value_name("NETWORK"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let made: NetworkCreated = context.client().await?.post("/networks/create", &request(matches)?).await?;
    if !made.warning.is_empty() {
        errln!("WARNING: {}", made.warning);
    }
    outln!("{}", made.id);
    Ok(())
}

fn request(matches: &ArgMatches) -> Outcome<NetworkCreate> {
    let pairs = |name: &str| -> StringMap { environment::pairs(&list(matches, name)) };
    let subnets = subnets::gather(
        &list(matches, "subnet"),
        &list(matches, "ip-range"),
        &list(matches, "gateway"),
        &list(matches, "aux-address"),
    )?;
    let from = Some(or_empty(matches, "config-from")).filter(|name| !name.is_empty());
    Ok(NetworkCreate {
        name: or_empty(matches, "network"),
        driver: or_empty(matches, "driver"),
        scope: or_empty(matches, "scope"),
        enable_ipv4: given(matches, "ipv4").then(|| on(matches, "ipv4")),
        enable_ipv6: given(matches, "ipv6").then(|| on(matches, "ipv6")),
        ipam: Some(Ipam {
            driver: or_empty(matches, "ipam-driver"),
            options: Some(pairs("ipam-opt")),
            config: Some(subnets),
        }),
        internal: on(matches, "internal"),
        attachable: on(matches, "attachable"),
        ingress: on(matches, "ingress"),
        config_only: on(matches, "config-only"),
        config_from: from.map(|network| ConfigReference { network }),
        options: Some(pairs("opt")),
        labels: Some(pairs("label")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> NetworkCreate {
        let matches = command().try_get_matches_from(line.split(' ')).unwrap();
        request(&matches).unwrap()
    }

    #[test]
    fn flags_become_a_request() {
        let plain = of("create mine");
        assert_eq!((plain.name.as_str(), plain.driver.as_str()), ("mine", "bridge"));
        assert_eq!((plain.enable_ipv4, plain.enable_ipv6), (None, None));
        let full = of(
            "create --ipv6 --ipv4=false --internal --subnet fd00::/64 --subnet 10.1.0.0/16 --gateway 10.1.0.7 \
                       -o a=b --opt c --label x=y --config-from base n",
        );
        assert_eq!((full.enable_ipv4, full.enable_ipv6, full.internal), (Some(false), Some(true), true));
        let config = full.ipam.unwrap().config.unwrap();
        assert_eq!((config[0].gateway.as_str(), config[1].gateway.as_str()), ("", "10.1.0.7"));
        assert_eq!(full.options.unwrap(), [("a".into(), "b".into()), ("c".into(), String::new())].into());
        assert_eq!(full.labels.unwrap()["x"], "y");
        assert_eq!(full.config_from.unwrap().network, "base");
    }
}
