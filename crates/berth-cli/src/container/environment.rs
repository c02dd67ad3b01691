//! Variables and labels, from flags and files.

use std::collections::BTreeMap;
use std::fs;

use crate::failure::{Failure, Outcome};

/// Longest file that is read.
const LONGEST: u64 = 16 << 20;

/// Variables of files, then of flags. A name without a value takes the user's own, or nothing.
pub fn variables(files: &[String], given: &[String]) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        for line in lines(file)? {
            let (name, _) = line.split_once('=').unwrap_or((&line, ""));
            if name.contains(char::is_whitespace) {
                return Err(Failure::new(format!(
                    "failed to parse env-file {file:?}: variable {name:?} contains whitespaces"
                )));
            }
            all.extend(variable(&line)?);
        }
    }
    for text in given {
        all.extend(variable(text)?);
    }
    Ok(all)
}

fn variable(text: &str) -> Outcome<Option<String>> {
    match text.split_once('=') {
        Some(("", _)) => Err(Failure::new(format!("invalid environment variable: {text}"))),
        Some(_) => Ok(Some(text.to_owned())),
        None if text.is_empty() => Err(Failure::new("invalid environment variable: ".to_owned())),
        // A name alone, which the user does not have, takes the image's away: only `-e` reaches the daemon with it.
        None => Ok(std::env::var(text).ok().map(|value| format!("{text}={value}"))),
    }
}

/// Labels of files, then of flags.
pub fn labels(files: &[String], given: &[String]) -> Outcome<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let mut add = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        all.insert(name.to_owned(), value.to_owned());
    };
    for file in files {
        lines(file)?.iter().for_each(|line| add(line));
    }
    given.iter().for_each(|text| add(text));
    Ok(all)
}

/// The lines of a file that are neither empty nor comments, without the blanks before them.
fn lines(file: &str) -> Outcome<Vec<String>> {
    let failed = |error: &std::io::Error| Failure::io(format!("open {file}"), error);
    let size = fs::metadata(file).map_err(|error| failed(&error))?.len();
    if size > LONGEST {
        return Err(Failure::new(format!("{file} is larger than {LONGEST} bytes")));
    }
    let bytes = fs::read(file).map_err(|error| failed(&error))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::new(format!("failed to parse {file:?}: it contains invalid UTF-8 bytes")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// Reads `NAME=VALUE` pairs into a map.
pub fn pairs(given: &[String]) -> BTreeMap<String, String> {
    given
        .iter()
        .map(|text| text.split_once('=').unwrap_or((text, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_need_names() {
        assert_eq!(variables(&[], &["A=b=c".to_owned(), "B=".to_owned()]).unwrap(), ["A=b=c", "B="]);
        assert_eq!(
            variables(&[], &["=x".to_owned()]).unwrap_err().message,
            "invalid environment variable: =x"
        );
        let path = std::env::var("PATH").unwrap();
        assert_eq!(variables(&[], &["PATH".to_owned()]).unwrap(), [format!("PATH={path}")]);
        assert!(variables(&[], &["BERTH_NOT_SET_ANYWHERE".to_owned()]).unwrap().is_empty());
    }

    #[test]
    fn files_have_comments() {
        let file = std::env::temp_dir().join(format!("berth-env-{}", std::process::id()));
        fs::write(&file, "\u{feff}# comment\n\nA=1 # not a comment\n  B=2\n").unwrap();
        let found = variables(&[file.display().to_string()], &[]);
        fs::write(&file, "a b=1\n").unwrap();
        let refused = variables(&[file.display().to_string()], &[]);
        fs::remove_file(&file).unwrap();
        assert_eq!(found.unwrap(), ["A=1 # not a comment", "B=2"]);
        assert!(refused.unwrap_err().message.contains("contains whitespaces"));
        assert!(variables(&["/no/such/file".to_owned()], &[]).unwrap_err().message.contains("no such file"));
    }
}
