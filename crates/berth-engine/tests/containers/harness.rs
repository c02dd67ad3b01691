//! What the standard harness does, as far as test runners need it: list, choose, run each in a process of its own.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// A test by its name.
pub type Test = (&'static str, fn());

/// Set in the process that has namespaces of its own and runs one test.
const INSIDE: &str = "BERTH_ENGINE_TEST";

/// Follows the command line of the standard harness.
pub fn run(tests: &[Test]) -> ExitCode {
    if let Some(name) = std::env::var_os(INSIDE) {
        let (_, test) = tests.iter().find(|(known, _)| name == *known).unwrap();
        test();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |wanted: &str| arguments.iter().any(|a| a == wanted);
    if flag("--list") {
        if !flag("--ignored") {
            tests.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--") && *a != "terse").collect();
    let chosen = |name: &str| {
        let matches = |filter: &&&String| if flag("--exact") { ***filter == name } else { name.contains(filter.as_str()) };
        filters.is_empty() || filters.iter().any(|filter| matches(&filter))
    };
    let chosen: Vec<_> = tests.iter().filter(|(name, _)| chosen(name)).collect();
    if let ([(name, _)], true) = (chosen.as_slice(), flag("--exact")) {
        panic!("{name}: {}", inside(name).exec());
    }
    let mut code = ExitCode::SUCCESS;
    for (name, _) in chosen {
        let passed = inside(name).status().unwrap().success();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// The command that runs one test where it can do no harm.
fn inside(name: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private", "--"]);
    command.arg(std::env::current_exe().unwrap()).env(INSIDE, name);
    command
}
