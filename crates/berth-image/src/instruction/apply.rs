//! What instructions make of an image's configuration.

use berth_oci::config::ContainerDefaults;
use serde_json::json;

use super::words::expand;
use super::{CommandLine, Instruction, Result, wrong};

/// What runs a line if the image names no shell.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Carries out `instructions` on `defaults`, in their order.
///
/// # Errors
/// Values that make no sense, such as a port that is none. `defaults` may be changed in part then.
pub fn apply(instructions: &[Instruction], defaults: &mut ContainerDefaults) -> Result<()> {
    let mut commanded = false;
    for instruction in instructions {
        let environment = defaults.env.clone();
        let value = |text: &str| expand(text, &environment);
        match instruction {
            Instruction::Cmd(line) => {
                defaults.cmd = Some(words(line, defaults));
                commanded = true;
            }
            Instruction::Entrypoint(line) => {
                // An empty one takes the image's away.
                defaults.entrypoint = Some(words(line, defaults)).filter(|words| !words.is_empty());
                if !commanded {
                    defaults.cmd = None;
                }
            }
            Instruction::Env(pairs) => {
                for (name, text) in pairs {
                    set_variable(&mut defaults.env, &value(name)?, &value(text)?);
                }
            }
            Instruction::Expose(ports) => {
                for port in ports {
                    for port in value(port)?.split_whitespace() {
                        defaults.exposed_ports.extend(exposed(port)?.map(|port| (port, json!({}))));
                    }
                }
            }
            Instruction::Healthcheck(check) => defaults.healthcheck = Some(check.clone()),
            Instruction::Label(pairs) => {
                for (name, text) in pairs {
                    defaults.labels.insert(value(name)?, value(text)?);
                }
            }
            Instruction::OnBuild(text) => defaults.on_build.get_or_insert_default().push(text.clone()),
            Instruction::StopSignal(name) => defaults.stop_signal = Some(value(name)?),
            Instruction::User(user) => defaults.user = value(user)?,
            Instruction::Volume(paths) => {
                for path in paths {
                    defaults.volumes.insert(value(path)?, json!({}));
                }
            }
            Instruction::Workdir(path) => {
                defaults.working_dir = directory(&defaults.working_dir, &value(path)?)?;
            }
        }
    }
    Ok(())
}

fn words(line: &CommandLine, defaults: &ContainerDefaults) -> Vec<String> {
    match line {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(text) if text.is_empty() => Vec::new(),
        CommandLine::Shell(text) => {
            let shell = defaults.shell.clone().unwrap_or_else(|| SHELL.map(str::to_owned).to_vec());
            shell.into_iter().chain([text.clone()]).collect()
        }
    }
}

fn set_variable(environment: &mut Vec<String>, name: &str, value: &str) {
    let variable = format!("{name}={value}");
    let is_it = |own: &&mut String| own.split_once('=').map_or(own.as_str(), |(own, _)| own) == name;
    match environment.iter_mut().find(is_it) {
        Some(own) => *own = variable,
        None => environment.push(variable),
    }
}

/// `80`, `80-90`, `80/udp`: each port with its protocol.
fn exposed(text: &str) -> Result<impl Iterator<Item = String>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return wrong(format!("invalid proto: {protocol}"));
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => {
            Ok((first..=last).map(move |port| format!("{port}/{protocol}")))
        }
        _ => wrong(format!("invalid containerPort: {text}")),
    }
}

/// A working directory: `path`, seen from `current` if it does not begin at the root.
fn directory(current: &str, path: &str) -> Result<String> {
    if path.is_empty() {
        return wrong("cannot normalize nothing");
    }
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{current}/{path}") };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::parse;

    fn applied(before: ContainerDefaults, text: &str) -> Result<ContainerDefaults, String> {
        let mut defaults = before;
        let instructions = parse(text).map_err(|error| error.to_string())?;
        apply(&instructions, &mut defaults).map_err(|error| error.to_string())?;
        Ok(defaults)
    }

    #[test]
    fn each_instruction_changes_its_part() {
        let before = ContainerDefaults {
            env: vec!["A=old".into(), "B=kept".into()],
            cmd: Some(vec!["old".into()]),
            working_dir: "/w".into(),
            ..ContainerDefaults::default()
        };
        let text = "ENTRYPOINT [\"/e\"]\nENV A=\"new $B\" C=$A\nEXPOSE 80 7000-7001/UDP\nLABEL x=\"1 2\" y='$A'\nUSER $B\n\
            VOLUME /v\nWORKDIR ../sub/./dir\nSTOPSIGNAL SIGUSR1\nONBUILD RUN x\nONBUILD RUN y\nHEALTHCHECK CMD [\"/h\"]";
        let after = applied(before, text).unwrap();
        assert_eq!((after.cmd, after.entrypoint), (None, Some(vec!["/e".to_owned()])));
        assert_eq!(after.env, ["A=new kept", "B=kept", "C=old"]);
        assert_eq!(after.exposed_ports.keys().collect::<Vec<_>>(), ["7000/udp", "7001/udp", "80/tcp"]);
        assert_eq!((after.labels["x"].as_str(), after.labels["y"].as_str()), ("1 2", "$A"));
        assert_eq!((after.user.as_str(), after.working_dir.as_str()), ("kept", "/sub/dir"));
        assert!(after.volumes.contains_key("/v"));
        assert_eq!(after.stop_signal.as_deref(), Some("SIGUSR1"));
        assert_eq!(after.on_build.unwrap(), ["RUN x", "RUN y"]);
        assert_eq!(after.healthcheck.unwrap().test, ["CMD", "/h"]);
    }

    #[test]
    fn an_entry_point_takes_an_older_command_away() {
        let line = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let before = || ContainerDefaults { cmd: line(&["old"]), ..ContainerDefaults::default() };
        let after = applied(before(), "CMD new\nENTRYPOINT /e").unwrap();
        assert_eq!(
            (after.cmd, after.entrypoint),
            (line(&["/bin/sh", "-c", "new"]), line(&["/bin/sh", "-c", "/e"]))
        );
        let shell = ContainerDefaults { shell: line(&["/bash", "-x"]), ..before() };
        assert_eq!(applied(shell, "CMD a b").unwrap().cmd, line(&["/bash", "-x", "a b"]));
        assert_eq!(applied(before(), "ENTRYPOINT []").unwrap().entrypoint, None);
    }

    #[test]
    fn senseless_values_are_refused() {
        for text in [
            "EXPOSE x",
            "EXPOSE 70000",
            "EXPOSE 9-1",
            "EXPOSE 80/ip",
            "EXPOSE +1",
            "WORKDIR \"\"",
            "ENV a='x",
        ] {
            assert!(applied(ContainerDefaults::default(), text).is_err(), "{text}");
        }
    }
}
