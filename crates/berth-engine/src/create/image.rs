//! The image's part of a container's configuration.

use berth_api::container::HealthConfig;
use berth_api::image::ImageConfig;
use berth_api::{Empty, Set};
use berth_oci::config::Healthcheck;

/// What an image gives to its containers, as the API has it: what is empty is left out.
pub fn image_defaults(image: &berth_oci::ImageConfig) -> ImageConfig {
    let given = &image.config;
    let set = |map: &std::collections::BTreeMap<String, serde_json::Value>| {
        let set: Set = map.keys().map(|key| (key.clone(), Empty {})).collect();
        Some(set).filter(|set| !set.is_empty())
    };
    ImageConfig {
        user: given.user.clone(),
        exposed_ports: set(&given.exposed_ports),
        env: Some(given.env.clone()).filter(|env| !env.is_empty()),
        entrypoint: given.entrypoint.clone(),
        cmd: given.cmd.clone(),
        volumes: set(&given.volumes),
        working_dir: given.working_dir.clone(),
        labels: Some(given.labels.clone()).filter(|labels| !labels.is_empty()),
        stop_signal: given.stop_signal.clone().unwrap_or_default(),
        args_escaped: given.args_escaped,
        healthcheck: given.healthcheck.as_ref().map(health),
        on_build: given.on_build.clone(),
        shell: given.shell.clone(),
    }
}

fn health(check: &Healthcheck) -> HealthConfig {
    HealthConfig {
        test: Some(check.test.clone()).filter(|test| !test.is_empty()),
        interval: check.interval.unwrap_or_default(),
        timeout: check.timeout.unwrap_or_default(),
        start_period: check.start_period.unwrap_or_default(),
        start_interval: check.start_interval.unwrap_or_default(),
        retries: check.retries.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_image_says_is_kept_and_what_is_empty_left_out() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":["x"],"Volumes":{"/data":{}},
            "ExposedPorts":null,"Labels":{},"StopSignal":"SIGINT","Healthcheck":{"Test":["CMD","true"],"Interval":5}},
            "rootfs":{"type":"layers","diff_ids":[]}}"#;
        let image: berth_oci::ImageConfig = serde_json::from_str(text).unwrap();
        let found = image_defaults(&image);
        assert_eq!(found.env, Some(vec!["A=b".to_owned()]));
        assert!(found.volumes.unwrap().contains_key("/data"));
        assert_eq!((found.exposed_ports, found.labels, found.stop_signal.as_str()), (None, None, "SIGINT"));
        assert_eq!(found.healthcheck.unwrap().interval, 5);
    }
}
