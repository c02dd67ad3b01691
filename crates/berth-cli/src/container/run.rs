//! `run`: create, attach, start, and end as the container does.

use berth_api::container::CreateRequest;
use berth_client::{Client, Hijacked, Query, segment};
use clap::{ArgMatches, Command};

use super::exit::{self, Wait};
use super::request::Attached;
use super::start::carry;
use super::{create, options, request};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags;
use crate::session::{End, Session, signals, terminal};
use crate::values::keys;

/// The command.
pub fn command() -> Command {
    Command::new("run").about("Creates and starts a container, and waits for it").defer(|command| {
        command
            .arg(flags::switch("detach").short('d').help("Do not wait: print its ID"))
            .arg(flags::one("detach-keys", "KEYS").help("Keys that detach (ctrl-p,ctrl-q)"))
            .arg(flags::switch("sig-proxy").default_value("true").help("Pass signals on to it"))
            .args(options::all())
            .arg(flags::operand("image"))
            .arg(flags::command(false))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let detach = flags::on(matches, "detach");
    let (request, attached) = plan(matches, detach).map_err(|failure| create::complain(context, failure))?;
    if attached.stdin && request.config.tty && !terminal::is_input() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let client = context.client().await.map_err(|failure| create::complain(context, failure))?;
    let id = create::create(&client, matches, &request)
        .await
        .map_err(|failure| create::complain(context, failure))?;
    if detach {
        start(context, &client, &id).await?;
        outln!("{id}");
        return Ok(());
    }
    let session = Foreground { context, client: &client, id: &id, tty: request.config.tty };
    session.run(matches, &request, attached).await
}

fn plan(matches: &ArgMatches, detach: bool) -> Outcome<(CreateRequest, Attached)> {
    let attached = request::attached(matches, !detach)?;
    if detach && (attached.stdin || attached.stdout || attached.stderr) {
        return Err(Failure::new("conflicting options: cannot specify both --attach and --detach"));
    }
    keys_of(matches)?;
    Ok((request::read(matches, attached)?, attached))
}

/// The keys that detach.
pub fn keys_of(matches: &ArgMatches) -> Outcome<Vec<u8>> {
    match flags::text(matches, "detach-keys") {
        None => Ok(keys::DEFAULT.to_vec()),
        Some(text) => keys::sequence(text).map_err(Failure::new),
    }
}

async fn start(context: &Context, client: &Client, id: &str) -> Outcome {
    match client.post_empty(&format!("/containers/{}/start", segment(id))).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let failure = create::complain(context, Failure::new(text.clone()));
            Err(Failure { code: exit::code_of(&text), ..failure })
        }
    }
}

/// A container whose end is waited for.
struct Foreground<'a> {
    context: &'a Context,
    client: &'a Client,
    id: &'a str,
    tty: bool,
}

impl Foreground<'_> {
    async fn run(&self, matches: &ArgMatches, request: &CreateRequest, attached: Attached) -> Outcome {
        let proxy = flags::on(matches, "sig-proxy") && !self.tty;
        // Caught before there is anything to pass them to, so that none is lost.
        let caught = if proxy {
            Some(signals::catch().map_err(|error| Failure::io("catching signals", &error))?)
        } else {
            None
        };
        let connection = match attached {
            Attached { stdin: false, stdout: false, stderr: false } => None,
            attached => Some(self.attach(matches, attached).await?),
        };
        let removed = request.host_config.as_ref().is_some_and(|host| host.auto_remove);
        let wait = Wait::begin(self.client, self.id, if removed { "removed" } else { "next-exit" }).await?;
        start(self.context, self.client, self.id).await?;
        let session = Session { stdin: attached.stdin, tty: self.tty, detach_keys: keys_of(matches)? };
        let streams = async {
            match connection {
                Some(connection) => session.run(connection).await,
                None => Ok(End::Closed),
            }
        };
        match carry(self.client, self.id, streams, self.tty, caught).await? {
            End::Detached => Ok(()),
            End::Closed => exit::with(wait.code(self.context, self.id).await?),
        }
    }

    async fn attach(&self, matches: &ArgMatches, attached: Attached) -> Outcome<Hijacked> {
        let path = Query::new()
            .flag("stream", true)
            .flag("stdin", attached.stdin)
            .flag("stdout", attached.stdout)
            .flag("stderr", attached.stderr)
            .set_some("detachKeys", flags::text(matches, "detach-keys"))
            .on(&format!("/containers/{}/attach", segment(self.id)));
        Ok(self.client.hijack(&path, None::<&()>).await?)
    }
}
