//! Joining the user's terminal and signals to a container or an exec instance: what `run`, `start`, `attach` and `exec` share.

use berth_client::{Client, Hijacked, Query, segment};
use clap::ArgMatches;
use tokio::sync::mpsc::Receiver;

use super::exit::{self, Wait};
use super::request::Attached;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags;
use crate::session::{End, Session, signals, terminal};
use crate::values::keys;

/// Signals that wait to be passed on.
pub type Caught = Option<Receiver<&'static str>>;

/// Refuses a terminal whose input would not come from one.
pub fn require_terminal(stdin: bool, tty: bool) -> Outcome {
    if stdin && tty && !terminal::is_input() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    Ok(())
}

/// The keys that detach.
pub fn keys_of(context: &Context, matches: &ArgMatches) -> Outcome<Vec<u8>> {
    match chosen_keys(context, matches) {
        None => Ok(keys::DEFAULT.to_vec()),
        Some(text) => keys::sequence(text).map_err(Failure::new),
    }
}

/// The keys that detach, as a flag or the user's settings name them.
pub fn chosen_keys<'a>(context: &'a Context, matches: &'a ArgMatches) -> Option<&'a str> {
    let configured = Some(context.config.settings.detach_keys.as_str());
    flags::text(matches, "detach-keys").or(configured).filter(|keys| !keys.is_empty())
}

/// Catches signals, before there is anything to pass them to, so that none is lost.
pub fn catch(wanted: bool) -> Outcome<Caught> {
    if !wanted {
        return Ok(None);
    }
    signals::catch().map(Some).map_err(|error| Failure::io("catching signals", &error))
}

/// Attaches to streams of a container.
pub async fn attach(
    (context, client): (&Context, &Client),
    matches: &ArgMatches,
    id: &str,
    attached: Attached,
) -> Outcome<Hijacked> {
    let path = Query::new()
        .flag("stream", true)
        .flag("stdin", attached.stdin)
        .flag("stdout", attached.stdout)
        .flag("stderr", attached.stderr)
        .set_some("detachKeys", chosen_keys(context, matches))
        .on(&format!("/containers/{}/attach", segment(id)));
    Ok(client.hijack(&path, None::<&()>).await?)
}

/// Carries the streams, while signals or sizes are passed on to `object`, the path of a container or exec instance.
pub async fn carry(
    client: &Client,
    object: &str,
    connection: Option<Hijacked>,
    session: Session,
    caught: Caught,
) -> Outcome<End> {
    let tty = session.tty;
    let streams = async {
        match connection {
            Some(connection) => session.run(connection).await,
            None => Ok(End::Closed),
        }
    };
    let beside = async {
        match caught {
            Some(caught) => signals::pass_on(client, object, caught).await,
            None if tty && terminal::is_output() => signals::resize(client, object).await,
            None => {}
        }
        std::future::pending::<()>().await;
    };
    let ending = async { if tty { signals::ending().await } else { std::future::pending().await } };
    tokio::select! {
        end = streams => end,
        () = beside => Ok(End::Closed),
        code = ending => Err(Failure::silent(code)),
    }
}

/// As [`carry`] with a container, and then ends as it does.
pub async fn follow(
    (context, client): (&Context, &Client),
    id: &str,
    connection: Option<Hijacked>,
    session: Session,
    caught: Caught,
    wait: Wait,
) -> Outcome {
    match carry(client, &format!("/containers/{}", segment(id)), connection, session, caught).await? {
        End::Detached => Ok(()),
        End::Closed => exit::with(wait.code((context, client), id).await?),
    }
}
