//! The command line, as runc's callers know it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// runc's callers look for the line `spec`: the version of the specification.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

/// An OCI runtime.
#[derive(Debug, Parser)]
#[command(name = "berth runtime", version = VERSION, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Directory of the containers' states, on a tmpfs
    #[arg(long, default_value = "/run/berth/runtime", value_name = "DIRECTORY")]
    pub root: PathBuf,
    /// File to append errors to, beside standard error
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the log file
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Also log the command line
    #[arg(long)]
    pub debug: bool,
    /// Refused: cgroups are made directly, by paths
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Accepted for compatibility; only `true` is refused
    #[arg(long, value_name = "WHETHER", default_value = "auto", hide = true)]
    pub rootless: String,
    /// Accepted for compatibility: there are no checkpoints
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a container, whose program waits for `start`
    Create(Create),
    /// Execute the program of a created container
    Start(Container),
    /// Make a container, run its program, and delete it when that ends
    Run(Run),
    /// Print a container's state as JSON
    State(Container),
    /// Send a signal to a container's first process
    Kill(Kill),
    /// Delete a stopped container
    Delete(Delete),
    /// Run another program in a running container
    Exec(Exec),
    /// Freeze all processes of a container
    Pause(Container),
    /// Let a paused container go on
    Resume(Container),
    /// Change a container's resources
    Update(Box<Update>),
    /// List the processes of a container
    Ps(Ps),
    /// Print what a container uses, and when it lacks memory
    Events(Events),
    /// Print what this runtime supports
    Features,
    /// List the containers
    List(List),
    /// Write an example configuration
    Spec(SpecFile),
}

#[derive(Debug, Args)]
pub(super) struct Container {
    /// The container's ID
    pub id: String,
}

/// What `create` and `run` share.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The container's ID
    pub id: String,
    /// Directory with config.json
    #[arg(long, short, default_value = ".", value_name = "DIRECTORY")]
    pub bundle: PathBuf,
    /// Unix socket that receives the master of the terminal
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// File to write the process ID to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Descriptors of the caller for the program too, so many from 3 on
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub preserve_fds: u32,
    /// Accepted for compatibility: the root is always changed by pivot_root
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Accepted for compatibility: there is always a new session keyring
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub create: Create,
    /// Do not wait for the program
    #[arg(long, short)]
    pub detach: bool,
    /// Do not delete the container when the program has ended
    #[arg(long)]
    pub keep: bool,
    /// Accepted for compatibility: nothing is adopted
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// The container's ID
    pub id: String,
    /// The signal, by name or number
    #[arg(default_value = "TERM")]
    pub signal: String,
    /// Send it to all processes of the container
    #[arg(long, short)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The container's ID
    pub id: String,
    /// Kill it first if it runs; a container that does not exist is no error
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// The container's ID
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// JSON file with an OCI process, in place of a program and the other options
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Unix socket that receives the master of the terminal
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "DIRECTORY")]
    pub cwd: Option<PathBuf>,
    /// Environment variable, NAME=VALUE
    #[arg(long, short, value_name = "VARIABLE")]
    pub env: Vec<String>,
    /// Give the program a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// User and group, UID[:GID] or names of the container
    #[arg(long, short)]
    pub user: Option<String>,
    /// Further group
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// Do not wait for the program
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the process ID to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Let nothing that it executes gain privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability
    #[arg(long, short, value_name = "CAPABILITY")]
    pub cap: Vec<String>,
    /// Descriptors of the caller for the program too, so many from 3 on
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub preserve_fds: u32,
    /// Also in a paused container, where the program waits to be resumed
    #[arg(long)]
    pub ignore_paused: bool,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// The container's ID
    pub id: String,
    /// JSON file with OCI resources, `-` for standard input; other options are ignored then
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// Microseconds of the period that the quota is about
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU time in a period
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Relative weight of CPU time
    #[arg(long)]
    pub cpu_share: Option<u64>,
    /// Microseconds of the realtime period
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Microseconds of realtime in a period
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// 1 for CPU time that nobody else wants, 0 for the usual
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    /// Microseconds that unused quota may add up to
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// CPUs to use, such as 0-2,4
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Memory limit in bytes, or with a unit such as 64m; -1 for none
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory to keep when it becomes scarce
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 for none
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Most processes and threads; -1 for any number
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
}

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// The container's ID
    pub id: String,
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// The container's ID
    pub id: String,
    /// Time between two outputs, such as 5s
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub interval: std::time::Duration,
    /// Print the figures once
    #[arg(long)]
    pub stats: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Print IDs only
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct SpecFile {
    /// Directory to write config.json to
    #[arg(long, short, default_value = ".", value_name = "DIRECTORY")]
    pub bundle: PathBuf,
    /// Refused: containers are made by root
    #[arg(long)]
    pub rootless: bool,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    use std::time::Duration;
    let unit = text.trim_start_matches(|character: char| character.is_ascii_digit());
    let (number, _) = text.split_at(text.len() - unit.len());
    let number: u64 = number.parse().map_err(|error| format!("{text:?}: {error}"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(|| format!("{text} is too long")),
        _ => Err(format!("{unit:?} is none of ms, s and m")),
    }
    .and_then(|duration| if duration.is_zero() { Err("it must not be 0".to_owned()) } else { Ok(duration) })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_containerd_and_conmon_pass_is_understood() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        parse(
            "runc --root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /s --no-pivot x",
        )
        .unwrap();
        parse("runc --log-format=json exec --process /p --detach --pid-file /f x").unwrap();
        parse("runc --rootless=false delete --force x").unwrap();
        parse("runc kill --all x 9").unwrap();
        let exec = parse("runc exec -u 0:0 -e A=b x sh -c true --all").unwrap();
        let Command::Exec(exec) = exec.command else { panic!() };
        assert_eq!(exec.command, ["sh", "-c", "true", "--all"]);
        parse("runc update --memory-swap -1 --pids-limit -1 x").unwrap();
    }

    #[test]
    fn durations_have_units() {
        use std::time::Duration;
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("0s").is_err() && duration("s").is_err() && duration("1h").is_err());
    }
}
