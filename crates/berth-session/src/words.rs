//! Names of calls and headers, and lists in headers.

use tonic::metadata::{AsciiMetadataKey, MetadataMap, MetadataValue};

/// Calls, as paths.
pub mod method {
    /// Files of a directory.
    pub const FILES: &str = "/moby.filesync.v1.FileSync/DiffCopy";
    /// An output of a build.
    pub const OUTPUT: &str = "/moby.filesync.v1.FileSend/DiffCopy";
    /// An account at a registry.
    pub const ACCOUNT: &str = "/moby.filesync.v1.Auth/Credentials";
    /// A secret.
    pub const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
    /// Whether there is an agent.
    pub const AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
    /// A connection to an agent.
    pub const FORWARD: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
    /// Whether the client answers.
    pub const HEALTH: &str = "/grpc.health.v1.Health/Check";
}

/// Headers of calls.
pub(crate) mod header {
    pub const DIRECTORY: &str = "dir-name";
    pub const INCLUDE: &str = "include-patterns";
    pub const EXCLUDE: &str = "exclude-patterns";
    pub const FOLLOW: &str = "followpaths";
    pub const AGENT: &str = "buildkit.ssh.id";
    pub const OUTPUT: &str = "buildkit-attachable-exporter-id";
    /// A receiver that takes open files says so; a sender that gives them says where (`descriptors.rs`). Berth's own.
    pub const DESCRIPTORS: &str = "berth-descriptors";
    pub const ABOUT_OUTPUT: &str = "exporter-md-";
}

/// What says that a list is written as in addresses.
const ENCODED: &str = "-encoded";

/// Puts a list into headers, one for each value. Those that headers cannot hold are written as in addresses.
pub(crate) fn put(metadata: &mut MetadataMap, name: &'static str, values: &[String]) {
    let is_plain = |value: &String| value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let encode = !values.iter().all(is_plain);
    for value in values {
        let written = if encode { escaped(value) } else { value.clone() };
        if let Ok(written) = MetadataValue::try_from(written) {
            metadata.append(name, written);
        }
    }
    if let (true, Ok(key)) = (encode, AsciiMetadataKey::from_bytes(format!("{name}{ENCODED}").as_bytes())) {
        metadata.insert(key, MetadataValue::from_static("1"));
    }
}

/// A list that headers hold.
pub(crate) fn get(metadata: &MetadataMap, name: &str) -> Vec<String> {
    let encoded = metadata.get(format!("{name}{ENCODED}").as_str());
    let encoded = encoded.is_some_and(|value| matches!(value.as_bytes(), b"1" | b"true"));
    let values = metadata.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.map(|value| if encoded { unescaped(value) } else { value.to_owned() }).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let coded = pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        rest = if coded.is_some() { &after[2..] } else { after };
        out.push(coded.unwrap_or(if *first == b'+' { b' ' } else { *first }));
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_travel_in_headers() {
        for values in [vec!["a", "b c", "**/*.o", "!x"], vec!["grün", "1 + 1 = 2 %"], vec!["tab\there"]] {
            let values: Vec<String> = values.into_iter().map(str::to_owned).collect();
            let mut metadata = MetadataMap::new();
            put(&mut metadata, header::EXCLUDE, &values);
            assert_eq!(get(&metadata, header::EXCLUDE), values);
            assert!(get(&metadata, header::INCLUDE).is_empty());
        }
        let mut metadata = MetadataMap::new();
        put(&mut metadata, header::FOLLOW, &["grün ".to_owned()]);
        assert_eq!(metadata.get("followpaths").unwrap().as_bytes(), b"gr%C3%BCn+");
        assert_eq!(unescaped("%zz%4"), "%zz%4");
    }
}
