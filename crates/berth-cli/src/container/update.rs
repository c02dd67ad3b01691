//! `update`.

use berth_api::container::{PortsUpdate, UpdateRequest, UpdateResponse};
use berth_client::{Client, segment};
use clap::{ArgMatches, Command, value_parser};

use super::{ports, request};
use crate::context::Context;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{self, many, number, one, or_empty};
use crate::values::{self, size};

/// The command.
pub fn command() -> Command {
    Command::new("update").about("Gives containers other limits, or other published ports").defer(|command| {
        let number = |name, value| one(name, value).value_parser(values::integer);
        let bytes = |name| one(name, "BYTES").value_parser(size::bytes);
        command
            .arg(
                one("blkio-weight", "WEIGHT")
                    .value_parser(value_parser!(u16))
                    .help("Block I/O weight, 10 to 1000"),
            )
            .arg(number("cpu-period", "MICROSECONDS").help("Period of the CPU quota"))
            .arg(number("cpu-quota", "MICROSECONDS").help("CPU time in each period"))
            .arg(number("cpu-rt-period", "MICROSECONDS").help("Period of the real-time quota"))
            .arg(number("cpu-rt-runtime", "MICROSECONDS").help("Real-time CPU time in each period"))
            .arg(number("cpu-shares", "WEIGHT").short('c').help("CPU weight"))
            .arg(one("cpus", "NUMBER").value_parser(values::cpus).help("Most CPUs to use"))
            .arg(one("cpuset-cpus", "LIST").help("CPUs to run on, such as 0-3,5"))
            .arg(one("cpuset-mems", "LIST").help("Memory nodes to use"))
            .arg(bytes("kernel-memory").hide(true).help("Accepted for compatibility"))
            .arg(bytes("memory").short('m').help("Most memory"))
            .arg(bytes("memory-reservation").help("Memory to keep when it becomes scarce"))
            .arg(
                one("memory-swap", "BYTES")
                    .value_parser(size::bytes_or_unlimited)
                    .help("Most memory and swap together; -1: any"),
            )
            .arg(number("pids-limit", "NUMBER").help("Most processes and threads; -1: any number"))
            .arg(many("publish", "[[ADDRESS:]PORT:]PORT").help("Publish a port on the host"))
            .arg(one("restart", "POLICY").help("Restart policy"))
            .arg(many("unpublish", "[[ADDRESS:]PORT:]PORT").help("No longer publish a port"))
            .arg(flags::operands("container"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let request = changes(matches)?;
    let ports = port_changes(matches)?;
    let client = context.client().await?;
    let mut failures = Failures::default();
    let mut warnings = Vec::new();
    for name in flags::list(matches, "container") {
        match update(&client, &name, &request, ports.as_ref()).await {
            Ok(response) => {
                outln!("{name}");
                warnings.extend(response.warnings.unwrap_or_default());
            }
            Err(failure) => failures.push(failure),
        }
    }
    if !warnings.is_empty() {
        outln!("{}", warnings.join("\n"));
    }
    failures.finish()
}

async fn update(
    client: &Client,
    name: &str,
    request: &UpdateRequest,
    ports: Option<&PortsUpdate>,
) -> Outcome<UpdateResponse> {
    let name = segment(name);
    if let Some(ports) = ports {
        // The path is none of Docker's, whose daemon would pass over what it does not know in a document.
        match client.post_json(&format!("/containers/{name}/ports"), ports).await {
            Err(berth_client::Error::Server { message, .. }) if message == "page not found" => {
                return Err(Failure::new(
                    "this daemon cannot publish ports of a container that exists: that takes a Berth daemon",
                ));
            }
            outcome => drop(outcome?),
        }
    }
    match ports {
        Some(_) if *request == UpdateRequest::default() => Ok(UpdateResponse::default()),
        _ => Ok(client.post(&format!("/containers/{name}/update"), request).await?),
    }
}

fn port_changes(matches: &ArgMatches) -> Outcome<Option<PortsUpdate>> {
    let (publish, unpublish) = (flags::list(matches, "publish"), flags::list(matches, "unpublish"));
    if publish.is_empty() && unpublish.is_empty() {
        return Ok(None);
    }
    let read = |flags: &[String]| ports::read(flags, &[]).map(|ports| ports.bindings);
    Ok(Some(PortsUpdate { publish: Some(read(&publish)?), unpublish: Some(read(&unpublish)?) }))
}

fn changes(matches: &ArgMatches) -> Outcome<UpdateRequest> {
    if !matches.ids().any(|id| id.as_str() != "container" && flags::given(matches, id.as_str())) {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    Ok(UpdateRequest {
        cpu_shares: number(matches, "cpu-shares"),
        memory: number(matches, "memory"),
        nano_cpus: number(matches, "cpus"),
        blkio_weight: matches.get_one::<u16>("blkio-weight").copied().unwrap_or_default(),
        cpu_period: number(matches, "cpu-period"),
        cpu_quota: number(matches, "cpu-quota"),
        cpu_realtime_period: number(matches, "cpu-rt-period"),
        cpu_realtime_runtime: number(matches, "cpu-rt-runtime"),
        cpuset_cpus: or_empty(matches, "cpuset-cpus"),
        cpuset_mems: or_empty(matches, "cpuset-mems"),
        memory_reservation: number(matches, "memory-reservation"),
        memory_swap: number(matches, "memory-swap"),
        pids_limit: matches.get_one::<i64>("pids-limit").copied(),
        restart_policy: request::restart(flags::text(matches, "restart").unwrap_or_default())?,
        ..UpdateRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Outcome<UpdateRequest> {
        changes(&command().try_get_matches_from(line.split(' ')).unwrap())
    }

    #[test]
    fn flags_become_a_request() {
        let line = "update -m 64m --memory-swap -1 --memory-reservation 32m -c 5 --cpus .5 --cpu-period 1 --cpu-quota -1 \
                    --cpuset-cpus 0 --cpuset-mems 1 --pids-limit -1 --blkio-weight 7 --restart on-failure:3 \
                    --cpu-rt-period 8 --cpu-rt-runtime 9 one two";
        let asked = parse(line).unwrap();
        assert_eq!((asked.memory, asked.memory_swap, asked.memory_reservation), (64 << 20, -1, 32 << 20));
        assert_eq!(
            (asked.cpu_shares, asked.nano_cpus, asked.cpu_period, asked.cpu_quota),
            (5, 500_000_000, 1, -1)
        );
        assert_eq!((asked.cpuset_cpus.as_str(), asked.cpuset_mems.as_str()), ("0", "1"));
        assert_eq!((asked.pids_limit, asked.blkio_weight), (Some(-1), 7));
        assert_eq!((asked.cpu_realtime_period, asked.cpu_realtime_runtime), (8, 9));
        let policy = &asked.restart_policy;
        assert_eq!((policy.name.as_str(), policy.maximum_retry_count), ("on-failure", 3));
    }

    #[test]
    fn nothing_to_change_is_an_error() {
        let failure = parse("update one").unwrap_err();
        assert_eq!(failure.message, "you must provide one or more flags when using this command");
    }
}
