//! The flags of `build`, and the request that they become.

use std::collections::BTreeMap;

use berth_api::build;
use berth_client::Query;
use berth_oci::Reference;
use clap::{Arg, ArgMatches};

use super::caches::{self, Caches};
use super::{named, outputs};
use crate::container::{environment, ulimit};
use crate::failure::{Failure, Outcome};
use crate::flags::{self, list, many, number, on, one, or_empty, switch};
use crate::values::{self, csv, size};

/// All of them.
pub fn flags() -> Vec<Arg> {
    [image(), running(), limits()].concat()
}

fn image() -> Vec<Arg> {
    vec![
        many("build-arg", "NAME[=VALUE]")
            .value_parser(variable)
            .help("Value of an ARG of the Dockerfile (the environment's)"),
        many("build-context", "NAME=PLACE")
            .value_parser(named::check)
            .help("What a name means in the Dockerfile: a directory, docker-image://, oci-layout:// or an address"),
        many("cache-from", "IMAGE|type=TYPE[,KEY=VALUE]").value_parser(caches::check).help(
            "Where steps may be taken from: images, type=registry,ref=NAME or type=local,src=DIRECTORY",
        ),
        many("cache-to", "type=TYPE[,KEY=VALUE]").value_parser(caches::check).help(
            "Where steps are kept: type=inline, type=registry,ref=NAME or type=local,dest=DIRECTORY; mode=max for all stages",
        ),
        switch("check").help("Look at the Dockerfile for what had better be otherwise, and build nothing"),
        switch("compress").help("Compress what is sent"),
        switch("disable-content-trust").hide(true),
        one("file", "FILE").short('f').help("The Dockerfile, or - for standard input (PATH/Dockerfile)"),
        one("iidfile", "FILE").help("Write the image's ID to a file"),
        many("label", "NAME=VALUE").value_parser(label).help("Label of the image"),
        switch("load").help("Keep the image at the daemon, beside other outputs: --output=type=docker"),
        one("metadata-file", "FILE").help("Write what was built to a file, as JSON"),
        switch("no-cache").help("Run all instructions again"),
        many("no-cache-filter", "STAGE").value_parser(fields).help("Run all instructions of a stage again"),
        many("output", "DIRECTORY|-|type=TYPE[,KEY=VALUE]").short('o').value_parser(outputs::check).help(
            "What becomes of the image: type=image, registry, docker, oci, tar, local or cacheonly; dest=PATH, name=NAMES",
        ),
        one("platform", "OS/ARCH").help("What to build for (the daemon's own)"),
        one("progress", "HOW")
            .default_value("auto")
            .value_parser(["auto", "plain", "quiet", "rawjson", "tty"])
            .hide_possible_values(true)
            .help("How to show the build: auto, plain, quiet, rawjson or tty (that of BUILDKIT_PROGRESS)"),
        switch("pull").help("Look for newer versions of the images built upon"),
        switch("push").help("Push the image: --output=type=registry"),
        switch("quiet").short('q').help("Show nothing but the image's ID"),
        many("secret", "id=NAME[,src=FILE|,env=NAME]")
            .value_parser(fields)
            .help("Secret for RUN --mount=type=secret, from a file or the environment"),
        many("ssh", "default|NAME[=SOCKET]").help("Agent for RUN --mount=type=ssh (that of SSH_AUTH_SOCK)"),
        switch("squash").help("Make one layer of all that is new"),
        many("tag", "NAME[:TAG]").short('t').value_parser(tag).help("Name of the image (repeatable)"),
        one("target", "STAGE").help("The stage to build (the last one)"),
    ]
}

