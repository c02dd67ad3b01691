//! `login`.

use std::io::Read as _;

use berth_api::auth::{AuthConfig, AuthResponse};
use berth_client::Client;
use clap::{Arg, ArgMatches, Command};

use super::prompt;
use crate::config::ConfigFile;
use crate::context::Context;
use crate::credentials::{self, HUB};
use crate::failure::{Failure, Outcome};
use crate::flags::{self, given, on, one, switch};
use crate::session::terminal;

/// Longest password that is read from standard input, in bytes.
const LONGEST: u64 = 1 << 20;

/// The command.
pub fn command() -> Command {
    Command::new("login").about("Keeps the account of a registry, after trying it").defer(|command| {
        command
            .arg(one("username", "NAME").short('u').help("The account"))
            .arg(one("password", "PASSWORD").short('p').help("Its password or token; - reads standard input"))
            .arg(switch("password-stdin").help("Read the password or token from standard input"))
            .arg(Arg::new("server").help("The registry; Docker Hub if none is named"))
    })
}

/// What the user said.
struct Given {
    user: String,
    password: String,
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let given = read(matches)?;
    let server = flags::text(matches, "server").filter(|server| !server.is_empty() && *server != "docker.io");
    let server = server.map_or(HUB, |server| if server == HUB { HUB } else { credentials::host(server) });
    let client = context.client().await?;
    let mut usual = String::new();
    if given.user.is_empty() && given.password.is_empty() {
        let kept = credentials::get(&context.config, server).await.unwrap_or_default();
        if !kept.username.is_empty() && !kept.password.is_empty() {
            match again(context, &client, &kept).await? {
                Some(status) => {
                    outln!("{status}");
                    return Ok(());
                }
                None => usual = kept.username,
            }
        }
    }
    if (given.user.is_empty() || given.password.is_empty()) && !terminal::is_input() {
        return Err(Failure::new("error: cannot perform an interactive login from a non-TTY device"));
    }
    let auth = ask(given, &usual, server).await?;
    let status = attempt(context, &client, auth).await?;
    outln!("{status}");
    Ok(())
}

/// Reads the flags, and the password that comes on standard input.
fn read(matches: &ArgMatches) -> Outcome<Given> {
    let (user, mut password) = (flags::or_empty(matches, "username"), flags::or_empty(matches, "password"));
    let piped = on(matches, "password-stdin") || password == "-";
    if piped && given(matches, "password") && password != "-" {
        return Err(Failure::new("conflicting options: cannot specify both --password and --password-stdin"));
    }
    if piped && !given(matches, "username") {
        return Err(Failure::new("the --password-stdin option requires --username to be set"));
    }
    if given(matches, "username") && user.is_empty() {
        return Err(Failure::new("username is empty"));
    }
    if given(matches, "password") && password.is_empty() {
        return Err(Failure::new("password is empty"));
    }
    if piped {
        password.clear();
        std::io::stdin().take(LONGEST).read_to_string(&mut password)?;
        let whole = password.strip_suffix('\n').unwrap_or(&password);
        password = whole.strip_suffix('\r').unwrap_or(whole).to_owned();
        if password.trim().is_empty() {
            return Err(Failure::new("password is empty"));
        }
    } else if !password.is_empty() {
        errln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    Ok(Given { user, password })
}

/// Tries what is kept; none if that does not do.
async fn again(context: &Context, client: &Client, kept: &AuthConfig) -> Outcome<Option<String>> {
    errln!("Authenticating with existing credentials... [Username: {}]", kept.username);
    errln!(
        "\nInfo → To login with a different account, run '{program} logout' followed by '{program} login'\n\n",
        program = context.program
    );
    match attempt(context, client, kept.clone()).await {
        Ok(status) => Ok(Some(status)),
        Err(failure) => {
            errln!("Login did not succeed, error: {failure}");
            Ok(None)
        }
    }
}

/// Asks for what is missing.
async fn ask(given: Given, usual: &str, server: &str) -> Outcome<AuthConfig> {
    let Given { mut user, mut password } = given;
    if user.trim().is_empty() {
        if server == HUB {
            outln!("Log in with your Docker ID or email address to push and pull images from Docker Hub.");
        }
        let question =
            if usual.is_empty() { "Username: ".to_owned() } else { format!("Username ({usual}): ") };
        user = prompt::line(&question).await?;
        if user.is_empty() {
            usual.clone_into(&mut user);
        }
        if user.is_empty() {
            return Err(Failure::new("error: username is required"));
        }
    }
    if password.trim().is_empty() {
        password = prompt::secret("Password: ").await?;
        if password.is_empty() {
            return Err(Failure::new("error: password is required"));
        }
    }
    let user = user.trim().to_owned();
    Ok(AuthConfig { username: user, password, serveraddress: server.to_owned(), ..AuthConfig::default() })
}

/// Lets the daemon try an account, and keeps it.
async fn attempt(context: &Context, client: &Client, mut auth: AuthConfig) -> Outcome<String> {
    let answer: AuthResponse = client.post("/auth", &auth).await?;
    if !answer.identity_token.is_empty() {
        auth.password.clear();
        auth.identitytoken = answer.identity_token;
    }
    // Another command may have changed the file since this one began.
    let mut config = ConfigFile::read(context.config.directory().to_owned());
    let saving = |failure: Failure| Failure::new(format!("error saving credentials: {failure}"));
    if credentials::store(&mut config, &auth).await.map_err(saving)? {
        errln!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            config.path().display()
        );
    }
    Ok(answer.status)
}
