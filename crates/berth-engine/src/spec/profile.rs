//! Docker's JSON of a system call filter, resolved for this host and a container's capabilities.
//!
//! The format is that of `--security-opt seccomp=<file>`: rules that may depend on capabilities, architectures
//! and the kernel's version, which the OCI runtime's format does not know.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxSeccomp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<Architecture>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<BTreeMap<String, Value>>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: String,
}

/// What a profile is resolved against.
pub struct Host<'a> {
    /// Architecture in Go's words, such as `amd64`.
    pub architecture: &'a str,
    /// Release of the kernel, such as `6.18.0-1`.
    pub kernel: &'a str,
    /// Names of the container's capabilities, with `CAP_`.
    pub capabilities: &'a [String],
}

/// Resolves a profile; the text is JSON in Docker's or in the OCI runtime's format.
pub fn resolve(text: &str, host: &Host<'_>) -> Result<LinuxSeccomp, Error> {
    let refuse = |why: String| Error::InvalidParameter(format!("Decoding seccomp profile failed: {why}"));
    let profile: Profile = serde_json::from_str(text).map_err(|e| refuse(e.to_string()))?;
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(refuse(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'".into(),
        ));
    }
    let mut architectures = profile.architectures;
    let native = native_architecture(host.architecture);
    for entry in profile.arch_map.into_iter().filter(|entry| entry.architecture == native) {
        architectures.push(entry.architecture);
        architectures.extend(entry.sub_architectures.unwrap_or_default());
    }
    let mut rules = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        if !rule.name.is_empty() && !rule.names.is_empty() {
            return Err(refuse(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
                    .into(),
            ));
        }
        if rule.applies(host) {
            rules.push(rule.into_oci());
        }
    }
    let mut found = json!({ "defaultAction": profile.default_action, "syscalls": rules });
    if let Some(errno) = profile.default_errno_ret {
        found["defaultErrnoRet"] = errno.into();
    }
    if !architectures.is_empty() {
        found["architectures"] = architectures.into();
    }
    if !profile.flags.is_empty() {
        found["flags"] = profile.flags.into();
    }
    serde_json::from_value(found).map_err(|e| refuse(e.to_string()))
}

impl Rule {
    fn applies(&self, host: &Host<'_>) -> bool {
        let has = |list: &[String], one: &str| list.iter().any(|l| l == one);
        let included = (self.includes.arches.is_empty() || has(&self.includes.arches, host.architecture))
            && self.includes.caps.iter().all(|cap| has(host.capabilities, cap))
            && (self.includes.min_kernel.is_empty() || at_least(host.kernel, &self.includes.min_kernel));
        let excluded = has(&self.excludes.arches, host.architecture)
            || self.excludes.caps.iter().any(|cap| has(host.capabilities, cap))
            || (!self.excludes.min_kernel.is_empty() && at_least(host.kernel, &self.excludes.min_kernel));
        included && !excluded
    }

    fn into_oci(self) -> Value {
        let names = if self.name.is_empty() { self.names } else { vec![self.name] };
        let mut rule = json!({ "names": names, "action": self.action });
        if let Some(errno) = self.errno_ret {
            rule["errnoRet"] = errno.into();
        }
        if let Some(args) = self.args.filter(|args| !args.is_empty()) {
            rule["args"] = json!(args);
        }
        rule
    }
}

/// Go's architecture in libseccomp's words.
fn native_architecture(go: &str) -> &'static str {
    match go {
        "amd64" => "SCMP_ARCH_X86_64",
        "arm64" => "SCMP_ARCH_AARCH64",
        "386" => "SCMP_ARCH_X86",
        "arm" => "SCMP_ARCH_ARM",
        "riscv64" => "SCMP_ARCH_RISCV64",
        "s390x" => "SCMP_ARCH_S390X",
        "ppc64le" => "SCMP_ARCH_PPC64LE",
        _ => "",
    }
}

/// Whether a kernel release is at least `major.minor`.
pub(crate) fn at_least(release: &str, minimum: &str) -> bool {
    version(release).zip(version(minimum)).is_some_and(|(have, need)| have >= need)
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host<'static> = Host { architecture: "amd64", kernel: "6.18.1-foo", capabilities: &[] };

    fn names(profile: &str, host: &Host<'_>) -> Vec<String> {
        let found = resolve(profile, host).unwrap();
        found.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn rules_depend_on_capabilities_architecture_and_kernel() {
        let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"syscalls":[
            {"names":["always"],"action":"SCMP_ACT_ALLOW"},
            {"names":["admin"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["humble"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["arm"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}},
            {"names":["new"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
            {"names":["newer"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"7.0"}}]}"#;
        assert_eq!(names(profile, &HOST), ["always", "humble", "new"]);
        let admin = ["CAP_SYS_ADMIN".to_owned()];
        assert_eq!(names(profile, &Host { capabilities: &admin, ..HOST }), ["always", "admin", "new"]);
    }

    #[test]
    fn the_native_entry_of_the_architecture_map_is_taken() {
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[
            {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]},
            {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}]}"#;
        let found = resolve(profile, &HOST).unwrap();
        assert_eq!(found.architectures().as_ref().unwrap().len(), 3);
    }

    #[test]
    fn arguments_and_single_names_are_kept() {
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"name":"clone","action":"SCMP_ACT_ERRNO","errnoRet":38,
             "args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
        let found = resolve(profile, &HOST).unwrap();
        let rule = &found.syscalls().as_ref().unwrap()[0];
        assert_eq!(rule.names(), &["clone"]);
        assert_eq!(rule.args().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "{}", "[]", r#"{"defaultAction":"SCMP_ACT_DANCE"}"#] {
            let text = resolve(bad, &HOST).unwrap_err().to_string();
            assert!(text.starts_with("Decoding seccomp profile failed: "), "{text}");
        }
    }
}