fn running() -> Vec<Arg> {
    vec![
        many("allow", "ENTITLEMENT")
            .value_parser(entitlement)
            .help("What RUN may ask for: network.host, security.insecure"),
        many("add-host", "NAME:ADDRESS").value_parser(extra_host).help("Line of /etc/hosts during RUN"),
        switch("force-rm").help("Remove containers of a build that fails too"),
        one("isolation", "HOW").help("Isolation technology (Windows only)"),
        one("network", "NETWORK")
            .default_value("default")
            .help("Network of RUN: bridge, none, host, container:NAME or one of your own"),
        switch("rm").default_value("true").help("Remove the build's containers at its end"),
        many("security-opt", "OPTION").value_parser(fields).help("Security option of RUN"),
    ]
}

fn limits() -> Vec<Arg> {
    let count = |name: &'static str, value: &'static str| one(name, value).value_parser(values::integer);
    let bytes = |name: &'static str| one(name, "BYTES").value_parser(size::bytes);
    vec![
        one("cgroup-parent", "PATH").help("Parent of the cgroup of RUN"),
        count("cpu-period", "MICROSECONDS").help("Period of the CPU quota"),
        count("cpu-quota", "MICROSECONDS").help("CPU time in each period"),
        count("cpu-shares", "WEIGHT").short('c').help("CPU weight"),
        one("cpuset-cpus", "CPUS").help("CPUs that RUN may use: 0-3, 0,1"),
        one("cpuset-mems", "NODES").help("Memory nodes that RUN may use"),
        bytes("memory").short('m').help("Memory limit of RUN"),
        one("memory-swap", "BYTES")
            .value_parser(size::bytes_or_unlimited)
            .help("Limit of memory and swap together, -1 for none"),
        bytes("shm-size").help("Size of /dev/shm"),
        many("ulimit", "NAME=SOFT[:HARD]").value_parser(limit).help("Resource limit of RUN's processes"),
    ]
}

/// What is asked for beyond flags as they are.
#[derive(Debug, Default)]
pub struct Extras {
    /// Names of the image.
    pub names: Vec<String>,
    /// `warn` or `only`; empty for a daemon that does not know of it.
    pub lint: &'static str,
    /// What names mean in the Dockerfile.
    pub contexts: BTreeMap<String, String>,
    /// What is sent here.
    pub outputs: Vec<build::Output>,
    /// Caches.
    pub caches: Caches,
}

/// The request's parameters, but for the context. `proxies` are build arguments unless flags say otherwise.
pub fn query(matches: &ArgMatches, proxies: Vec<(String, String)>, extras: &Extras) -> Outcome<Query> {
    let mut query = Query::new();
    query = extras.names.iter().fold(query, |query, name| query.set("t", name));
    for (name, flag) in [("extrahosts", "add-host"), ("allow", "allow")] {
        query = list(matches, flag).iter().fold(query, |query, value| query.set(name, value));
    }
    query =
        separated(matches, "security-opt").iter().fold(query, |query, value| query.set("securityopt", value));
    query = separated(matches, "no-cache-filter")
        .iter()
        .fold(query, |query, stage| query.set("nocachefilter", stage));
    for (name, flag) in [
        ("q", "quiet"),
        ("nocache", "no-cache"),
        ("forcerm", "force-rm"),
        ("pull", "pull"),
        ("squash", "squash"),
    ] {
        query = query.flag(name, on(matches, flag));
    }
    if !on(matches, "rm") {
        query = query.set("rm", "0");
    }
    for (name, flag) in [
        ("cpusetcpus", "cpuset-cpus"),
        ("cpusetmems", "cpuset-mems"),
        ("cgroupparent", "cgroup-parent"),
        ("isolation", "isolation"),
        ("networkmode", "network"),
        ("target", "target"),
    ] {
        let text = or_empty(matches, flag);
        let is_usual = text.is_empty() || (text == "default" && matches!(flag, "network" | "isolation"));
        query = if is_usual { query } else { query.set(name, &text) };
    }
    for (name, flag) in [
        ("cpushares", "cpu-shares"),
        ("cpuperiod", "cpu-period"),
        ("cpuquota", "cpu-quota"),
        ("memory", "memory"),
        ("memswap", "memory-swap"),
        ("shmsize", "shm-size"),
    ] {
        let value = number(matches, flag);
        query = if value == 0 { query } else { query.set(name, &value.to_string()) };
    }
    let platform = flags::platform(matches).map(|platform| platform.to_lowercase());
    query = query.set_some("platform", platform.as_deref());
    query = query.set_some("lint", Some(extras.lint).filter(|lint| !lint.is_empty()));
    documents(matches, proxies, extras, query)
}

