//! Where an archive goes that a command writes: a file, or standard output if that is no terminal.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use berth_client::ResponseBody;

use crate::counter::Counter;
use crate::failure::{Failure, Outcome};

/// Where an archive goes.
#[derive(Debug)]
pub enum Place {
    /// This file, once it is whole.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

impl Place {
    /// The place that the flag `--output` gives, checked before anything is asked of the daemon; `failed` is what an
    /// error begins with.
    pub fn choose(output: Option<&str>, failed: &str) -> Outcome<Self> {
        match output.filter(|path| !path.is_empty()) {
            Some(path) => check(Path::new(path), failed).map(Self::File),
            None if std::io::stdout().is_terminal() => {
                Err(Failure::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"))
            }
            None => Ok(Self::Stdout),
        }
    }

    /// Writes the archive there.
    pub async fn write(&self, archive: ResponseBody) -> Outcome {
        match self {
            Self::File(path) => {
                let mut counter = Counter::new(format!("Writing {}", path.display()));
                let outcome = to_file(archive, path, |bytes| counter.add(bytes)).await;
                counter.end();
                outcome
            }
            // Whoever reads it may have a count of their own.
            Self::Stdout => {
                let mut out = std::io::stdout().lock();
                copy(archive, &mut out, "write to standard output", |_| ()).await
            }
        }
    }
}

/// Refuses a path where no file can come to be.
fn check(path: &Path, failed: &str) -> Outcome<PathBuf> {
    let invalid = |reason: String| Failure::new(format!("{failed}: {reason}"));
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        let text =
            format!("invalid output path: directory {:?} does not exist", parent.display().to_string());
        return Err(invalid(text));
    }
    if path.is_dir() {
        let text = format!("invalid output path: {:?} must not be a directory", path.display().to_string());
        return Err(invalid(text));
    }
    Ok(path.to_owned())
}

/// Writes beside the file and takes its place at the end: what was there is not lost to half an archive.
async fn to_file(archive: ResponseBody, path: &Path, written: impl FnMut(usize)) -> Outcome {
    // A device or pipe is written as it is.
    if path.exists() && !path.is_file() {
        let mut file = File::options().write(true).open(path).map_err(|error| at("open", path, &error))?;
        return copy(archive, &mut file, &format!("write {}", path.display()), written).await;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut file = File::create_new(&beside).map_err(|error| at("open", &beside, &error))?;
    let outcome = match copy(archive, &mut file, &format!("write {}", beside.display()), written).await {
        Ok(()) => std::fs::rename(&beside, path).map_err(|error| at("rename", &beside, &error)),
        failed => failed,
    };
    if outcome.is_err() {
        // The first failure is the one to tell.
        let _ = std::fs::remove_file(&beside);
    }
    outcome
}

fn at(operation: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::io(format_args!("{operation} {}", path.display()), error)
}

async fn copy(
    mut archive: ResponseBody,
    out: &mut impl std::io::Write,
    operation: &str,
    mut written: impl FnMut(usize),
) -> Outcome {
    while let Some(chunk) = archive.chunk().await? {
        out.write_all(&chunk).map_err(|error| Failure::io(operation, &error))?;
        written(chunk.len());
    }
    out.flush().map_err(|error| Failure::io(operation, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_checked_first() {
        let temp = std::env::temp_dir();
        check(&temp.join("new.tar"), "failed to save image").unwrap();
        assert!(
            check(&temp, "failed to save image").unwrap_err().message.contains("must not be a directory")
        );
        let missing = check(&temp.join("absent/new.tar"), "failed to save image").unwrap_err();
        assert!(
            missing.message.starts_with("failed to save image: invalid output path: directory"),
            "{missing}"
        );
    }
}
