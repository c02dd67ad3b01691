//! `start`.

use berth_api::container::Inspect;
use berth_client::{Client, Query, segment};
use clap::{ArgMatches, Command};

use super::exit::Wait;
use super::join;
use super::request::Attached;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags;
use crate::session::Session;

/// The command.
pub fn command() -> Command {
    Command::new("start").about("Starts containers").defer(|command| {
        command
            .arg(flags::switch("attach").short('a').help("Attach to its output, and pass signals on"))
            .arg(flags::switch("interactive").short('i').help("Attach to its input too"))
            .arg(flags::one("detach-keys", "KEYS").help("Keys that detach (ctrl-p,ctrl-q)"))
            .arg(flags::one("checkpoint", "NAME").help("Go on from a checkpoint"))
            .arg(flags::one("checkpoint-dir", "DIR").help("Where the checkpoint is"))
            .arg(flags::operands("container"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let names = flags::list(matches, "container");
    let client = context.client().await?;
    if flags::on(matches, "attach") || flags::on(matches, "interactive") {
        let [name] = names.as_slice() else {
            return Err(Failure::new("you cannot start and attach multiple containers at once"));
        };
        return attached(context, &client, matches, name).await;
    }
    if flags::text(matches, "checkpoint").is_some_and(|name| !name.is_empty()) {
        let [name] = names.as_slice() else {
            return Err(Failure::new("you cannot restore multiple containers at once"));
        };
        client.post_empty(&path(matches, name)).await?;
        return Ok(());
    }
    let mut failed = Vec::new();
    for name in &names {
        match client.post_empty(&path(matches, name)).await {
            Ok(_) => outln!("{name}"),
            Err(error) => {
                errln!("{}", Failure::from(error));
                failed.push(name.as_str());
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!("failed to start containers: {}", failed.join(", ")))),
    }
}

fn path(matches: &ArgMatches, name: &str) -> String {
    let given = |flag| flags::text(matches, flag).filter(|value| !value.is_empty());
    Query::new()
        .set_some("checkpoint", given("checkpoint"))
        .set_some("checkpoint-dir", given("checkpoint-dir"))
        .on(&format!("/containers/{}/start", segment(name)))
}

async fn attached(context: &Context, client: &Client, matches: &ArgMatches, name: &str) -> Outcome {
    let found: Inspect = client.get(&format!("/containers/{}/json", segment(name))).await?;
    let tty = found.config.tty;
    let stdin = flags::on(matches, "interactive") && found.config.open_stdin;
    join::require_terminal(stdin, tty)?;
    let caught = join::catch(!tty)?;
    let streams = Attached { stdin, stdout: true, stderr: true };
    let connection = join::attach((context, client), matches, &found.id, streams).await?;
    let condition = if found.host_config.auto_remove { "removed" } else { "next-exit" };
    let wait = Wait::begin(client, &found.id, condition).await?;
    client.post_empty(&path(matches, &found.id)).await?;
    let session = Session { stdin, tty, detach_keys: join::keys_of(context, matches)? };
    join::follow((context, client), &found.id, Some(connection), session, caught, wait).await
}
