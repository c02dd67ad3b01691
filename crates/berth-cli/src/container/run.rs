//! `run`: create, attach, start, and end as the container does.

use berth_api::container::CreateRequest;
use berth_client::{Client, segment};
use clap::{ArgMatches, Command};

use super::exit::{self, Wait};
use super::request::Attached;
use super::{create, join, options, proxies, request};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags;
use crate::session::Session;

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
    let (mut request, attached) =
        plan(context, matches, detach).map_err(|failure| create::complain(context, failure))?;
    join::require_terminal(attached.stdin, request.config.tty)?;
    let client = context.client().await.map_err(|failure| create::complain(context, failure))?;
    proxies::add(&context.config.settings, client.host(), &flags::list(matches, "env"), &mut request);
    let id = create::create(context, &client, matches, &request)
        .await
        .map_err(|failure| create::complain(context, failure))?;
    if detach {
        let outcome = start(context, &client, &id).await;
        // Whether it starts or not, there is a container.
        outln!("{id}");
        return outcome;
    }
    foreground((context, &client), matches, &id, &request, attached).await
}

fn plan(context: &Context, matches: &ArgMatches, detach: bool) -> Outcome<(CreateRequest, Attached)> {
    let attached = request::attached(matches, !detach)?;
    if detach && (attached.stdin || attached.stdout || attached.stderr) {
        return Err(Failure::new("conflicting options: cannot specify both --attach and --detach"));
    }
    join::keys_of(context, matches)?;
    Ok((request::read(matches, attached)?, attached))
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

/// Starts the container, and ends as it does.
async fn foreground(
    (context, client): (&Context, &Client),
    matches: &ArgMatches,
    id: &str,
    request: &CreateRequest,
    attached: Attached,
) -> Outcome {
    let tty = request.config.tty;
    let caught = join::catch(flags::on(matches, "sig-proxy") && !tty)?;
    let connection = match attached {
        Attached { stdin: false, stdout: false, stderr: false } => None,
        attached => Some(join::attach((context, client), matches, id, attached).await?),
    };
    let removed = request.host_config.as_ref().is_some_and(|host| host.auto_remove);
    let wait = Wait::begin(client, id, if removed { "removed" } else { "next-exit" }).await?;
    start(context, client, id).await?;
    let session = Session { stdin: attached.stdin, tty, detach_keys: join::keys_of(context, matches)? };
    join::follow((context, client), id, connection, session, caught, wait).await
}
