//! `--volume`, `--mount` and `--tmpfs`.

use berth_api::StringMap;
use berth_api::container::{BindOptions, Mount, TmpfsOptions, VolumeOptions};
use berth_client::Host;

use crate::failure::{Failure, Outcome};
use crate::values::{boolean, size};

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
    for field in fields(text) {
        let (name, value) = match field.split_once('=') {
            Some((name, value)) => (name.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        set(&mut mount, &name, value).map_err(|message| wrong(message.replace("{field}", &field)))?;
    }
    if mount.kind.is_empty() {
        return Err(wrong("type is required".to_owned()));
    }
    if mount.target.is_empty() {
        return Err(wrong("target is required".to_owned()));
    }
    Ok(mount)
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
            _ => return Err(format!("invalid value for bind-recursive: {value}")),
        },
        ("volume-subpath", Some(value)) => options(&mut mount.volume_options).subpath = value.to_owned(),
        ("tmpfs-size", Some(value)) => tmpfs_options(mount).size_bytes = size::bytes(value)?,
        ("tmpfs-mode", Some(value)) => {
            let mode = i64::from_str_radix(value, 8)
                .map_err(|_| format!("invalid value for tmpfs-mode: {value}"))?;
            tmpfs_options(mount).mode = mode;
        }
        _ => return Err(format!("unknown option '{name}' in '{{field}}'")),
    }
    Ok(())
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

/// Splits at commas, but within `"…"` (CSV, RFC 4180).
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let field = match fields.last_mut() {
            Some(field) => field,
            None => break,
        };
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            letter => field.push(letter),
        }
    }
    fields
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
    fn relative_sources_are_the_users() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(bind("./x:/y:ro").unwrap(), format!("{}:/y:ro", here.join("x").display()));
        assert_eq!(bind("name:/y").unwrap(), "name:/y");
        assert_eq!(bind("/y").unwrap(), "/y");
        assert_eq!(normal("/a/./b/../c"), "/a/c");
    }
}
