//! Contexts as archives: what `export` writes and `import` reads.

use std::io::{self, Read};

use super::store::{META, Metadata, TlsData, is_file_name};
use super::zip;
use crate::failure::{Failure, Outcome};

/// Longest archive, and most that all its files may hold together, in bytes.
const LONGEST: u64 = 10 << 20;
/// What a tar archive consists of, in bytes.
const BLOCK: usize = 512;
/// Most entries of an archive.
const MOST: usize = 4096;
/// The folder of the certificates.
const TLS: &str = "tls";

/// What an archive of a context holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The context; its name counts for nothing.
    pub context: Metadata,
    /// Its certificates.
    pub tls: TlsData,
}

/// Writes a tar archive, as Docker's client reads it.
pub fn pack(bundle: &Bundle) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes)
    };
    add(META, tar::EntryType::Regular, 0o644, &bundle.context.to_json())?;
    add(TLS, tar::EntryType::Directory, 0o700, &[])?;
    for (endpoint, files) in &bundle.tls {
        add(&format!("{TLS}/{endpoint}"), tar::EntryType::Directory, 0o700, &[])?;
        for (file, bytes) in files {
            add(&format!("{TLS}/{endpoint}/{file}"), tar::EntryType::Regular, 0o600, bytes)?;
        }
    }
    archive.into_inner()
}

/// Reads a tar or zip archive. Nothing of it is believed: names lead nowhere else, and sizes are bounded.
pub fn unpack(reader: impl Read) -> Outcome<Bundle> {
    let mut bytes = Vec::new();
    reader.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(too_long());
    }
    let mut files = Vec::new();
    if zip::is_zip(&bytes) {
        let mut left = LONGEST;
        for entry in zip::entries(&bytes).map_err(Failure::new)? {
            if entry.regular {
                check(&entry.name)?;
                let content = entry.read(left).map_err(Failure::new)?;
                left -= content.len() as u64;
                files.push((entry.name, content));
            }
        }
    } else {
        if (1..BLOCK).contains(&bytes.len()) {
            return Err(Failure::new("unexpected EOF"));
        }
        // Docker's client leaves out what follows the last file's content.
        let end = bytes.len() as u64;
        bytes.resize(bytes.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
        for entry in tar::Archive::new(bytes.as_slice()).entries().map_err(wrong)? {
            let mut entry = entry.map_err(wrong)?;
            if files.len() > MOST {
                return Err(Failure::new("invalid context: too many files"));
            }
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            check(&name)?;
            let mut content = Vec::new();
            if entry.raw_file_position().saturating_add(entry.size()) > end {
                return Err(Failure::new("unexpected EOF"));
            }
            entry.read_to_end(&mut content).map_err(wrong)?;
            files.push((name, content));
        }
    }
    assemble(files)
}

fn assemble(files: Vec<(String, Vec<u8>)>) -> Outcome<Bundle> {
    let mut bundle = Bundle::default();
    let mut described = false;
    for (name, content) in files {
        let Some((endpoint, file)) = name.strip_prefix("tls/").and_then(|rest| rest.split_once('/')) else {
            bundle.context = Metadata::parse(&content).map_err(Failure::new)?;
            described = true;
            continue;
        };
        bundle.tls.entry(endpoint.to_owned()).or_default().insert(file.to_owned(), content);
    }
    if !described {
        return Err(Failure::new("invalid context: no metadata found"));
    }
    Ok(bundle)
}

/// Refuses a file that does not belong into a context.
fn check(name: &str) -> Outcome {
    let reason = match name.strip_prefix("tls/") {
        None if name == META => return Ok(()),
        None => "unexpected context file",
        Some(rest) => match rest.split_once('/') {
            None => return Err(Failure::new("archive format is invalid")),
            Some((endpoint, file)) if is_file_name(endpoint) && is_file_name(file) => return Ok(()),
            Some(_) if name.contains('\\') => r"unexpected '\' in path",
            Some(_) => "unexpected path format",
        },
    };
    Err(Failure::new(format!("{}: {reason}", name.escape_debug())))
}

fn too_long() -> Failure {
    Failure::new("read exceeds the defined limit")
}