fn json<T: serde::Serialize>(value: &T) -> Outcome<String> {
    serde_json::to_string(value).map_err(|error| Failure::new(error.to_string()))
}

/// Adds what is sent as JSON.
fn documents(
    matches: &ArgMatches,
    proxies: Vec<(String, String)>,
    extras: &Extras,
    query: Query,
) -> Outcome<Query> {
    let mut query = query;
    let limits = list(matches, "ulimit").iter().map(|text| ulimit(text)).collect::<Outcome<Vec<_>>>()?;
    if !limits.is_empty() {
        query = query.set("ulimits", &json(&limits)?);
    }
    let mut arguments: BTreeMap<String, Option<String>> = BTreeMap::new();
    for text in list(matches, "build-arg") {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            // One that the user does not have either is told by its name alone.
            None => (text.as_str(), std::env::var(&text).ok()),
        };
        arguments.insert(name.to_owned(), value);
    }
    for (name, value) in proxies {
        arguments.entry(name).or_insert(Some(value));
    }
    if !arguments.is_empty() {
        query = query.set("buildargs", &json(&arguments)?);
    }
    let labels = environment::pairs(&list(matches, "label"));
    if !labels.is_empty() {
        query = query.set("labels", &json(&labels)?);
    }
    let Caches { images, sources, targets } = &extras.caches;
    if !images.is_empty() {
        query = query.set("cachefrom", &json(images)?);
    }
    for (name, caches) in [("cachesources", sources), ("cacheto", targets)] {
        query = if caches.is_empty() { query } else { query.set(name, &json(caches)?) };
    }
    if !extras.outputs.is_empty() {
        query = query.set("outputs", &json(&extras.outputs)?);
    }
    if !extras.contexts.is_empty() {
        query = query.set("contexts", &json(&extras.contexts)?);
    }
    Ok(query)
}

/// All values of a flag that takes several behind commas.
fn separated(matches: &ArgMatches, name: &str) -> Vec<String> {
    list(matches, name)
        .iter()
        .filter_map(|text| csv::record(text))
        .flatten()
        .filter(|text| !text.is_empty())
        .collect()
}

fn fields(text: &str) -> Result<String, String> {
    csv::record(text)
        .map(|_| text.to_owned())
        .ok_or_else(|| "extraneous or missing \" in quoted-field".to_owned())
}

fn variable(text: &str) -> Result<String, String> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() { Err(format!("invalid environment variable: {text}")) } else { Ok(text.to_owned()) }
}

fn label(text: &str) -> Result<String, String> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() { Err(format!("invalid label '{text}': empty name")) } else { Ok(text.to_owned()) }
}

/// A privilege, by the name that BuildKit has for it.
fn entitlement(text: &str) -> Result<String, String> {
    match text {
        "network.host" | "security.insecure" => Ok(text.to_owned()),
        _ => Err(format!("unknown entitlement {text}")),
    }
}

