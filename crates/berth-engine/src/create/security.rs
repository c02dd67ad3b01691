//! `--security-opt`, in Docker's notation.

use berth_api::container::HostConfig;

use crate::Error;

/// What a container's security options say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SecurityOptions {
    /// No set-user-ID program gains privileges.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: SeccompChoice,
    /// An AppArmor profile by name.
    pub apparmor: Option<String>,
    /// No masked or read-only paths under `/proc` and `/sys`.
    pub unconfined_paths: bool,
    /// Whether `/sys/fs/cgroup` can be written; `None` leaves it to `--privileged`.
    pub writable_cgroups: Option<bool>,
}

/// Which system call filter applies.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum SeccompChoice {
    /// The default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// Docker's JSON of a profile.
    Profile(String),
}

impl SecurityOptions {
    /// Reads the options of a request.
    pub fn parse(host: &HostConfig) -> Result<SecurityOptions, Error> {
        let mut options = SecurityOptions::default();
        for text in host.security_opt.iter().flatten() {
            options.add(text)?;
        }
        Ok(options)
    }

    fn add(&mut self, text: &str) -> Result<(), Error> {
        let invalid = |n: u8| Error::InvalidParameter(format!("invalid --security-opt {n}: \"{text}\""));
        let boolean = |value: &str| go_boolean(value).ok_or_else(|| invalid(2));
        match text {
            "no-new-privileges" => {
                self.no_new_privileges = true;
                return Ok(());
            }
            "writable-cgroups" => {
                self.writable_cgroups = Some(true);
                return Ok(());
            }
            "disable" => return Ok(()),
            "systempaths=unconfined" => {
                self.unconfined_paths = true;
                return Ok(());
            }
            _ => {}
        }
        // The colon is Docker's older separator.
        let (key, value) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(|| invalid(1))?;
        match key {
            "no-new-privileges" => self.no_new_privileges = boolean(value)?,
            "writable-cgroups" => self.writable_cgroups = Some(boolean(value)?),
            "seccomp" => {
                self.seccomp = match value {
                    "unconfined" => SeccompChoice::Unconfined,
                    "builtin" => SeccompChoice::Default,
                    profile => {
                        serde_json::from_str::<serde_json::Value>(profile).map_err(|error| {
                            Error::InvalidParameter(format!("Decoding seccomp profile failed: {error}"))
                        })?;
                        SeccompChoice::Profile(profile.to_owned())
                    }
                }
            }
            "apparmor" => self.apparmor = Some(value.to_owned()),
            // SELinux labels mean nothing where no policy is loaded.
            "label" => {}
            _ => return Err(invalid(2)),
        }
        Ok(())
    }
}

/// A boolean as Go's `strconv.ParseBool` reads it.
fn go_boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &[&str]) -> Result<SecurityOptions, Error> {
        let security_opt = Some(list.iter().map(|o| (*o).to_owned()).collect());
        SecurityOptions::parse(&HostConfig { security_opt, ..Default::default() })
    }

    #[test]
    fn options_are_read() {
        assert_eq!(parse(&[]).unwrap(), SecurityOptions::default());
        assert!(parse(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(parse(&["no-new-privileges=true"]).unwrap().no_new_privileges);
        assert!(!parse(&["no-new-privileges:false"]).unwrap().no_new_privileges);
        assert_eq!(parse(&["seccomp=unconfined"]).unwrap().seccomp, SeccompChoice::Unconfined);
        assert_eq!(parse(&["seccomp:unconfined"]).unwrap().seccomp, SeccompChoice::Unconfined);
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
        let parsed = parse(&[&format!("seccomp={profile}")]).unwrap();
        assert_eq!(parsed.seccomp, SeccompChoice::Profile(profile.into()));
        assert_eq!(
            parse(&["apparmor=unconfined", "label=disable"]).unwrap().apparmor.as_deref(),
            Some("unconfined")
        );
        assert!(parse(&["systempaths=unconfined"]).unwrap().unconfined_paths);
        assert_eq!(parse(&["writable-cgroups"]).unwrap().writable_cgroups, Some(true));
        assert_eq!(parse(&["writable-cgroups=0"]).unwrap().writable_cgroups, Some(false));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in
            ["", "what", "what=ever", "no-new-privileges=maybe", "writable-cgroups=perhaps", "seccomp={"]
        {
            assert!(matches!(parse(&[bad]), Err(Error::InvalidParameter(_))), "{bad}");
        }
    }
}
