//! Device rules: reduced to a default and its exceptions, then either lines for version 1's files or an eBPF
//! program for version 2.

mod program;
mod rules;

use std::io::Write as _;
use std::os::fd::AsFd as _;

use berth_sys::bpf;
use oci_spec::runtime::LinuxDeviceCgroup;

use super::directory::Directory;
use super::error::{Error, Result};
use super::layout::Version;
use rules::Policy;

/// Makes `rules` the device rules of the cgroup `directory`.
pub(super) fn apply(directory: &Directory, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let policy = Policy::new(rules)?;
    match directory.version {
        Version::V1 => write_lists(directory, &policy),
        Version::V2 => attach(directory, &policy),
    }
}

/// Version 1: first the default, which drops all exceptions, then one write for each exception.
fn write_lists(directory: &Directory, policy: &Policy) -> Result<()> {
    let (default, exceptions) =
        if policy.allow { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
    directory.write(default, "a")?;
    if policy.exceptions.is_empty() {
        return Ok(());
    }
    let mut file = directory.open_write(exceptions)?;
    for exception in &policy.exceptions {
        let line = exception.to_string();
        file.write_all(line.as_bytes()).map_err(|source| Error::Write {
            path: directory.file(exceptions),
            value: line,
            source,
        })?;
    }
    Ok(())
}

/// Version 2: the new program takes the place of the one that is there, so that no moment has no rules.
fn attach(directory: &Directory, policy: &Policy) -> Result<()> {
    let failed = |action| move |source| Error::DeviceFilter { action, path: directory.path.clone(), source };
    let cgroup = directory.open()?;
    let old = bpf::device_programs(cgroup.as_fd()).map_err(failed("query"))?;
    if policy.allow && policy.exceptions.is_empty() && old.is_empty() {
        return Ok(());
    }
    let program = bpf::load_device_program(&program::assemble(policy)).map_err(failed("load"))?;
    let replaced = match old.as_slice() {
        [only] => Some(only.as_fd()),
        _ => None,
    };
    bpf::attach_device_program(cgroup.as_fd(), program.as_fd(), replaced).map_err(failed("attach"))?;
    if replaced.is_none() {
        for surplus in &old {
            bpf::detach_device_program(cgroup.as_fd(), surplus.as_fd()).map_err(failed("detach from"))?;
        }
    }
    Ok(())
}
