//! Tells the program what it is made of, for `version`: `BERTH_COMMIT` and `BERTH_BUILD_TIME` (RFC 3339) of the environment,
//! else the commit that is checked out and its time, or `SOURCE_DATE_EPOCH`: the same source makes the same program.
//! Without Git, or outside of its checkout, both are `unknown`.
//!
//! This is the crate that nothing else is made of: after a commit, nothing else is compiled again.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    for name in ["BERTH_COMMIT", "BERTH_BUILD_TIME", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let checkout = Checkout::find();
    for path in checkout.iter().flat_map(Checkout::what_a_commit_changes) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let git = |arguments: &[&str]| checkout.as_ref()?.git(arguments);
    let commit = variable("BERTH_COMMIT").or_else(|| git(&["rev-parse", "HEAD"]));
    let time = || {
        let seconds =
            variable("SOURCE_DATE_EPOCH").or_else(|| git(&["show", "-s", "--format=%ct", "HEAD"]))?;
        let parsed: Result<u32, _> = seconds.parse();
        Some(rfc3339(parsed.unwrap_or_else(|error| panic!("SOURCE_DATE_EPOCH={seconds}: {error}"))))
    };
    let time = variable("BERTH_BUILD_TIME").or_else(time);
    for (name, value) in [("BERTH_COMMIT", commit), ("BERTH_BUILD_TIME", time)] {
        println!("cargo::rustc-env={name}={}", value.as_deref().unwrap_or("unknown"));
    }
}

/// The first line of a variable that is not empty.
fn variable(name: &str) -> Option<String> {
    let value = env::var(name).ok()?;
    value.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

/// Git's checkout of Berth.
struct Checkout(PathBuf);

impl Checkout {
    /// Berth may lie in a checkout of something else, which says nothing about it.
    fn find() -> Option<Checkout> {
        let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
        let root = package.ancestors().nth(2)?.canonicalize().ok()?;
        let checkout = Checkout(root);
        let top = checkout.git(&["rev-parse", "--show-toplevel"])?;
        (Path::new(&top).canonicalize().ok()? == checkout.0).then_some(checkout)
    }

    /// What Git prints, if it is there and content.
    fn git(&self, arguments: &[&str]) -> Option<String> {
        // Nothing but what is asked for, whatever the user's settings are.
        let git = ["-c", "log.showSignature=false"];
        let output = Command::new("git").args(git).args(arguments).current_dir(&self.0).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.0.join(self.git(&["rev-parse", "--git-path", name])?))
    }

    /// Files that exist: cargo would run this always for one that does not.
    fn what_a_commit_changes(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.file("HEAD").into_iter().collect();
        // What is written for each, whatever form references have.
        paths.extend(self.file("logs/HEAD").filter(|file| file.exists()));
        if let Some(branch) = self.git(&["symbolic-ref", "-q", "HEAD"]).and_then(|branch| self.file(&branch))
        {
            if !branch.exists() {
                // It is among those that are packed, until a commit gives it a file of its own.
                paths.extend(self.file("packed-refs").filter(|file| file.exists()));
            }
            paths.extend(branch.ancestors().find(|path| path.exists()).map(Path::to_owned));
        }
        paths
    }
}

/// Seconds since 1970 as a date of the calendar, in UTC.
fn rfc3339(seconds: u32) -> String {
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap =
        |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u32::from(is_leap(year)) {
        days -= 365 + u32::from(is_leap(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + u32::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, days + 1)
}
