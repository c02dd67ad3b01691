//! What was given, by flag or file, before it means anything.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use berth_engine::without_credentials;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::file::{File, FileError};
use super::table::{Effect, Kind, OPTIONS, Opt, WORKING_KEYS};
use super::{builder, values};

/// Options by the names of their flags.
#[derive(Debug, Default, Clone)]
pub struct Given {
    values: BTreeMap<&'static str, Vec<String>>,
    /// Keys of the file that are no flags.
    extra: BTreeMap<String, Vec<String>>,
}

/// Flags and file cannot be used together, or one of them not at all.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is wrong.
    #[error("unable to configure the Docker daemon with file {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        source: FileError,
    },
    /// Options in both.
    #[error(
        "unable to configure the Docker daemon with file {path}: the following directives are specified both as a \
         flag and in the configuration file: {conflicts}"
    )]
    Conflict {
        /// The file.
        path: String,
        /// Each option with both values.
        conflicts: String,
    },
    /// Two names of one option in the file.
    #[error(
        "unable to configure the Docker daemon with file {path}: {old} and {new} must not both be specified in the \
         config file"
    )]
    Twice {
        /// The file.
        path: String,
        /// The older name.
        old: &'static str,
        /// The newer one.
        new: &'static str,
    },
    /// A value is no switch or no number.
    #[error("invalid argument {value:?} for --{flag}: {expected}")]
    Value {
        /// The option.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
}

/// Older name of an option in the file, and the present one.
const RENAMED: (&str, &str) = ("host-gateway-ip", "host-gateway-ips");

/// The command line.
pub fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let mut command = Command::new("daemon")
        .about("Runs the engine and answers the Engine API")
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args_override_self(true)
        .arg(Arg::new("config-file").long("config-file").value_name("FILE").help("Further options, in JSON"))
        .arg(flag("validate").help("Check the options and quit"))
        .arg(flag("version").short('v').help("Print the version and quit"))
        .arg(flag("on-demand").hide(true))
        .arg(Arg::new("ready-fd").long("ready-fd").hide(true).value_parser(clap::value_parser!(i32)));
    for option in OPTIONS {
        command = command.arg(argument(option));
    }
    command
}

fn argument(option: &'static Opt) -> Arg {
    let mut argument = Arg::new(option.flag).long(option.flag).value_name(option.value).help(option.help);
    if let Some(letter) = option.short {
        argument = argument.short(letter);
    }
    if option.flag == "data-root" {
        argument = argument.short('g').visible_alias("graph");
    }
    if option.effect == Effect::Ignored {
        argument = argument.hide(true);
    }
    match option.kind {
        Kind::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::Number => argument.allow_negative_numbers(true),
        _ if option.repeats() => argument.action(ArgAction::Append),
        _ => argument,
    }
}

impl Given {
    /// What the command line says.
    pub fn from_flags(matches: &ArgMatches) -> Self {
        let mut values = BTreeMap::new();
        for option in OPTIONS {
            if matches.value_source(option.flag) == Some(ValueSource::CommandLine) {
                let list = matches.get_many::<String>(option.flag).into_iter().flatten().cloned().collect();
                values.insert(option.flag, list);
            }
        }
        Self { values, ..Self::default() }
    }

    /// Adds what the file at `path` says. If nobody `insists` on the file, it need not be there.
    pub fn with_file(mut self, path: &Path, insists: bool) -> Result<Self, ConfigError> {
        let show = || path.display().to_string();
        let mut file = match File::read(path) {
            Err(error) if error.is_absent() && !insists => return Ok(self),
            other => other.map_err(|source| ConfigError::File { path: show(), source })?,
        };
        let (old, new) = RENAMED;
        if file.shown.contains_key(old) && file.shown.contains_key(new) {
            return Err(ConfigError::Twice { path: show(), old, new });
        }
        let conflicts = self.conflicts(&file);
        if !conflicts.is_empty() {
            return Err(ConfigError::Conflict { path: show(), conflicts: conflicts.join(", ") });
        }
        if let Some(values) = file.values.remove(old) {
            file.values.insert(new.to_owned(), values);
        }
        for option in OPTIONS {
            if let Some(values) = file.values.remove(option.key()) {
                // Runtimes are the only option that a flag and the file may both give.
                self.values.entry(option.flag).or_default().extend(values);
            }
        }
        self.extra = file.values;
        Ok(self)
    }