fn tag(text: &str) -> Result<String, String> {
    text.parse::<Reference>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn limit(text: &str) -> Result<String, String> {
    ulimit(text).map(|_| text.to_owned()).map_err(|failure| {
        let told = format!("invalid argument {text:?} for \"--ulimit\" flag: ");
        failure.message.strip_prefix(&told).map_or(failure.message.clone(), str::to_owned)
    })
}

/// `name:address` or `name=address`, as the API takes it.
fn extra_host(text: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {text:?}");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    if name.is_empty() {
        return Err(bad());
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{bare}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(line: &str) -> ArgMatches {
        let mut command = super::super::command();
        command.build();
        command.try_get_matches_from(line.split(' ')).unwrap()
    }

    fn refused(line: &str) -> String {
        let mut command = super::super::command();
        command.build();
        command.try_get_matches_from(line.split(' ')).unwrap_err().to_string()
    }

    fn query(matches: &ArgMatches, proxies: Vec<(String, String)>) -> Outcome<Query> {
        let mut offered = super::super::offer::Offered::default();
        let caches = Caches::of(&list(matches, "cache-from"), &[], &mut offered)?;
        let extras = Extras { names: list(matches, "tag"), caches, ..Extras::default() };
        super::query(matches, proxies, &extras)
    }

    #[test]
    fn flags_become_parameters_and_what_is_usual_is_not_sent() {
        assert_eq!(query(&matches("build ."), vec![]).unwrap().on(""), "");
        assert_eq!(
            query(&matches("build --network default --isolation default --rm ."), vec![]).unwrap().on(""),
            ""
        );
        let line = "build -t a:b -t c --rm=false -q --pull -m 1m --memory-swap -1 --network host --target t \
                    --add-host h=1.2.3.4 --add-host six:[::1] --security-opt a,b --platform Linux/AMD64 .";
        assert_eq!(
            query(&matches(line), vec![]).unwrap().on(""),
            "?t=a:b&t=c&extrahosts=h:1.2.3.4&extrahosts=six:::1&securityopt=a&securityopt=b&q=1&pull=1&rm=0\
             &networkmode=host&target=t&memory=1048576&memswap=-1&platform=linux%2Famd64"
        );
    }

    #[test]
    fn arguments_come_from_flags_the_environment_and_proxies() {
        let line = "build --build-arg A=b=c --build-arg PATH --build-arg BERTH_NOT_SET_ANYWHERE --build-arg no_proxy=x \
                    --label l --label m=n --cache-from a,b --cache-from c --ulimit nofile=1:2 .";
        let proxies = vec![("NO_PROXY".to_owned(), "p".to_owned()), ("no_proxy".to_owned(), "p".to_owned())];
        let path = std::env::var("PATH").unwrap();
        let query = query(&matches(line), proxies).unwrap().on("");
        let expected = Query::new()
            .set("ulimits", r#"[{"Name":"nofile","Hard":2,"Soft":1}]"#)
            .set(
                "buildargs",
                &serde_json::json!({"A": "b=c", "PATH": path, "BERTH_NOT_SET_ANYWHERE": null,
                "no_proxy": "x", "NO_PROXY": "p"})
                .to_string(),
            )
            .set("labels", r#"{"l":"","m":"n"}"#)
            .set("cachefrom", r#"["a","b","c"]"#);
        assert_eq!(query, expected.on(""));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, words) in [
            ("build -t A .", "must be lowercase"),
            ("build --label = .", "invalid label '=': empty name"),
            ("build --build-arg =x .", "invalid environment variable: =x"),
            ("build --add-host x .", "bad format for add-host: \"x\""),
            ("build --add-host a:b .", "invalid IP address in add-host: \"b\""),
            (
                "build --ulimit nproc=5:1 .",
                "ulimit soft limit must be less than or equal to hard limit: 5 > 1",
            ),
            ("build --cache-from \"a .", "quoted-field"),
            ("build --progress fancy .", "fancy"),
            ("build --output type=zip .", "unknown output type \"zip\""),
            ("build --cache-to type=gha .", "unknown cache type \"gha\""),
            ("build --build-context x .", "expected key=value"),
            ("build --allow all .", "unknown entitlement all"),
        ] {
            let told = refused(line);
            assert!(told.contains(words), "{line}: {told}");
        }
    }
}
