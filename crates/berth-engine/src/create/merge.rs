//! What an image says and what the user says become one configuration, by Docker's rules.

use berth_api::container::{Config, HealthConfig};
use berth_api::image::ImageConfig;

use crate::Error;

/// Completes `config` with what the image says. What the user said wins; maps and the environment are united.
pub fn merge(config: &mut Config, image: &ImageConfig) -> Result<(), Error> {
    inherit(&mut config.user, &image.user);
    inherit(&mut config.working_dir, &image.working_dir);
    inherit(&mut config.stop_signal, &image.stop_signal);
    unite(&mut config.exposed_ports, &image.exposed_ports);
    unite(&mut config.volumes, &image.volumes);
    // Clients send an empty set where they mean none.
    config.volumes.take_if(|volumes| volumes.is_empty());
    unite(&mut config.labels, &image.labels);
    environment(&mut config.env, image.env.as_deref().unwrap_or_default());
    command(config, image);
    health(&mut config.healthcheck, image.healthcheck.as_ref());
    if config.shell.as_ref().is_none_or(Vec::is_empty) {
        config.shell.clone_from(&image.shell);
    }
    // An entry point of one empty string removes the image's.
    if config.entrypoint.as_deref().is_some_and(|e| matches!(e, [one] if one.is_empty())) {
        config.entrypoint = None;
    }
    let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if is_empty(&config.entrypoint) && is_empty(&config.cmd) {
        return Err(Error::InvalidParameter("no command specified".into()));
    }
    Ok(())
}

/// The program and its arguments: the entry point followed by the command.
pub fn program(config: &Config) -> (String, Vec<String>) {
    let mut words =
        config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned().collect::<Vec<_>>();
    if words.is_empty() {
        return (String::new(), words);
    }
    let program = words.remove(0);
    (program, words)
}

fn inherit(mine: &mut String, image: &str) {
    if mine.is_empty() {
        mine.push_str(image);
    }
}

fn unite<V: Clone>(
    mine: &mut Option<std::collections::BTreeMap<String, V>>,
    image: &Option<std::collections::BTreeMap<String, V>>,
) {
    if let Some(image) = image {
        let mine = mine.get_or_insert_default();
        for (key, value) in image {
            mine.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn environment(mine: &mut Option<Vec<String>>, image: &[String]) {
    if image.is_empty() {
        return;
    }
    let mine = mine.get_or_insert_default();
    let own = mine.len();
    for variable in image {
        let key = variable_name(variable);
        if !mine[..own].iter().any(|m| variable_name(m) == key) {
            mine.push(variable.clone());
        }
    }
}

/// The part of `NAME=value` before the equals sign.
pub fn variable_name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn command(config: &mut Config, image: &ImageConfig) {
    let has_entrypoint = config.entrypoint.as_ref().is_some_and(|e| !e.is_empty());
    if has_entrypoint {
        return;
    }
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        config.cmd.clone_from(&image.cmd);
        config.args_escaped = image.args_escaped;
    }
    if config.entrypoint.is_none() {
        config.entrypoint.clone_from(&image.entrypoint);
    }
}

fn health(mine: &mut Option<HealthConfig>, image: Option<&HealthConfig>) {
    let Some(image) = image else { return };
    let Some(mine) = mine else {
        *mine = Some(image.clone());
        return;
    };
    if mine.test.as_ref().is_none_or(Vec::is_empty) {
        mine.test.clone_from(&image.test);
    }
    for (own, inherited) in [
        (&mut mine.interval, image.interval),
        (&mut mine.timeout, image.timeout),
        (&mut mine.start_period, image.start_period),
        (&mut mine.start_interval, image.start_interval),
        (&mut mine.retries, image.retries),
    ] {
        if *own == 0 {
            *own = inherited;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn list(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|w| (*w).to_owned()).collect())
    }

    fn merged(entrypoint: Option<&[&str]>, cmd: Option<&[&str]>) -> Result<Vec<String>, String> {
        let image =
            ImageConfig { entrypoint: list(&["/entry"]), cmd: list(&["default"]), ..Default::default() };
        let mut config =
            Config { entrypoint: entrypoint.and_then(list), cmd: cmd.and_then(list), ..Default::default() };
        merge(&mut config, &image).map_err(|e| e.to_string())?;
        let (program, mut words) = program(&config);
        words.insert(0, program);
        Ok(words)
    }

    #[test]
    fn entry_point_and_command_follow_dockers_table() {
        assert_eq!(merged(None, None).unwrap(), ["/entry", "default"]);
        assert_eq!(merged(None, Some(&["mine"])).unwrap(), ["/entry", "mine"]);
        assert_eq!(merged(Some(&["/mine"]), None).unwrap(), ["/mine"], "the image's command goes too");
        assert_eq!(merged(Some(&["/mine"]), Some(&["a"])).unwrap(), ["/mine", "a"]);
        assert_eq!(merged(Some(&[""]), Some(&["a"])).unwrap(), ["a"]);
        assert_eq!(merged(Some(&[""]), None).unwrap_err(), "no command specified");
        assert_eq!(
            merged(Some(&[]), None).unwrap(),
            ["default"],
            "an empty list resets the entry point only"
        );
    }

    #[test]
    fn an_image_without_a_command_needs_one() {
        let error = merge(&mut Config::default(), &ImageConfig::default()).unwrap_err();
        assert_eq!(error.to_string(), "no command specified");
        assert_eq!(error.kind(), crate::ErrorKind::InvalidParameter);
    }

    #[test]
    fn the_environment_keeps_the_users_values_first() {
        let image = ImageConfig {
            env: list(&["PATH=/bin", "A=image", "B=image"]),
            cmd: list(&["x"]),
            ..Default::default()
        };
        let mut config = Config { env: list(&["A=mine", "C"]), ..Default::default() };
        merge(&mut config, &image).unwrap();
        assert_eq!(config.env, list(&["A=mine", "C", "PATH=/bin", "B=image"]));
    }

    #[test]
    fn labels_ports_and_volumes_are_united() {
        let map = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>())
        };
        let set = |keys: &[&str]| {
            Some(keys.iter().map(|k| ((*k).to_owned(), berth_api::Empty {})).collect::<BTreeMap<_, _>>())
        };
        let image = ImageConfig {
            cmd: list(&["x"]),
            labels: map(&[("a", "image"), ("b", "image")]),
            exposed_ports: set(&["80/tcp"]),
            volumes: set(&["/data"]),
            ..Default::default()
        };
        let mut config =
            Config { labels: map(&[("a", "mine")]), exposed_ports: set(&["90/udp"]), ..Default::default() };
        merge(&mut config, &image).unwrap();
        assert_eq!(config.labels, map(&[("a", "mine"), ("b", "image")]));
        assert_eq!(config.exposed_ports, set(&["80/tcp", "90/udp"]));
        assert_eq!(config.volumes, set(&["/data"]));
    }

    #[test]
    fn a_health_check_is_completed() {
        let image = ImageConfig {
            cmd: list(&["x"]),
            healthcheck: Some(HealthConfig {
                test: list(&["CMD", "ok"]),
                interval: 5,
                retries: 3,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut config = Config {
            healthcheck: Some(HealthConfig { interval: 9, ..Default::default() }),
            ..Default::default()
        };
        merge(&mut config, &image).unwrap();
        let health = config.healthcheck.unwrap();
        assert_eq!((health.interval, health.retries), (9, 3));
        assert_eq!(health.test, list(&["CMD", "ok"]));
    }
}
