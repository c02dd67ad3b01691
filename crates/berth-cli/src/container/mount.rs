//! `--volume`, `--mount` and `--tmpfs`.

use berth_api::StringMap;
use berth_api::container::{BindOptions, DriverConfig, Mount, TmpfsOptions, VolumeOptions};
use berth_client::Host;

use crate::failure::{Failure, Outcome};
use crate::values::{boolean, csv, size};

/// Completes the source of `-v SOURCE:TARGET[:OPTIONS]`: a path that begins with a dot is the user's.
pub fn bind(text: &str) -> Outcome<String> {
    let Some((source, rest)) = text.split_once(':') else { return Ok(text.to_owned()) };
    if !source.starts_with('.') {
        return Ok(text.to_owned());
    }
    let path = std::path::absolute(source).map_err(|error| Failure::io(source, &error))?;
    Ok(format!("{}:{rest}", normal(&path.display().to_string())))
}

/// A path without `.` and `..`, which mean nothing to the daemon.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Reads `--tmpfs PATH[:OPTIONS]`.
pub fn tmpfs(given: &[String]) -> StringMap {
    given
        .iter()
        .map(|text| text.split_once(':').unwrap_or((text, "")))
        .map(|(path, options)| (path.to_owned(), options.to_owned()))
        .collect()
}

/// The daemon's socket where clients in the container look for it.
pub fn api_socket(host: &Host) -> Mount {
    const SOCKET: &str = "/var/run/docker.sock";
    let source = match host {
        Host::Unix(path) => path.display().to_string(),
        // A daemon elsewhere does not tell where its socket is.
        _ => SOCKET.to_owned(),
    };
    Mount { kind: "bind".to_owned(), source, target: SOCKET.to_owned(), ..Mount::default() }
}

/// Reads `--mount`.
pub fn mount(text: &str) -> Outcome<Mount> {
    let wrong =
        |message: String| Failure::new(format!("invalid argument {text:?} for \"--mount\" flag: {message}"));
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    if text.trim().is_empty() {
        return Err(wrong("value is empty".to_owned()));
    }
    let fields = csv::record(text.trim()).ok_or_else(|| wrong("bare \" in non-quoted field".to_owned()))?;
    for field in fields {
        let (name, value) = match field.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (field.as_str(), None),
        };
        spaces(&field, name, value).map_err(wrong)?;
        set(&mut mount, &name.to_lowercase(), value)
            .map_err(|message| wrong(message.replace("{field}", &field)))?;
    }
    validate(&mount).map_err(wrong)?;
    Ok(mount)
}

/// Refuses spaces around names and values, and empty values.
fn spaces(field: &str, name: &str, value: Option<&str>) -> Result<(), String> {
    let bare = name.trim();
    if bare != name {
        return Err(format!("invalid option '{bare}' in '{field}': option should not have whitespace"));
    }
    match value {
        Some(value) if value.trim().is_empty() => Err(format!("invalid value for '{name}': value is empty")),
        Some(value) if value.trim() != value => {
            Err(format!("invalid value for '{name}' in '{field}': value should not have whitespace"))
        }
        _ => Ok(()),
    }
}

/// What the options say together.
fn validate(mount: &Mount) -> Result<(), String> {
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let kinds = [
        ("volume", mount.volume_options.is_some()),
        ("bind", mount.bind_options.is_some()),
        ("tmpfs", mount.tmpfs_options.is_some()),
        ("image", mount.image_options.is_some()),
    ];
    if let Some((kind, _)) = kinds.iter().find(|(kind, given)| *given && mount.kind != *kind) {
        return Err(format!("cannot mix '{kind}-*' options with mount type '{}'", mount.kind));
    }
    let Some(bind) = &mount.bind_options else { return Ok(()) };
    let needs = |kind: &str, what: &str| {
        Err(format!("option 'bind-recursive={kind}' requires '{what}' to be specified in conjunction"))
    };
    if bind.read_only_non_recursive && !mount.read_only {
        return needs("writable", "readonly");
    }
    if bind.read_only_force_recursive && !mount.read_only {
        return needs("readonly", "readonly");
    }
    if bind.read_only_force_recursive && bind.propagation != "rprivate" {
        return needs("readonly", "bind-propagation=rprivate");
    }
    Ok(())
}

