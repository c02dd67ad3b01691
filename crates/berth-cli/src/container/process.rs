//! Commands that change the state of containers: stop, restart, kill, pause, unpause, wait, rename.

use berth_api::container::WaitResponse;
use berth_client::{Client, Query, segment};
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{self, one};
use crate::values;

/// The commands.
pub fn commands() -> Vec<Command> {
    let of = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).arg(flags::operands("container"))
    };
    let timed = |command: Command| {
        command.arg(one("signal", "SIGNAL").short('s').help("Signal to send first")).arg(
            one("timeout", "SECONDS")
                .short('t')
                .alias("time")
                .value_parser(values::integer)
                .help("Time before it is killed; -1: any"),
        )
    };
    vec![
        timed(of("stop", "Stops containers: first by their stop signal, then by force")),
        timed(of("restart", "Stops containers and starts them again")),
        of("kill", "Sends a signal to containers")
            .arg(one("signal", "SIGNAL").short('s').help("The signal (SIGKILL)")),
        of("pause", "Freezes all processes of containers"),
        of("unpause", "Lets the processes of paused containers go on"),
        of("wait", "Waits until containers end, and prints their exit codes"),
        Command::new("rename")
            .about("Gives a container another name")
            .arg(flags::operand("container"))
            .arg(flags::operand("name").value_name("NEW_NAME")),
    ]
}

/// Runs one of them.
pub async fn run(context: &Context, command: &str, matches: &ArgMatches) -> Outcome {
    let client = context.client().await?;
    if command == "rename" {
        let name = flags::text(matches, "name").unwrap_or_default();
        if name.trim().is_empty() {
            return Err(Failure::new("new name cannot be blank"));
        }
        let old = flags::text(matches, "container").unwrap_or_default();
        let path = Query::new().set("name", name).on(&format!("/containers/{}/rename", segment(old)));
        client.post_empty(&path).await?;
        return Ok(());
    }
    let names = flags::list(matches, "container");
    let query = query(command, matches);
    let work = names.iter().map(|name| one_container(&client, command, name, &query));
    let mut failures = Failures::default();
    // As Docker: all at once, told in the order in which they were given.
    for (name, outcome) in names.iter().zip(futures_util::future::join_all(work).await) {
        match outcome {
            Ok(Some(code)) => outln!("{code}"),
            Ok(None) => outln!("{name}"),
            Err(error) => failures.push(error),
        }
    }
    failures.finish()
}

fn query(command: &str, matches: &ArgMatches) -> Query {
    let signal = |query: Query| query.set_some("signal", flags::text(matches, "signal"));
    match command {
        "kill" => signal(Query::new()),
        "stop" | "restart" => {
            let timeout = matches.get_one::<i64>("timeout").map(ToString::to_string);
            signal(Query::new()).set_some("t", timeout.as_deref())
        }
        _ => Query::new(),
    }
}

async fn one_container(
    client: &Client,
    command: &str,
    name: &str,
    query: &Query,
) -> Result<Option<i64>, berth_client::Error> {
    let path = query.on(&format!("/containers/{}/{command}", segment(name)));
    if command == "wait" {
        let bytes = client.post_for_stream(&path).await?.all().await?;
        let response: WaitResponse = serde_json::from_slice(&bytes)
            .map_err(|source| berth_client::Error::Decode { operation: format!("POST {path}"), source })?;
        return Ok(Some(response.status_code));
    }
    client.post_empty(&path).await?;
    Ok(None)
}