    /// Options that were given by flag and are in the file too.
    fn conflicts(&self, file: &File) -> Vec<String> {
        let mut found = Vec::new();
        for option in OPTIONS {
            let Some(values) = self.values.get(option.flag) else { continue };
            // Runtimes of both are united.
            if option.key() == "runtimes" {
                continue;
            }
            let older = if option.key() == RENAMED.1 { RENAMED.0 } else { option.key() };
            for name in [option.key(), older] {
                if let Some(shown) = file.shown.get(name) {
                    let flag =
                        if option.repeats() { format!("[{}]", values.join(" ")) } else { values.join(" ") };
                    let (flag, shown) = (without_credentials(&flag), without_credentials(shown));
                    found.push(format!("{name}: (from flag: {flag}, from file: {shown})"));
                    break;
                }
            }
        }
        found
    }

    /// All options with their values in JSON, without passwords, for the log.
    pub fn shown(&self) -> String {
        let mask = |values: &Vec<String>| values.iter().map(|value| without_credentials(value)).collect();
        let values: BTreeMap<&str, Vec<String>> =
            self.values.iter().map(|(flag, values)| (*flag, mask(values))).collect();
        serde_json::to_string(&values).unwrap_or_default()
    }

    /// The last value of an option.
    pub fn text(&self, flag: &'static str) -> Option<&str> {
        self.values.get(flag)?.last().map(String::as_str)
    }

    /// All values of an option.
    pub fn list(&self, flag: &'static str) -> &[String] {
        self.values.get(flag).map(Vec::as_slice).unwrap_or_default()
    }

    /// All values of an option that was given, even if there are none.
    pub fn list_if_given(&self, flag: &'static str) -> Option<&[String]> {
        self.values.get(flag).map(Vec::as_slice)
    }

    /// A switch.
    pub fn switch(&self, flag: &'static str) -> Result<Option<bool>, ConfigError> {
        self.parsed(flag, "true or false", values::switch)
    }

    /// A value that `parse` understands; `expected` says what that is.
    pub fn parsed<T>(
        &self,
        flag: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        self.text(flag)
            .map(|value| {
                parse(value).ok_or_else(|| ConfigError::Value { flag, value: value.to_owned(), expected })
            })
            .transpose()
    }

    /// Whether a feature is switched on or off: `name`, `name=true` or `name=false` of a flag, or the file's object.
    pub fn feature(&self, name: &str) -> Option<bool> {
        self.list("feature").iter().rev().find_map(|text| match serde_json::from_str(text) {
            Ok(serde_json::Value::Object(features)) => features.get(name)?.as_bool(),
            _ => match text.split_once('=') {
                Some((own, value)) if own == name => value.parse().ok(),
                None if text == name => Some(true),
                _ => None,
            },
        })
    }

    /// The last value of a key of the file that is no flag.
    pub fn extra(&self, key: &str) -> Option<&str> {
        self.extra.get(key)?.last().map(String::as_str)
    }

