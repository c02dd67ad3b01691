//! `attach`.

use berth_api::container::{Inspect, Status};
use berth_client::{Query, segment};
use clap::{ArgMatches, Command};

use super::exit::{self, Wait};
use super::run::keys_of;
use super::start::carry;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags;
use crate::session::{End, Session, signals, terminal};

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
        Status::Paused => "you cannot attach to a paused container, unpause it first",
        Status::Restarting => "you cannot attach to a restarting container, wait until it is running",
        _ if !found.state.running => "cannot attach to a stopped container, start it first",
        _ => "",
    };
    if !refused.is_empty() {
        return Err(Failure::new(refused));
    }
    let tty = found.config.tty;
    let stdin = !flags::on(matches, "no-stdin") && found.config.open_stdin;
    if stdin && tty && !terminal::is_input() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let caught = match flags::on(matches, "sig-proxy") && !tty {
        false => None,
        true => Some(signals::catch().map_err(|error| Failure::io("catching signals", &error))?),
    };
    let wait = Wait::begin(&client, &found.id, "").await?;
    let path = Query::new()
        .flag("stream", true)
        .flag("stdin", stdin)
        .flag("stdout", true)
        .flag("stderr", true)
        .set_some("detachKeys", flags::text(matches, "detach-keys"))
        .on(&format!("/containers/{}/attach", segment(&found.id)));
    let connection = client.hijack(&path, None::<&()>).await?;
    let session = Session { stdin, tty, detach_keys: keys_of(matches)? };
    match carry(&client, &found.id, session.run(connection), tty, caught).await? {
        End::Detached => Ok(()),
        End::Closed => exit::with(wait.code(context, &found.id).await?),
    }
}
