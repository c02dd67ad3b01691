//! The command line: flags to settings, tables, templates, progress, terminal.
//!
//! Parsing has no effects: a command line becomes requests of the Engine API, and every decision about containers is
//! the daemon's. Commands, flags, messages and exit codes are those of Docker's client.
#![forbid(unsafe_code)]

#[macro_use]
mod output;
mod place;

mod builder;
mod complete;
mod config;
mod confirm;
mod container;
mod context;
mod contexts;
mod counter;
mod credentials;
mod failure;
mod flags;
mod format;
mod grammar;
mod headers;
mod help;
mod image;
#[cfg(test)]
mod man;
mod manifest;
mod monitor;
mod network;
mod on_demand;
#[cfg(test)]
mod parity;
mod pieces;
mod plugins;
mod registry;
mod session;
mod system;
mod tls;
mod usage;
mod values;
mod volume;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use berth_api::version::Build;
use clap::ArgMatches;

pub use failure::{Failure, Outcome};

use context::Context;

/// Runs the command that `arguments`, program name first, ask for. `build` is what the program was made of.
pub fn main(arguments: Vec<OsString>, build: Build) -> ExitCode {
    if arguments.get(1).is_some_and(|word| word == complete::FACE) {
        return candidates(&arguments);
    }
    let command = command_line();
    let words = grammar::set_apart(&command, arguments.clone());
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => return usage::report(&error, &arguments),
    };
    if let Some(("help", matches)) = matches.subcommand() {
        return end(help::run(grammar::program(&arguments), &flags::list(matches, "topic")));
    }
    if let Some(("completion", matches)) = matches.subcommand() {
        return end(complete::script(matches));
    }
    // Requests wait for each other: one thread is enough, and starts fastest.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(Failure::io("starting", &error))),
    };
    let outcome = runtime.block_on(run(&arguments, &matches, build));
    // A thread that reads standard input cannot be stopped, and must not hold up the end.
    runtime.shutdown_background();
    end(outcome)
}

/// Prints what may stand where something is being typed.
fn candidates(arguments: &[OsString]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // A shell that asks has no use for messages.
    let _ = runtime.map(|runtime| {
        let outcome = runtime.block_on(complete::run(arguments));
        runtime.shutdown_background();
        outcome
    });
    let _ = std::io::stdout().flush();
    ExitCode::SUCCESS
}

fn end(outcome: Outcome) -> ExitCode {
    // Nobody is left to be told that a closed output is closed.
    let _ = std::io::stdout().flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "{}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// All commands. Flags are made only for the command that is meant: making all takes longer than most commands run.
fn command_line() -> clap::Command {
    let root = clap::Command::new("berth")
        .about("Runs containers")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        // What is no command here may be a plugin.
        .allow_external_subcommands(true)
        .args(context::flags())
        .subcommands(container::commands())
        .subcommands(image::commands())
        .subcommands(system::commands())
        .subcommands(registry::commands())
        .subcommand(
            group("builder", "Manages builds").defer(|group| group.subcommands(builder::group_commands())),
        )
        .subcommand(
            group("container", "Manages containers")
                .defer(|group| group.subcommands(container::group_commands())),
        )
        .subcommand(
            group("image", "Manages images").defer(|group| group.subcommands(image::group_commands())),
        )
        .subcommand(
            group("manifest", "Manages manifest lists: one name for the images of several platforms")
                .defer(|group| group.subcommands(manifest::group_commands())),
        )
        .subcommand(
            group("network", "Manages networks").defer(|group| group.subcommands(network::group_commands())),
        )
        .subcommand(
            group("system", "Shows what the daemon is and does")
                .defer(|group| group.subcommands(system::group_commands())),
        )
        .subcommand(
            group("volume", "Manages volumes").defer(|group| group.subcommands(volume::group_commands())),
        )
        .subcommand(
            group("context", "Manages contexts: daemons that have names")
                .defer(|group| group.subcommands(contexts::group_commands())),
        )
        .subcommand(
            clap::Command::new("help")
                .about("Shows help about a command")
                .arg(clap::Arg::new("topic").value_name("COMMAND").num_args(0..)),
        )
        .subcommand(monitor::command())
        .subcommand(complete::command())
        // Other faces of the program, which are chosen before this is read.
        .subcommand(clap::Command::new("daemon").about("Runs the daemon (see berth daemon --help)"))
        .subcommand(clap::Command::new("runtime").about("Is an OCI runtime (see berth runtime --help)"));
    let version = clap::Arg::new("version").long("version").short('v').help("Print the version and quit");
    root.arg(version.action(clap::ArgAction::Version))
}

fn group(name: &'static str, about: &'static str) -> clap::Command {
    clap::Command::new(name)
        .about(about)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
}

async fn run(arguments: &[OsString], matches: &ArgMatches, build: Build) -> Outcome {
    let mut context = Context::new(arguments, matches)?;
    context.build = build;
    let Some((name, matches)) = matches.subcommand() else { return Ok(()) };
    match (name, matches.subcommand()) {
        ("builder", Some((name, matches))) => builder::run(&context, name, matches).await,
        ("container", Some((name, matches))) => container::run_of_group(&context, name, matches).await,
        ("image", Some((name, matches))) => image::run(&context, image::of_group(name), matches).await,
        ("manifest", Some((name, matches))) => manifest::run(&context, name, matches).await,
        ("network", Some((name, matches))) => network::run(&context, name, matches).await,
        ("volume", Some((name, matches))) => volume::run(&context, name, matches).await,
        ("context", Some((name, matches))) => contexts::run(&mut context, name, matches),
        ("system", Some((name, matches))) => system::run(&context, name, matches).await,
        // What clap does not know has its arguments under this name.
        _ if matches.try_get_many::<OsString>("").ok().flatten().is_some() => {
            plugins::run(&context, arguments, name)
        }
        ("monitor", _) => monitor::run(&context, matches).await,
        _ if image::has(name) => image::run(&context, name, matches).await,
        _ if registry::has(name) => registry::run(&context, name, matches).await,
        _ if system::has(name) => system::run(&context, name, matches).await,
        _ => container::run(&context, name, matches).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command_line().debug_assert();
    }

    #[test]
    fn short_switches_cluster_and_take_values_after_an_equals_sign() {
        let parse = |line: &str| command_line().try_get_matches_from(line.split(' ')).unwrap();
        let matches = parse("berth run -dit --rm=false -eA=b -e C image -x --rm");
        let (_, run) = matches.subcommand().unwrap();
        assert!(flags::on(run, "detach") && flags::on(run, "interactive") && flags::on(run, "tty"));
        assert!(!flags::on(run, "rm"));
        assert_eq!(flags::list(run, "env"), ["A=b", "C"]);
        assert_eq!(flags::text(run, "image"), Some("image"));
        assert_eq!(flags::list(run, "command"), ["-x", "--rm"]);
        let matches = parse("berth -H unix:///x container ls -aq");
        assert_eq!(matches.subcommand().unwrap().1.subcommand_name(), Some("ls"));
    }
}