fn wrong(error: io::Error) -> Failure {
    // What the library says of nonsense is about its own buffers.
    match error.to_string() {
        text if text.contains("unexpected EOF") => Failure::new("unexpected EOF"),
        text => Failure::new(format!("archive/tar: invalid tar header: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn bundle() -> Bundle {
        let files =
            BTreeMap::from([("ca.pem".to_owned(), b"c".to_vec()), ("key.pem".to_owned(), vec![7; 9000])]);
        Bundle {
            context: Metadata::parse(br#"{"Name":"x","Endpoints":{"docker":{"Host":"unix:///x"}}}"#).unwrap(),
            tls: BTreeMap::from([("docker".to_owned(), files)]),
        }
    }

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            // Whatever the name: the library would refuse some.
            let field = &mut header.as_old_mut().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.set_cksum();
            archive.append(&header, *content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn what_is_packed_can_be_unpacked() {
        let packed = pack(&bundle()).unwrap();
        assert_eq!(unpack(packed.as_slice()).unwrap(), bundle());
        // The last file has 9000 bytes, which fill no block; the two at the end are empty.
        let cut = packed.len() - 2 * BLOCK - (9000_usize.next_multiple_of(BLOCK) - 9000);
        assert_eq!(unpack(&packed[..cut]).unwrap(), bundle());
        let outcome = unpack(&packed[..cut - 1]).map_err(|failure| failure.message);
        assert!(outcome.is_err_and(|message| message == "unexpected EOF"));
    }

    #[test]
    fn archives_of_both_kinds_are_refused_alike() {
        for (files, message) in [
            (
                vec![("meta.json", "{}"), ("tls/docker/../../x", "")],
                "tls/docker/../../x: unexpected path format",
            ),
            (vec![("meta.json", "{}"), ("tls/../x", "")], "tls/../x: unexpected path format"),
            (vec![("meta.json", "{}"), ("tls/docker/a/b", "")], "tls/docker/a/b: unexpected path format"),
            (vec![("meta.json", "{}"), ("tls//x", "")], "tls//x: unexpected path format"),
            (vec![("meta.json", "{}"), ("tls/a\\b/x", "")], "tls/a\\\\b/x: unexpected '\\' in path"),
            (vec![("meta.json", "{}"), ("tls/x", "")], "archive format is invalid"),
            (vec![("../meta.json", "{}")], "../meta.json: unexpected context file"),
            (vec![("/etc/passwd", "{}")], "/etc/passwd: unexpected context file"),
            (vec![("tls/docker/ca.pem", "")], "invalid context: no metadata found"),
            (vec![("meta.json", "[")], "EOF while parsing a list at line 1 column 1"),
        ] {
            let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
            assert_eq!(unpack(tar_of(&files).as_slice()).unwrap_err().message, message);
            let made = zip::tests::archive(&files, false);
            assert_eq!(unpack(made.as_slice()).unwrap_err().message, message);
        }
    }

    #[test]
    fn nothing_is_read_without_bounds() {
        assert_eq!(unpack(io::repeat(0)).unwrap_err().message, "read exceeds the defined limit");
        let zeros = vec![0; 6 << 20];
        let made =
            zip::tests::archive(&[("meta.json", b"{}"), ("tls/a/1", &zeros), ("tls/a/2", &zeros)], false);
        assert_eq!(unpack(made.as_slice()).unwrap_err().message, "read exceeds the defined limit");
        assert_eq!(unpack(&b"hi\n"[..]).unwrap_err().message, "unexpected EOF");
    }

    #[test]
    fn links_in_archives_are_no_files() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "meta.json", "/etc/passwd").unwrap();
        let made = archive.into_inner().unwrap();
        assert_eq!(unpack(made.as_slice()).unwrap_err().message, "invalid context: no metadata found");
    }

    proptest! {
        #[test]
        fn no_archive_leaves_the_store(name in "(meta.json|tls/)?[a./\\\\]{0,12}", zipped: bool) {
            let files: [(&str, &[u8]); 2] = [("meta.json", b"{}"), (&name, b"{}")];
            let made = if zipped { zip::tests::archive(&files, true) } else { tar_of(&files) };
            if let Ok(found) = unpack(made.as_slice()) {
                for (endpoint, files) in &found.tls {
                    prop_assert!(is_file_name(endpoint), "{endpoint}");
                    prop_assert!(files.keys().all(|file| is_file_name(file)), "{files:?}");
                }
            }
        }

        #[test]
        fn damage_does_no_harm(at in 0_usize..4096, byte: u8) {
            let mut made = pack(&bundle()).unwrap();
            made[at] = byte;
            let _ = unpack(made.as_slice());
        }
    }
}
