//! `info`.

use berth_api::system::Info;
use clap::{ArgMatches, Command};
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, one};
use crate::format::{human, template};

/// The command.
pub fn command() -> Command {
    Command::new("info").about("Shows what the daemon is and has").defer(|command| {
        command.arg(one("format", "TEMPLATE").short('f').help("Show by a Go template, or json"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let data: Value = context.client().await?.get("/info").await?;
    if let Some(format) = flags::text(matches, "format") {
        outln!("{}", template::object(format, &data)?);
        return Ok(());
    }
    let info: Info = serde_json::from_value(data)
        .map_err(|error| Failure::new(format!("Error reading the answer: {error}")))?;
    out!("{}", text(context.name(), &info));
    for warning in info.warnings.iter().flatten() {
        errln!("{warning}");
    }
    Ok(())
}

fn text(context: &str, info: &Info) -> String {
    let mut lines = vec![
        format!("Client:\n Version:    {}\n Context:    {context}", env!("CARGO_PKG_VERSION")),
        "\nServer:".to_owned(),
        format!(" Containers: {}", info.containers),
        format!("  Running: {}", info.containers_running),
        format!("  Paused: {}", info.containers_paused),
        format!("  Stopped: {}", info.containers_stopped),
        format!(" Images: {}", info.images),
        format!(" Server Version: {}", info.server_version),
        format!(" Storage Driver: {}", info.driver),
    ];
    lines.extend(info.driver_status.iter().map(|[name, value]| format!("  {name}: {value}")));
    lines.extend([
        format!(" Logging Driver: {}", info.logging_driver),
        format!(" Cgroup Driver: {}", info.cgroup_driver),
        format!(" Cgroup Version: {}", info.cgroup_version),
        format!(" Runtimes: {}", info.runtimes.keys().map(String::as_str).collect::<Vec<_>>().join(" ")),
        format!(" Default Runtime: {}", info.default_runtime),
        " Security Options:".to_owned(),
    ]);
    lines.extend(
        info.security_options.iter().map(|option| format!("  {}", option.trim_start_matches("name="))),
    );
    lines.extend([
        format!(" Kernel Version: {}", info.kernel_version),
        format!(" Operating System: {}", info.operating_system),
        format!(" OSType: {}", info.os_type),
        format!(" Architecture: {}", info.architecture),
        format!(" CPUs: {}", info.ncpu),
        format!(" Total Memory: {}", human::binary_size(info.mem_total)),
        format!(" Name: {}", info.name),
        format!(" ID: {}", info.id),
        format!(" Docker Root Dir: {}", info.docker_root_dir),
        format!(" Debug Mode: {}", info.debug),
        format!(" Live Restore Enabled: {}", info.live_restore_enabled),
    ]);
    if let Some(firewall) = &info.firewall_backend {
        lines.push(format!(" Firewall Backend: {}", firewall.driver));
        let about = firewall.info.iter().flatten();
        lines.extend(about.map(|[name, value]| format!("  {name}: {value}")));
    }
    if !info.labels.is_empty() {
        lines.push(" Labels:".to_owned());
        lines.extend(info.labels.iter().map(|label| format!("  {label}")));
    }
    lines.join("\n") + "\n"
}
