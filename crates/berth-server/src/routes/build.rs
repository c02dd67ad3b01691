//! Builds of images.

use std::collections::BTreeMap;

use berth_api::build::Lint;
use berth_api::container::{HostConfig, Ulimit};
use berth_api::json;
use berth_api::version::ApiVersion;
use berth_engine::BuildRequest;
use berth_oci::Platform;
use http::HeaderMap;
use http::header::USER_AGENT;
use serde::de::DeserializeOwned;

use super::Outcome;
use super::images::{parts, progress};
use super::intake::carried;
use crate::accounts;
use crate::call::{Call, Query};
use crate::failure::Failure;

/// `POST /build`.
pub async fn image(call: Call) -> Outcome {
    let request = request(call.version, &call.query, call.headers())?;
    let engine = call.engine.clone();
    let body = parts(call.request);
    progress(|messages| {
        carried(body, |archive| async move { engine.build(request, Box::new(archive), messages).await })
    })
    .await
}

fn request(version: ApiVersion, query: &Query, headers: &HeaderMap) -> Result<BuildRequest, Failure> {
    match query.get("version") {
        "" | "1" => {}
        "2" => return Err(Failure::invalid("only the classic builder (version 1) builds over this route")),
        other => return Err(Failure::invalid(format!("invalid version {other:?}"))),
    }
    if query.given("securityopt").is_some() {
        return Err(Failure::invalid("security options are not supported on linux"));
    }
    let text = |name: &str| query.get(name).to_owned();
    let force_remove = query.flag("forcerm");
    let platform = query.given("platform").filter(|_| version >= ApiVersion::new(1, 32));
    let platform = platform.map(str::parse::<Platform>).transpose();
    Ok(BuildRequest {
        dockerfile: query.given("dockerfile").unwrap_or("Dockerfile").to_owned(),
        tags: query.all("t").map(str::to_owned).collect(),
        remote: query.given("remote").map(str::to_owned),
        quiet: query.flag("q"),
        no_cache: query.flag("nocache"),
        cache_from: document(query, "cachefrom", "error reading cache-from")?,
        pull: query.flag("pull"),
        remove: force_remove || query.given("rm").is_none() || query.flag("rm"),
        force_remove,
        arguments: document(query, "buildargs", "error reading build args")?,
        labels: document::<BTreeMap<String, String>>(query, "labels", "error reading labels")?,
        target: text("target"),
        platform: platform.map_err(|error| Failure::invalid(error.to_string()))?,
        host: host(query)?,
        squash: query.flag("squash"),
        no_cache_filter: query.all("nocachefilter").map(str::to_lowercase).collect(),
        allow: query.all("allow").filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        contexts: document(query, "contexts", "error reading build contexts")?,
        lint: match query.get("lint") {
            "" => Lint::No,
            "warn" => Lint::Also,
            "only" => Lint::Only,
            other => return Err(Failure::invalid(format!("invalid value of lint: {other:?}"))),
        },
        outputs: document(query, "outputs", "error reading outputs")?,
        cache_sources: document(query, "cachesources", "error reading cachesources")?,
        cache_targets: document(query, "cacheto", "error reading cacheto")?,
        keys: Default::default(),
        session: query.given("session").map(str::to_owned),
        aux: version >= ApiVersion::new(1, 30),
        agent: headers.get(USER_AGENT).map(|value| value.as_bytes().to_vec()),
        accounts: accounts::all(headers),
    })
}

/// What the containers of steps get. As in Docker, a number that is none counts as none.
fn host(query: &Query) -> Result<HostConfig, Failure> {
    let number = |name: &str| query.get(name).parse::<i64>().unwrap_or_default();
    let ulimits: Option<Vec<Ulimit>> = document(query, "ulimits", "error reading ulimit settings")?;
    let hosts: Vec<String> =
        query.all("extrahosts").filter(|text| !text.is_empty()).map(str::to_owned).collect();
    let shm_size = match query.given("shmsize") {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| Failure::invalid(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?,
    };
    Ok(HostConfig {
        memory: number("memory"),
        memory_swap: number("memswap"),
        cpu_shares: number("cpushares"),
        cpu_period: number("cpuperiod"),
        cpu_quota: number("cpuquota"),
        cpuset_cpus: query.get("cpusetcpus").to_owned(),
        cpuset_mems: query.get("cpusetmems").to_owned(),
        cgroup_parent: query.get("cgroupparent").to_owned(),
        network_mode: query.get("networkmode").to_owned(),
        extra_hosts: Some(hosts).filter(|hosts| !hosts.is_empty()),
        shm_size,
        ulimits,
        ..HostConfig::default()
    })
}

/// A parameter that is a JSON document.
fn document<T: DeserializeOwned + Default>(query: &Query, name: &str, what: &str) -> Result<T, Failure> {
    let Some(text) = query.given(name) else { return Ok(T::default()) };
    json::from_slice(text.as_bytes()).map_err(|error| Failure::invalid(format!("{what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_checked() {
        let read = |text: &str| request(ApiVersion::NEWEST, &Query::parse(text), &HeaderMap::new());
        let plain = read("").unwrap();
        assert!(plain.remove && !plain.force_remove && plain.aux && plain.dockerfile == "Dockerfile");
        let full = read("t=a&t=b:1&rm=0&buildargs={\"A\":\"1\",\"B\":null}&labels={\"l\":\"v\"}&memory=7&ulimits=[{\"Name\":\"nofile\",\"Soft\":1,\"Hard\":2}]&extrahosts=a:1.2.3.4").unwrap();
        assert_eq!((full.tags.len(), full.remove, full.host.memory), (2, false, 7));
        assert_eq!(full.arguments["A"].as_deref(), Some("1"));
        assert!(full.arguments["B"].is_none() && full.host.ulimits.unwrap()[0].hard == 2);
        for (text, expected) in [
            ("version=3", "invalid version \"3\""),
            ("shmsize=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("labels=[", "error reading labels"),
            ("lint=x", "invalid value of lint: \"x\""),
            ("outputs=[{\"Type\":\"zip\"}]", "error reading outputs"),
            ("cacheto=[{\"Type\":\"local\"}]", "error reading cacheto"),
            ("contexts=[]", "error reading build contexts"),
        ] {
            assert!(read(text).unwrap_err().message.starts_with(expected), "{text}");
        }
    }
}
