//! Image configurations (OCI image specification, config.md, and Docker's additions to it).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::{null_as_default, read_object};
use crate::{Digest, LAYER_LIMIT, Platform};

/// An image configuration as read. It is never written back: its digest is the image's ID, so its bytes are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Architecture, such as `amd64`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub architecture: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Operating system.
    #[serde(default, deserialize_with = "null_as_default")]
    pub os: String,
    /// Version of the operating system.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What containers of this image run by default.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ContainerDefaults,
    /// The layers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rootfs: RootFs,
    /// How each layer came to be, lowest first; some entries made none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub history: Vec<History>,
    /// Comment of a classic commit.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Defaults for containers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerDefaults {
    /// `user[:group]`, names or numbers.
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    /// Ports that the image serves, such as `80/tcp`.
    #[serde(deserialize_with = "null_as_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Environment, `NAME=value`.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Program and first arguments; not replaced by a command given to `run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Default command, or arguments of the entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Directories that become volumes.
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Working directory.
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that `stop` sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Docker: seconds before `stop` kills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Docker: how to see whether the container is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker: instructions for images built from this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Docker: the shell of the shell forms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Docker, Windows: the command line is one string.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
}

/// How to see whether a container is well (Docker's image specification 1.2). Durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", …]`; empty inherits.
    #[serde(deserialize_with = "null_as_default")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    /// Time before a check counts as hung.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Time in which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
    /// Time between checks in the start period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<i64>,
    /// Failures in a row before the container is unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(default, rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

/// How a layer came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Comment.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON of a configuration.
    #[error("malformed image configuration: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Too many layers for any overlay mount.
    #[error("image has {0} layers; at most {LAYER_LIMIT} can be mounted")]
    TooManyLayers(usize),
}

impl ImageConfig {
    /// Reads a configuration.
    pub fn read(bytes: &[u8]) -> Result<ImageConfig, ConfigError> {
        let config: ImageConfig = read_object(bytes)?;
        match config.rootfs.diff_ids.len() {
            count if count > LAYER_LIMIT => Err(ConfigError::TooManyLayers(count)),
            _ => Ok(config),
        }
    }

    /// The platform that the image is made for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone().filter(|v| !v.is_empty()),
            os_version: self.os_version.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_additions_are_kept_and_nulls_are_nothing() {
        let text = r#"{"architecture":"amd64","os":"linux","author":null,"history":null,"unknown":{},
            "config":{"Env":null,"Cmd":null,"Entrypoint":["/x"],"Labels":null,"Volumes":{"/v":{}},"OnBuild":["RUN x"],
            "Shell":["/bin/bash","-c"],"Healthcheck":{"Test":["CMD","true"],"Retries":3},"ArgsEscaped":true},
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::read(text.as_bytes()).unwrap();
        assert_eq!(config.config.entrypoint.as_deref(), Some(&["/x".to_string()][..]));
        assert_eq!(config.config.cmd, None);
        assert_eq!(config.config.on_build.as_deref().unwrap(), ["RUN x"]);
        assert_eq!(config.config.shell.as_deref().unwrap()[0], "/bin/bash");
        assert_eq!(config.config.healthcheck.as_ref().unwrap().retries, Some(3));
        assert!(config.config.volumes.contains_key("/v") && config.config.args_escaped);
        assert_eq!(config.platform_text(), "linux/amd64");
    }

    impl ImageConfig {
        fn platform_text(&self) -> String {
            Platform { architecture: self.architecture.clone(), os: self.os.clone(), ..Platform::default() }
                .to_string()
        }
    }

    #[test]
    fn a_null_config_is_the_default() {
        let config = ImageConfig::read(br#"{"config":null,"rootfs":{"diff_ids":[]}}"#).unwrap();
        assert_eq!(config.config, ContainerDefaults::default());
    }

    #[test]
    fn nonsense_is_malformed() {
        assert!(matches!(ImageConfig::read(b"[]"), Err(ConfigError::Malformed(_))));
        assert!(matches!(
            ImageConfig::read(br#"{"rootfs":{"diff_ids":["x"]}}"#),
            Err(ConfigError::Malformed(_))
        ));
    }
}
