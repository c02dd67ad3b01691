//! Holds the commands and flags against Docker's, which `docker.txt` lists.

use std::any::TypeId;

use clap::{Arg, ArgAction, Command};

/// What Docker's client has.
const DOCKER: &str = include_str!("docker.txt");

/// Flags that differ, and why.
const DIFFERENT: [(&str, &str, &str); 5] = [
    ("docker", "host", "a second one is told apart, and refused in Docker's older words"),
    ("container commit", "pause", "it can be turned off as in older clients, too"),
    ("commit", "pause", "it can be turned off as in older clients, too"),
    ("context create", "docker", "its pairs are taken apart when flags are read"),
    ("context update", "docker", "its pairs are taken apart when flags are read"),
];

struct Flag {
    letter: Option<char>,
    name: &'static str,
    kind: &'static str,
    default: &'static str,
}

fn docker() -> Vec<(Vec<&'static str>, Vec<Flag>)> {
    let mut commands: Vec<(Vec<&str>, Vec<Flag>)> = Vec::new();
    for line in DOCKER.lines().filter(|line| !line.starts_with('#')) {
        let Some(flag) = line.strip_prefix("  -") else {
            commands.push((line.split(", ").collect(), Vec::new()));
            continue;
        };
        let mut words = flag.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let letter = next().chars().next().filter(|letter| *letter != '-');
        let flag = Flag { letter, name: next(), kind: next(), default: next() };
        commands.last_mut().unwrap().1.push(flag);
    }
    commands
}

fn find<'a>(root: &'a Command, path: &str) -> Option<&'a Command> {
    if path == "docker" {
        return Some(root);
    }
    path.split(' ').try_fold(root, |command, name| command.find_subcommand(name))
}

/// How a flag differs from Docker's.
fn difference(arg: &Arg, flag: &Flag) -> Option<String> {
    if arg.get_short() != flag.letter {
        return Some(format!("letter {:?} for {:?}", arg.get_short(), flag.letter));
    }
    let switch = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    let value = arg.get_value_parser().type_id();
    let (switches, repeats, held) = match flag.kind {
        "bool" => (true, false, TypeId::of::<bool>()),
        "int" | "int64" | "bytes" | "decimal" | "duration" => (false, false, TypeId::of::<i64>()),
        "uint16" => (false, false, TypeId::of::<u16>()),
        "uint64" => (false, false, TypeId::of::<u64>()),
        "string" | "ip" => (false, false, TypeId::of::<String>()),
        "filter" => (false, true, TypeId::of::<(String, String)>()),
        _ => (false, true, TypeId::of::<String>()),
    };
    if switch != switches || matches!(arg.get_action(), ArgAction::Append) != repeats {
        return Some(format!("it is no {}", flag.kind));
    }
    if value != held {
        return Some(format!("{value:?} is not what a {} becomes", flag.kind));
    }
    let default = arg.get_default_values().first().and_then(|value| value.to_str()).unwrap_or_default();
    let default = if default == "false" { "" } else { default };
    (default != flag.default).then(|| format!("default {default:?} for {:?}", flag.default))
}

#[test]
fn commands_and_flags_are_dockers() {
    let mut root = crate::command_line();
    root.build();
    let mut wrong = Vec::new();
    for (names, flags) in docker() {
        for name in names {
            let Some(command) = find(&root, name) else {
                wrong.push(format!("{name}: no such command"));
                continue;
            };
            for flag in flags.iter().filter(|flag| flag.name != "help") {
                let is_it = |arg: &&Arg| {
                    arg.get_long() == Some(flag.name)
                        || arg.get_all_aliases().is_some_and(|names| names.contains(&flag.name))
                };
                let told = match command.get_arguments().find(is_it) {
                    None => Some(format!("there is none ({} {:?})", flag.kind, flag.letter)),
                    Some(arg) => difference(arg, flag),
                };
                let known = DIFFERENT.iter().any(|(command, of, _)| *command == name && *of == flag.name);
                match told {
                    Some(told) if !known => wrong.push(format!("{name} --{}: {told}", flag.name)),
                    None if known => wrong.push(format!("{name} --{} is no longer different", flag.name)),
                    _ => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
