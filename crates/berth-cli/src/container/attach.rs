//! `attach`.

use berth_api::container::{Inspect, Status};
use berth_client::segment;
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
    Command::new("attach").about("Joins the terminal to a running container").defer(|command| {
        command
            .arg(flags::one("detach-keys", "KEYS").help("Keys that detach (ctrl-p,ctrl-q)"))
            .arg(flags::switch("no-stdin").help("Do not attach to its input"))
            .arg(flags::switch("sig-proxy").default_value("true").help("Pass signals on to it"))
            .arg(flags::operand("container"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "container").unwrap_or_default();
    let client = context.client().await?;
    let found: Inspect = client.get(&format!("/containers/{}/json", segment(name))).await?;
    let refused = match found.state.status {
        Status::Paused => "cannot attach to a paused container, unpause it first",
        Status::Restarting => "cannot attach to a restarting container, wait until it is running",
        _ if !found.state.running => "cannot attach to a stopped container, start it first",
        _ => "",
    };
    if !refused.is_empty() {
        return Err(Failure::new(refused));
    }
    let tty = found.config.tty;
    let stdin = !flags::on(matches, "no-stdin") && found.config.open_stdin;
    join::require_terminal(stdin, tty)?;
    let caught = join::catch(flags::on(matches, "sig-proxy") && !tty)?;
    let wait = Wait::begin(&client, &found.id, "").await?;
    let streams = Attached { stdin, stdout: true, stderr: true };
    let connection = join::attach((context, &client), matches, &found.id, streams).await?;
    let session = Session { stdin, tty, detach_keys: join::keys_of(context, matches)? };
    join::follow((context, &client), &found.id, Some(connection), session, caught, wait).await
}
