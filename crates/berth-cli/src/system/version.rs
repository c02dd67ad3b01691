//! `version`.

use berth_api::version::ApiVersion;
use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, one};
use crate::format::template;

const CLIENT: &str = "\
Client:
 Version:           {{.Client.Version}}
 API version:       {{.Client.APIVersion}}{{if ne .Client.APIVersion .Client.DefaultAPIVersion}} (downgraded from \
{{.Client.DefaultAPIVersion}}){{end}}
 Git commit:        {{.Client.GitCommit}}
 Built:             {{.Client.BuildTime}}
 OS/Arch:           {{.Client.Os}}/{{.Client.Arch}}
 Context:           {{.Client.Context}}
";
const SERVER: &str = "
Server: {{.Server.Platform.Name}}
 Engine:
  Version:          {{.Server.Version}}
  API version:      {{.Server.APIVersion}} (minimum version {{.Server.MinAPIVersion}})
  Git commit:       {{.Server.GitCommit}}
  Built:            {{.Server.BuildTime}}
  OS/Arch:          {{.Server.Os}}/{{.Server.Arch}}
  Kernel:           {{.Server.KernelVersion}}
";

/// The command.
pub fn command() -> Command {
    Command::new("version").about("Shows the versions of client and daemon").defer(|command| {
        command.arg(one("format", "TEMPLATE").short('f').help("Show by a Go template, or json"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    // The client's version is known without a daemon.
    let mut spoken = crate::context::version()?.unwrap_or(ApiVersion::NEWEST);
    let server: Result<Value, Failure> = async {
        let client = context.client().await?;
        let mut server: Value = client.get("/version").await?;
        spoken = client.version();
        // Docker's client calls them so.
        for (name, wire) in [("APIVersion", "ApiVersion"), ("MinAPIVersion", "MinAPIVersion")] {
            let value = server.get(wire).cloned().unwrap_or_default();
            if let Some(object) = server.as_object_mut() {
                object.insert(name.to_owned(), value);
            }
        }
        Ok(server)
    }
    .await;
    let data = json!({
        "Client": {
            "Version": env!("CARGO_PKG_VERSION"),
            "APIVersion": spoken.to_string(),
            "DefaultAPIVersion": ApiVersion::NEWEST.to_string(),
            "GitCommit": context.build.commit,
            "BuildTime": context.build.time,
            "Context": context.name(),
            "Os": std::env::consts::OS,
            "Arch": berth_oci::Platform::host().architecture,
        },
        "Server": server.as_ref().ok(),
    });
    match (flags::text(matches, "format"), &server) {
        (Some(format), _) => outln!("{}", template::object(format, &data)?),
        (None, Ok(_)) => out!("{}", template::object(&format!("{CLIENT}{SERVER}"), &data)?),
        (None, Err(_)) => out!("{}", template::object(CLIENT, &data)?),
    }
    server.map(drop)
}
