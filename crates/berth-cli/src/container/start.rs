//! `start`.

use berth_api::container::Inspect;
use berth_client::{Client, segment};
use clap::{ArgMatches, Command};

use super::exit::Wait;
use super::join;
use super::request::Attached;
use crate::context::Context;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags;
use crate::session::Session;

/// The command.
pub fn command() -> Command {
    Command::new("start").about("Starts containers").defer(|command| {
        command
            .arg(flags::switch("attach").short('a').help("Attach to its output, and pass signals on"))
            .arg(flags::switch("interactive").short('i').help("Attach to its input too"))
            .arg(flags::one("detach-keys", "KEYS").help("Keys that detach (ctrl-p,ctrl-q)"))
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
    let mut failures = Failures::default();
    for name in &names {
        match client.post_empty(&format!("/containers/{}/start", segment(name))).await {
            Ok(_) => outln!("{name}"),
            Err(error) => failures.push(error),
        }
    }
    failures.finish()
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
    client.post_empty(&format!("/containers/{}/start", segment(&found.id))).await?;
    let session = Session { stdin, tty, detach_keys: join::keys_of(context, matches)? };
    join::follow((context, client), &found.id, Some(connection), session, caught, wait).await
}
