//! What devices by name add to a composed configuration.

use std::path::{Path, PathBuf};

use berth_runtime::launch::describe;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, MountBuilder, Spec};

use super::{Composed, devices, invalid, spec_error};
use crate::Error;
use crate::cdi::{Edits, Hook, Mount, Node};
use crate::create::merge::variable_name;

/// A path of the host that is mounted: its index among the mounts, the path, and whether what is mounted below comes along.
pub type HostPath = (usize, PathBuf, bool);

/// Applies edits in their order.
pub fn apply(composed: &mut Composed<'_>, edits: &[Edits]) -> Result<(), Error> {
    for edits in edits {
        environment(&mut composed.spec, edits);
        for node in &edits.device_nodes {
            device(&mut composed.spec, node)?;
        }
        for mount in &edits.mounts {
            let found = bind(&mut composed.spec, mount)?;
            composed.paths.extend(found);
        }
        for hook in &edits.hooks {
            add_hook(&mut composed.spec, hook)?;
        }
    }
    Ok(())
}

fn environment(spec: &mut Spec, edits: &Edits) {
    let Some(process) = spec.process_mut() else { return };
    let env = process.env_mut().get_or_insert_default();
    for variable in &edits.env {
        match env.iter_mut().find(|known| variable_name(known) == variable_name(variable)) {
            Some(known) => known.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    if !edits.additional_gids.is_empty() {
        let mut user = process.user().clone();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        // Root's own group is the one that a vendor cannot mean.
        groups.extend(edits.additional_gids.iter().filter(|gid| **gid != 0));
        groups.sort_unstable();
        groups.dedup();
        user.set_additional_gids(Some(groups));
        process.set_user(user);
    }
}

fn device(spec: &mut Spec, node: &Node) -> Result<(), Error> {
    let access = node.permissions.as_deref().unwrap_or("rwm");
    if !devices::is_access(access) {
        return Err(invalid(format!("invalid device mode: {access}")));
    }
    let made = host_node(node)?;
    let rule = devices::rule(made.typ(), Some(made.major()), Some(made.minor()), access)?;
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let nodes = linux.devices_mut().get_or_insert_default();
    nodes.retain(|known| known.path() != made.path());
    nodes.push(made);
    if let Some(resources) = linux.resources_mut() {
        resources.devices_mut().get_or_insert_default().push(rule);
    }
    Ok(())
}

/// The node as the host has it, with what the vendor says otherwise.
fn host_node(node: &Node) -> Result<LinuxDevice, Error> {
    let source = node.host_path.as_deref().unwrap_or(&node.path);
    let on_host = std::fs::metadata(source);
    let mut made = match (&on_host, node.major, node.kind.as_deref()) {
        (Ok(status), ..) => devices::node(node.path.clone(), status),
        (Err(_), Some(_), Some(_)) => Some(LinuxDevice::default()),
        (Err(error), ..) => {
            let why = format!("failed to stat CDI host device \"{}\": {}", source.display(), describe(error));
            return Err(invalid(format!("CDI device injection failed: {why}")));
        }
    }
    .ok_or_else(|| {
        let text = format!("\"{}\" is not a device node", source.display());
        invalid(format!("CDI device injection failed: {text}"))
    })?;
    made.set_path(node.path.clone());
    match node.kind.as_deref() {
        None | Some("") => {}
        Some("b") => _ = made.set_typ(LinuxDeviceType::B),
        Some("c" | "u") => _ = made.set_typ(LinuxDeviceType::C),
        Some(other) => {
            return Err(invalid(format!("CDI device injection failed: invalid device type \"{other}\"")));
        }
    }
    // A major number of 0 is how some say that it is the host's.
    if let Some(major) = node.major.filter(|major| *major != 0) {
        made.set_major(major).set_minor(node.minor.unwrap_or_default());
    }
    if let Some(mode) = node.file_mode {
        made.set_file_mode(Some(mode & 0o7777));
    }
    if node.uid.is_some() {
        made.set_uid(node.uid);
    }
    if node.gid.is_some() {
        made.set_gid(node.gid);
    }
    Ok(made)
}

fn bind(spec: &mut Spec, mount: &Mount) -> Result<Option<HostPath>, Error> {
    if !mount.container_path.is_absolute() {
        let path = mount.container_path.display();
        return Err(invalid(format!("CDI device injection failed: mount path {path} is not absolute")));
    }
    let kind = mount.kind.as_deref().unwrap_or("bind");
    let mut options = mount.options.clone();
    let has = |options: &[String], name: &str| options.iter().any(|option| option == name);
    let binds = kind == "bind" || kind == "none" || has(&options, "bind") || has(&options, "rbind");
    if binds && !has(&options, "bind") && !has(&options, "rbind") {
        options.push("rbind".into());
    }
    let recursive = has(&options, "rbind");
    let built = MountBuilder::default()
        .destination(&mount.container_path)
        .source(&mount.host_path)
        .typ(if binds { "bind" } else { kind })
        .options(options)
        .build()
        .map_err(spec_error)?;
    let mounts = spec.mounts_mut().get_or_insert_default();
    mounts.push(built);
    Ok(binds.then(|| (mounts.len() - 1, Path::to_owned(&mount.host_path), recursive)))
}

/// Adds a hook. Those that run in the container's namespaces are all that vendors' tools write; of the others, the engine has no
/// place where they could run.
fn add_hook(spec: &mut Spec, hook: &Hook) -> Result<(), Error> {
    let Hook { hook_name, path, args, env, timeout } = hook;
    let refused = |why: &str| {
        let path = path.display();
        Err(invalid(format!("CDI device injection failed: hook {hook_name} {path}: {why}")))
    };
    if !path.is_absolute() {
        return refused("the path is not absolute");
    }
    if timeout.is_some_and(|seconds| seconds <= 0) {
        return refused("the timeout is not positive");
    }
    let mut made = oci_spec::runtime::Hook::default();
    made.set_path(path.clone())
        .set_args(Some(args.clone()).filter(|args| !args.is_empty()))
        .set_env(Some(env.clone()).filter(|env| !env.is_empty()))
        .set_timeout(*timeout);
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    let list = match hook_name.as_str() {
        "createContainer" => hooks.create_container_mut(),
        "startContainer" => hooks.start_container_mut(),
        _ => return refused("only createContainer and startContainer are supported"),
    };
    list.get_or_insert_default().push(made);
    spec.set_hooks(Some(hooks));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::tests::definition;
    use crate::spec::{Joined, compose};

    fn applied(json: &str) -> Result<(Spec, Vec<HostPath>), String> {
        let definition = definition();
        let mut composed = compose(&definition, Path::new("/berth/x"), &Joined::default()).unwrap();
        let edits: Edits = serde_json::from_str(json).unwrap();
        apply(&mut composed, &[edits]).map_err(|error| error.to_string())?;
        Ok((composed.spec, composed.paths))
    }

    #[test]
    fn variables_groups_nodes_and_mounts() {
        let (spec, paths) = applied(
            r#"{"env":["PATH=/x","NEW=1"],"additionalGids":[0,7],"deviceNodes":[{"path":"/dev/a","hostPath":"/dev/null",
            "permissions":"r","fileMode":384}],"mounts":[{"hostPath":"/etc","containerPath":"/b","options":["ro"]}]}"#,
        )
        .unwrap();
        let process = spec.process().as_ref().unwrap();
        let env = process.env().as_ref().unwrap();
        assert!(env.contains(&"PATH=/x".to_owned()) && env.contains(&"NEW=1".to_owned()));
        assert_eq!(env.iter().filter(|variable| variable.starts_with("PATH=")).count(), 1);
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[7][..]));
        let linux = spec.linux().as_ref().unwrap();
        let node = linux.devices().as_ref().unwrap().last().unwrap();
        assert_eq!((node.major(), node.minor(), node.file_mode()), (1, 3, Some(0o600)));
        let rule = linux.resources().as_ref().unwrap().devices().as_ref().unwrap().last().unwrap();
        assert_eq!((rule.major(), rule.access().as_deref()), (Some(1), Some("r")));
        let mounts = spec.mounts().as_ref().unwrap();
        assert_eq!(paths, [(mounts.len() - 1, PathBuf::from("/etc"), true)]);
    }

    #[test]
    fn hooks_of_the_containers_namespaces() {
        let (spec, _) = applied(
            r#"{"hooks":[{"hookName":"createContainer","path":"/a","args":["a","b"],"env":["X=1"],"timeout":3},
            {"hookName":"startContainer","path":"/c"},{"hookName":"createContainer","path":"/d"}]}"#,
        )
        .unwrap();
        let hooks = spec.hooks().as_ref().unwrap();
        let [first, second] = &hooks.create_container().as_ref().unwrap()[..] else { panic!("{hooks:?}") };
        assert_eq!((first.path().as_path(), first.timeout()), (Path::new("/a"), Some(3)));
        assert_eq!(first.args().as_ref().unwrap(), &["a", "b"]);
        assert_eq!(first.env().as_ref().unwrap(), &["X=1"]);
        assert_eq!((second.path().as_path(), second.args()), (Path::new("/d"), &None));
        assert_eq!(hooks.start_container().as_ref().unwrap().len(), 1);
        for (bad, why) in [
            (r#"{"hookName":"createRuntime","path":"/a"}"#, "only createContainer"),
            (r#"{"hookName":"createContainer","path":"a"}"#, "not absolute"),
            (r#"{"hookName":"createContainer","path":"/a","timeout":0}"#, "not positive"),
        ] {
            let error = applied(&format!(r#"{{"hooks":[{bad}]}}"#)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let absent = applied(r#"{"deviceNodes":[{"path":"/dev/not-there"}]}"#).unwrap_err();
        assert!(absent.contains("failed to stat CDI host device \"/dev/not-there\""), "{absent}");
        assert!(applied(r#"{"deviceNodes":[{"path":"/etc/passwd"}]}"#).unwrap_err().contains("not a device"));
        assert!(applied(r#"{"mounts":[{"hostPath":"/etc","containerPath":"b"}]}"#).is_err());
        let given = applied(r#"{"deviceNodes":[{"path":"/dev/not-there","type":"c","major":5,"minor":6}]}"#);
        let (spec, _) = given.unwrap();
        let node = spec.linux().as_ref().unwrap().devices().as_ref().unwrap().last().unwrap().clone();
        assert_eq!((node.typ(), node.major(), node.minor()), (LinuxDeviceType::C, 5, 6));
    }
}