    /// The file's object of this name, which is no flag; null if there is none.
    pub fn object(&self, key: &str) -> serde_json::Value {
        let text = self.extra.get(key).and_then(|values| values.last());
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Options that were given and have no effect here, in the words of the user.
    pub fn without_effect(&self) -> Vec<&str> {
        let ignored = |flag: &&str| {
            OPTIONS.iter().any(|option| option.flag == *flag && option.effect == Effect::Ignored)
        };
        // One of the features is known.
        let unknown = |flag: &&str| *flag != "feature" || self.feature("cdi").is_none();
        let flags = self.values.keys().copied().filter(ignored).filter(unknown);
        // The only thing about the builder that has one is what it keeps.
        let works = |key: &&str| match *key {
            "builder" => builder::is_understood(&self.object("builder")),
            key => WORKING_KEYS.contains(&key),
        };
        flags.chain(self.extra.keys().map(String::as_str).filter(|key| !works(key))).collect()
    }

    /// All values are of their options' kinds.
    pub fn check_switches(&self) -> Result<(), ConfigError> {
        for option in OPTIONS {
            let _: Option<()> = match option.kind {
                Kind::Switch => self.switch(option.flag)?.map(|_| ()),
                Kind::Number => {
                    self.parsed(option.flag, "a whole number", |text| text.parse::<i64>().ok())?.map(|_| ())
                }
                _ => None,
            };
        }
        Ok(())
    }
}

/// Drops `daemon` after the program's name.
pub fn without_face(args: &[OsString]) -> Vec<OsString> {
    let mut args = args.to_vec();
    if args.get(1).is_some_and(|face| face == "daemon") {
        args.remove(1);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Given {
        Given::from_flags(&command().try_get_matches_from([&["daemon"], args].concat()).unwrap())
    }

    fn with(args: &[&str], json: &str) -> Result<Given, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("daemon.json");
        std::fs::write(&path, json).unwrap();
        flags(args).with_file(&path, true)
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn flags_and_file_are_united() {
        let given = with(&["--debug", "-H", "unix:///a"], r#"{"labels": ["a=b"], "mtu": 9}"#).unwrap();
        assert_eq!(given.switch("debug").unwrap(), Some(true));
        assert_eq!(given.list("label"), ["a=b"]);
        assert_eq!(given.text("mtu"), Some("9"));
        assert_eq!(given.switch("live-restore").unwrap(), None);
    }

    #[test]
    fn what_is_given_twice_is_refused_with_both_values() {
        let error = with(
            &["-H", "unix:///a", "--label=x=y", "-D"],
            r#"{"hosts": ["fd://"], "labels": ["a=b"], "debug": false}"#,
        )
        .unwrap_err()
        .to_string();
        let (_, conflicts) = error.split_once("configuration file: ").unwrap();
        assert_eq!(
            conflicts,
            "hosts: (from flag: [unix:///a], from file: [fd://]), debug: (from flag: true, from file: false), \
             labels: (from flag: [x=y], from file: [a=b])"
        );
        let error = with(&["--http-proxy", "http://u:secret@p/"], r#"{"http-proxy": "http://v:secret@q/"}"#);
        assert!(!error.unwrap_err().to_string().contains("secret"));
        let both = with(&["--add-runtime", "x=/x"], r#"{"runtimes": {"y": {"path": "/y"}}}"#).unwrap();
        assert_eq!(both.list("add-runtime"), ["x=/x", r#"{"y":{"path":"/y"}}"#]);
    }

    #[test]
    fn the_old_name_of_the_gateways_counts() {
        let given = with(&[], r#"{"host-gateway-ip": "10.0.0.1"}"#).unwrap();
        assert_eq!(given.list("host-gateway-ip"), ["10.0.0.1"]);
        assert!(matches!(
            with(&["--host-gateway-ip", "10.0.0.2"], r#"{"host-gateway-ip": "10.0.0.1"}"#),
            Err(ConfigError::Conflict { .. })
        ));
        assert!(matches!(
            with(&[], r#"{"host-gateway-ip": "10.0.0.1", "host-gateway-ips": []}"#),
            Err(ConfigError::Twice { .. })
        ));
    }

    #[test]
    fn only_a_file_that_was_asked_for_must_be_there() {
        let nowhere = Path::new("/nonexistent/daemon.json");
        assert!(flags(&[]).with_file(nowhere, false).unwrap().list("label").is_empty());
        let error = flags(&[]).with_file(nowhere, true).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "unable to configure the Docker daemon with file /nonexistent/daemon.json: open "
            ),
            "{error}"
        );
    }

    #[test]
    fn what_has_no_effect_is_collected() {
        let given = with(
            &["--containerd=/x", "--debug"],
            r#"{"features": {"buildkit": true}, "builder": {"entitlements": {}}}"#,
        )
        .unwrap();
        assert_eq!(given.without_effect(), ["containerd", "feature", "builder"]);
    }

    #[test]
    fn features_are_read_from_both() {
        assert_eq!(flags(&["--feature", "cdi=false"]).feature("cdi"), Some(false));
        assert_eq!(flags(&["--feature", "cdi"]).feature("cdi"), Some(true));
        assert_eq!(flags(&[]).feature("cdi"), None);
        let given = with(&[], r#"{"features": {"cdi": false}, "cdi-spec-dirs": []}"#).unwrap();
        assert_eq!((given.feature("cdi"), given.feature("other")), (Some(false), None));
        assert_eq!(given.list_if_given("cdi-spec-dir"), Some(&[][..]));
    }

    #[test]
    fn the_last_of_several_counts_and_kinds_are_checked() {
        let given = flags(&["--mtu", "1", "--mtu=2", "-D=false", "--shutdown-timeout", "-1"]);
        assert_eq!(given.text("mtu"), Some("2"));
        assert_eq!(given.switch("debug").unwrap(), Some(false));
        assert!(given.check_switches().is_ok());
        assert!(flags(&["--iptables=maybe"]).check_switches().is_err());
        assert!(flags(&["--cpu-rt-period=x"]).check_switches().is_err());
    }
}