fn set(mount: &mut Mount, name: &str, value: Option<&str>) -> Result<(), String> {
    let flag = |value: Option<&str>| {
        value
            .map_or(Ok(true), boolean)
            .map_err(|_| format!("invalid value for {name}: {}", value.unwrap_or_default()))
    };
    match (name, value) {
        ("readonly" | "ro", value) => mount.read_only = flag(value)?,
        ("volume-nocopy", value) => options(&mut mount.volume_options).no_copy = flag(value)?,
        ("bind-nonrecursive", value) => bind_options(mount).non_recursive = flag(value)?,
        ("bind-create-src", value) => bind_options(mount).create_mountpoint = flag(value)?,
        ("idmap", None) => {
            let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            bind_options(mount).id_map = format!("uids={user}-0-1;gids={group}-0-1");
        }
        ("idmap", Some(value)) => bind_options(mount).id_map = value.to_owned(),
        (_, None) => return Err("invalid field '{field}' must be a key=value pair".to_owned()),
        ("type", Some(value)) => mount.kind = value.to_lowercase(),
        ("source" | "src", Some(value)) => {
            let relative = value == "." || value.starts_with("./") || value.starts_with("../");
            mount.source = match std::path::absolute(value) {
                Ok(path) if relative => normal(&path.display().to_string()),
                _ => value.to_owned(),
            };
        }
        ("target" | "dst" | "destination", Some(value)) => mount.target = value.to_owned(),
        ("consistency", Some(value)) => mount.consistency = value.to_lowercase(),
        ("bind-propagation", Some(value)) => bind_options(mount).propagation = value.to_lowercase(),
        ("bind-recursive", Some(value)) => match value {
            "enabled" => {}
            "disabled" => bind_options(mount).non_recursive = true,
            "writable" => bind_options(mount).read_only_non_recursive = true,
            "readonly" => bind_options(mount).read_only_force_recursive = true,
            _ => {
                return Err(format!(
                    "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                ));
            }
        },
        ("volume-subpath", Some(value)) => options(&mut mount.volume_options).subpath = value.to_owned(),
        ("volume-label", Some(value)) => {
            put(options(&mut mount.volume_options).labels.get_or_insert_default(), value);
        }
        ("volume-driver", Some(value)) => driver(mount).name = value.to_owned(),
        ("volume-opt", Some(value)) => put(driver(mount).options.get_or_insert_default(), value),
        ("image-subpath", Some(value)) => {
            mount.image_options.get_or_insert_default().subpath = value.to_owned();
        }
        ("tmpfs-size", Some(value)) => {
            let bytes = size::bytes(value).map_err(|_| format!("invalid value for {name}: {value}"))?;
            tmpfs_options(mount).size_bytes = bytes;
        }
        ("tmpfs-mode", Some(value)) => {
            let mode = i64::from_str_radix(value, 8)
                .map_err(|_| format!("invalid value for tmpfs-mode: {value}"))?;
            tmpfs_options(mount).mode = mode;
        }
        _ => return Err(format!("unknown option '{name}' in '{{field}}'")),
    }
    Ok(())
}

/// `NAME=VALUE`, or a name with nothing.
fn put(map: &mut StringMap, text: &str) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    map.insert(name.to_owned(), value.to_owned());
}

fn driver(mount: &mut Mount) -> &mut DriverConfig {
    options(&mut mount.volume_options).driver_config.get_or_insert_default()
}

fn options(options: &mut Option<VolumeOptions>) -> &mut VolumeOptions {
    options.get_or_insert_default()
}

fn bind_options(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn tmpfs_options(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let found = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((found.kind.as_str(), found.source.as_str(), found.target.as_str()), ("bind", "/a", "/b"));
        assert!(found.read_only);
        assert_eq!(found.bind_options.unwrap().propagation, "rslave");
        let found = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        let options = found.tmpfs_options.unwrap();
        assert_eq!((options.size_bytes, options.mode), (1 << 20, 0o1770));
        assert_eq!(mount("\"src=/a,b\",dst=/c,type=bind").unwrap().source, "/a,b");
        for bad in ["type=bind,src=/a", "type=bind,what,dst=/b", "colour=red,dst=/b", "readonly=maybe,dst=/b"]
        {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_and_images_have_their_options() {
        let found = mount(
            "src=v,dst=/b,volume-driver=local,volume-opt=type=tmpfs,\"volume-opt=o=size=1m,uid=5\",volume-label=a=b,\
             volume-label=c,volume-subpath=x/y,volume-nocopy",
        );
        let options = found.unwrap().volume_options.unwrap();
        let driver = options.driver_config.unwrap();
        assert_eq!((driver.name.as_str(), options.subpath.as_str(), options.no_copy), ("local", "x/y", true));
        assert_eq!(driver.options.unwrap()["o"], "size=1m,uid=5");
        assert_eq!(options.labels.unwrap()["c"], "");
        let found = mount("type=image,src=busybox,dst=/b,image-subpath=bin").unwrap();
        assert_eq!(found.image_options.unwrap().subpath, "bin");
    }

    #[test]
    fn contradictions_are_told_in_dockers_words() {
        for (text, message) in [
            ("type=bind,src=/a,dst=/b,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
            ("dst=/b,tmpfs-size=1m", "cannot mix 'tmpfs-*' options with mount type 'volume'"),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=readonly",
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction",
            ),
            ("dst=/b,src=", "invalid value for 'src': value is empty"),
            ("dst=/b, src=x", "invalid option 'src' in ' src=x': option should not have whitespace"),
            ("type=tmpfs,dst=/b,tmpfs-size=much", "invalid value for tmpfs-size: much"),
        ] {
            let found = mount(text).unwrap_err().message;
            assert!(found.ends_with(message), "{text}: {found}");
        }
    }

    #[test]
    fn relative_sources_are_the_users() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(bind("./x:/y:ro").unwrap(), format!("{}:/y:ro", here.join("x").display()));
        assert_eq!(bind("name:/y").unwrap(), "name:/y");
        assert_eq!(bind("/y").unwrap(), "/y");
        assert_eq!(normal("/a/./b/../c"), "/a/c");
    }
}
