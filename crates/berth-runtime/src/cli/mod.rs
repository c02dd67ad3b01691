//! The OCI runtime command line: `berth runtime`, in the words of runc's callers.
//!
//! Containers are made by [`crate::launch`]; what is kept between two commands is a directory for each under `--root`.

mod arguments;
mod control;
mod create;
mod error;
mod events;
mod exec;
mod foreground;
mod inherited;
mod report;
mod signals;
mod state;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use jiff::Timestamp;

use self::arguments::{Arguments, Command, Global, LogFormat};
use self::error::{Error, Result};

/// Runs the command that `arguments` ask for: program name, `runtime`, and what runc would get.
pub fn main(mut arguments: Vec<OsString>) -> ExitCode {
    if arguments.get(1).is_some_and(|face| face == "runtime") {
        arguments.remove(1);
    }
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            // Nobody is left to be told that even this cannot be printed.
            let _ = error.print();
            return code;
        }
    };
    match perform(&arguments.global, arguments.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell(&arguments.global, "error", &error.to_string());
            let _ = writeln!(std::io::stderr(), "berth runtime: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Writes a line to the log file, if there is one.
fn tell(global: &Global, level: &str, message: &str) {
    let Some(path) = &global.log else { return };
    let time = Timestamp::now();
    let line = match global.log_format {
        LogFormat::Json => serde_json::json!({ "level": level, "msg": message, "time": time }).to_string(),
        LogFormat::Text => format!("time={:?} level={level} msg={message:?}", time.to_string()),
    };
    // A log that cannot be written must not keep a container from its end.
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
        let _ = writeln!(file, "{line}");
    }
}

/// Gives the exit code.
fn perform(global: &Global, command: Command) -> Result<u8> {
    if global.systemd_cgroup {
        return Err(Error::Unsupported("--systemd-cgroup"));
    }
    if global.rootless == "true" {
        return Err(Error::Unsupported("running without root"));
    }
    if global.debug {
        tell(global, "debug", &format!("{command:?}"));
    }
    match command {
        Command::Create(create) => create::create(global, &create).map(|()| 0),
        Command::Start(container) => create::start(global, &container.id).map(|()| 0),
        Command::Run(run) => create::run(global, &run),
        Command::State(container) => report::state(global, &container.id).map(|()| 0),
        Command::Kill(kill) => control::kill(global, &kill).map(|()| 0),
        Command::Delete(delete) => control::delete(global, &delete).map(|()| 0),
        Command::Exec(exec) => exec::exec(global, &exec),
        Command::Pause(container) => control::pause(global, &container.id).map(|()| 0),
        Command::Resume(container) => control::resume(global, &container.id).map(|()| 0),
        Command::Update(update) => control::update(global, &update).map(|()| 0),
        Command::Ps(ps) => report::ps(global, &ps).map(|()| 0),
        Command::Events(events) => events::events(global, &events).map(|()| 0),
        Command::Features => report::features().map(|()| 0),
        Command::List(list) => report::list(global, &list).map(|()| 0),
        Command::Spec(spec) => report::spec(&spec).map(|()| 0),
    }
}
