//! `exec`.

use berth_api::exec::{CreateRequest, CreateResponse, Inspect, StartRequest};
use berth_client::segment;
use clap::{ArgMatches, Command};

use super::{environment, exit, join};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, many, on, one, switch};
use crate::session::{End, Session, terminal};

/// The command.
pub fn command() -> Command {
    Command::new("exec").about("Runs a command in a running container").defer(|command| {
        command
            .arg(switch("detach").short('d').help("Do not wait for it"))
            .arg(one("detach-keys", "KEYS").help("Keys that detach (ctrl-p,ctrl-q)"))
            .arg(many("env", "NAME[=VALUE]").short('e').help("Set a variable"))
            .arg(many("env-file", "FILE").help("Read variables from a file"))
            .arg(switch("interactive").short('i').help("Keep stdin open"))
            .arg(switch("privileged").help("Give it all that root of the host has"))
            .arg(switch("tty").short('t').help("Give it a terminal"))
            .arg(one("user", "USER[:GROUP]").short('u').help("User and group, by names or numbers"))
            .arg(one("workdir", "DIR").short('w').help("Working directory"))
            .arg(flags::operand("container"))
            .arg(flags::command(true))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "container").unwrap_or_default();
    let (detach, tty) = (on(matches, "detach"), on(matches, "tty"));
    let stdin = on(matches, "interactive") && !detach;
    join::require_terminal(stdin, tty)?;
    let console_size =
        if tty { terminal::size().map(|(rows, columns)| [rows.into(), columns.into()]) } else { None };
    let keys = join::keys_of(context, matches)?;
    let request = CreateRequest {
        user: flags::or_empty(matches, "user"),
        privileged: on(matches, "privileged"),
        tty,
        console_size,
        attach_stdin: stdin,
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach_keys: join::chosen_keys(context, matches).unwrap_or_default().to_owned(),
        env: Some(environment::variables(&flags::list(matches, "env-file"), &flags::list(matches, "env"))?),
        working_dir: flags::or_empty(matches, "workdir"),
        cmd: flags::some(matches, "command"),
    };
    let client = context.client().await?;
    let made: CreateResponse = client.post(&format!("/containers/{}/exec", segment(name)), &request).await?;
    let start = StartRequest { detach, tty, console_size };
    let path = format!("/exec/{}/start", made.id);
    if detach {
        client.post_json(&path, &start).await?;
        return Ok(());
    }
    let connection = client.hijack(&path, Some(&start)).await.map_err(|error| {
        let text = error.to_string();
        Failure::with_code(if error.status().is_some() { exit::code_of(&text) } else { 1 }, text)
    })?;
    let session = Session { stdin, tty, detach_keys: keys };
    let object = format!("/exec/{}", made.id);
    match join::carry(&client, &object, Some(connection), session, None).await? {
        End::Detached => Ok(()),
        End::Closed => {
            let found: Inspect = client.get(&format!("{object}/json")).await?;
            exit::with(exit::clip(found.exit_code.unwrap_or_default()))
        }
    }
}
