//! `port`.

use berth_api::container::Inspect;
use berth_api::network::PortMap;
use berth_client::segment;
use clap::{Arg, ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags;
use crate::format::natural;

/// The command.
pub fn command() -> Command {
    Command::new("port")
        .about("Lists the published ports of a container, or where one of them is published")
        .arg(flags::operand("container"))
        .arg(Arg::new("port").value_name("PRIVATE_PORT[/PROTO]"))
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "container").unwrap_or_default();
    let found: Inspect = context.client().await?.get(&format!("/containers/{}/json", segment(name))).await?;
    let ports = found.network_settings.ports;
    let lines = match flags::text(matches, "port").filter(|port| !port.is_empty()) {
        None => all(&ports),
        Some(port) => {
            let lines = of(&ports, &full(port)?);
            if lines.is_empty() {
                return Err(Failure::new(format!("no public port '{port}' published for {name}")));
            }
            lines
        }
    };
    for line in lines {
        outln!("{line}");
    }
    Ok(())
}

/// The port with its protocol.
fn full(text: &str) -> Outcome<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if number.parse::<u16>().is_err() || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Failure::new(format!("invalid port '{text}': invalid syntax")));
    }
    Ok(format!("{number}/{protocol}"))
}

fn of(ports: &PortMap, port: &str) -> Vec<String> {
    let bindings = ports.get(port).into_iter().flatten().flatten();
    let mut lines: Vec<String> = bindings
        .map(|binding| match binding.host_ip.contains(':') {
            true => format!("[{}]:{}", binding.host_ip, binding.host_port),
            false => format!("{}:{}", binding.host_ip, binding.host_port),
        })
        .collect();
    lines.sort_by(|a, b| natural::compare(a, b));
    lines
}

fn all(ports: &PortMap) -> Vec<String> {
    let mut lines: Vec<String> = ports
        .keys()
        .flat_map(|port| of(ports, port).into_iter().map(move |to| format!("{port} -> {to}")))
        .collect();
    lines.sort_by(|a, b| natural::compare(a, b));
    lines
}

#[cfg(test)]
mod tests {
    use berth_api::network::PortBinding;

    use super::*;

    #[test]
    fn ports_are_listed_in_their_order() {
        let to = |ip: &str, port: &str| PortBinding { host_ip: ip.into(), host_port: port.into() };
        let ports = PortMap::from([
            ("80/tcp".into(), Some(vec![to("0.0.0.0", "8080"), to("::", "8080")])),
            ("9/udp".into(), Some(vec![to("127.0.0.1", "1000"), to("127.0.0.1", "999")])),
            ("22/tcp".into(), None),
        ]);
        assert_eq!(
            all(&ports),
            [
                "9/udp -> 127.0.0.1:999",
                "9/udp -> 127.0.0.1:1000",
                "80/tcp -> 0.0.0.0:8080",
                "80/tcp -> [::]:8080"
            ]
        );
        assert_eq!(of(&ports, &full("9/UDP").unwrap()), ["127.0.0.1:999", "127.0.0.1:1000"]);
        assert!(of(&ports, &full("9").unwrap()).is_empty());
        assert!(full("http").is_err() && full("80/icmp").is_err());
    }
}
