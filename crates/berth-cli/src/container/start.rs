//! `start`.

use berth_api::container::Inspect;
use berth_client::{Client, Query, segment};
use clap::{ArgMatches, Command};

use super::exit::{self, Wait};
use super::run::keys_of;
use crate::context::Context;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags;
use crate::session::{End, Session, signals, terminal};

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
    if stdin && tty && !terminal::is_input() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let caught = match tty {
        true => None,
        false => Some(signals::catch().map_err(|error| Failure::io("catching signals", &error))?),
    };
    let path = Query::new()
        .flag("stream", true)
        .flag("stdin", stdin)
        .flag("stdout", true)
        .flag("stderr", true)
        .set_some("detachKeys", flags::text(matches, "detach-keys"))
        .on(&format!("/containers/{}/attach", segment(&found.id)));
    let connection = client.hijack(&path, None::<&()>).await?;
    let condition = if found.host_config.auto_remove { "removed" } else { "next-exit" };
    let wait = Wait::begin(client, &found.id, condition).await?;
    client.post_empty(&format!("/containers/{}/start", segment(&found.id))).await?;
    let session = Session { stdin, tty, detach_keys: keys_of(matches)? };
    match carry(client, &found.id, session.run(connection), tty, caught).await? {
        End::Detached => Ok(()),
        End::Closed => exit::with(wait.code(context, &found.id).await?),
    }
}

/// Waits for a session, while signals or sizes are passed on.
pub async fn carry(
    client: &Client,
    id: &str,
    session: impl Future<Output = Outcome<End>>,
    tty: bool,
    caught: Option<tokio::sync::mpsc::Receiver<&'static str>>,
) -> Outcome<End> {
    let resize = format!("/containers/{}/resize", segment(id));
    let beside = async {
        match caught {
            Some(caught) => signals::pass_on(client, id, caught).await,
            None if tty && terminal::is_output() => signals::resize(client, &resize).await,
            None => {}
        }
        std::future::pending::<()>().await;
    };
    let ending = async { if tty { signals::ending().await } else { std::future::pending().await } };
    tokio::select! {
        end = session => end,
        () = beside => Ok(End::Closed),
        code = ending => Err(Failure::silent(code)),
    }
}
