//! Bind mounts of the daemon's own directory, or of what it lies in.
//!
//! A container must not keep a mount alive that the daemon takes away: such a bind follows the host's mounts.

use std::path::Path;

use berth_api::container::HostConfig;

use super::mounts::{MountPlan, MountSource, clean};
use crate::Error;

/// Gives binds of the data root their propagation, and refuses those that ask for another, in Docker's words.
pub fn settle(plans: &mut [MountPlan], host: &HostConfig, root: &Path) -> Result<(), Error> {
    for plan in plans {
        let MountSource::Bind { path, .. } = &plan.source else { continue };
        if !path.starts_with(root) && !root.starts_with(path) {
            continue;
        }
        if !is_asked_for(plan, host) {
            plan.propagation = "rslave".into();
        } else if !matches!(plan.propagation.as_str(), "rslave" | "rshared") {
            return Err(Error::InvalidParameter(format!(
                "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is \
                 within the daemon root, daemon root: {root:?}, bind mount source: {path:?}, propagation: {:?}",
                plan.propagation
            )));
        }
    }
    Ok(())
}

/// Whether the user chose the propagation of a bind.
fn is_asked_for(plan: &MountPlan, host: &HostConfig) -> bool {
    let long = host.mounts.iter().flatten().any(|mount| {
        let options = mount.bind_options.as_ref();
        clean(&mount.target) == Path::new(&plan.destination)
            && options.is_some_and(|options| !options.propagation.is_empty())
    });
    long || plan.mode.split(',').any(|option| option == plan.propagation)
}

#[cfg(test)]
mod tests {
    use berth_api::container::{BindOptions, Config, Mount};

    use super::*;
    use crate::create::mounts::plan;

    fn settled(host: HostConfig) -> Result<String, String> {
        let mut plans = plan(&Config::default(), &host, || Ok("v".into())).unwrap();
        settle(&mut plans, &host, Path::new("/data/root")).map_err(|error| error.to_string())?;
        Ok(plans.remove(0).propagation)
    }

    fn bind(text: &str) -> Result<String, String> {
        settled(HostConfig { binds: Some(vec![text.into()]), ..Default::default() })
    }

    fn mount(source: &str, propagation: &str) -> Result<String, String> {
        let bind_options = Some(BindOptions { propagation: propagation.into(), ..Default::default() });
        let mount = Mount {
            kind: "bind".into(),
            source: source.into(),
            target: "/m/".into(),
            bind_options,
            ..Default::default()
        };
        settled(HostConfig { mounts: Some(vec![mount]), ..Default::default() })
    }

    #[test]
    fn binds_of_the_data_root_follow_the_hosts_mounts() {
        for source in ["/", "/data", "/data/root", "/data/root/containers"] {
            assert_eq!(bind(&format!("{source}:/m")).unwrap(), "rslave");
            assert_eq!(bind(&format!("{source}:/m:ro")).unwrap(), "rslave");
            assert_eq!(mount(source, "").unwrap(), "rslave");
            for asked in ["rslave", "rshared"] {
                assert_eq!(bind(&format!("{source}:/m:{asked}")).unwrap(), asked);
                assert_eq!(mount(source, asked).unwrap(), asked);
            }
            for asked in ["private", "rprivate", "slave", "shared"] {
                assert!(
                    bind(&format!("{source}:/m:{asked}")).unwrap_err().contains("within the daemon root")
                );
                assert!(mount(source, asked).unwrap_err().contains(&format!("propagation: \"{asked}\"")));
            }
        }
    }

    #[test]
    fn others_are_left_alone() {
        for source in ["/data/rooted", "/other"] {
            assert_eq!(bind(&format!("{source}:/m")).unwrap(), "rprivate");
            assert_eq!(mount(source, "private").unwrap(), "private");
        }
    }
}
