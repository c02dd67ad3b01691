//! The manual pages of the groups of commands, which are made from the commands themselves.
//!
//! `BERTH_WRITE_MAN=1 cargo test -p berth-cli man` writes them anew.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::grammar::{self, Found};
use crate::help;

const GROUPS: [&str; 8] =
    ["builder", "container", "context", "image", "manifest", "network", "system", "volume"];

/// A text as troff takes it literally.
fn plain(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq")
}

fn find(words: &[&str]) -> Found {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    grammar::find("berth", crate::command_line(), &words)
}

fn page(group: &str) -> String {
    let found = find(&[group]);
    let about =
        |found: &Found| plain(&found.command.get_about().map(ToString::to_string).unwrap_or_default());
    let mut page = format!(
        ".\\\" Made from the commands; see crates/berth-cli/src/man.rs.\n.Dd November 21, 2026\n.Dt BERTH-{} 1\n.Os\n\
         .Sh NAME\n.Nm berth-{group}\n.Nd {}\n.Sh SYNOPSIS\n.Nm berth {group}\n.Ar command\n.Op Ar argument ...\n\
         .Sh DESCRIPTION\n{}.\n.Sh COMMANDS\n",
        group.to_uppercase(),
        about(&found).to_lowercase(),
        about(&found),
    );
    let mut names: Vec<String> =
        found.command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.sort();
    for name in names {
        let found = find(&[group, &name]);
        page.push_str(&format!(
            ".Ss {name}\n.Dl {}\n.Pp\n{}.\n",
            plain(&grammar::usage(&found)),
            about(&found)
        ));
        if grammar::options(&found.command).next().is_none() {
            continue;
        }
        page.push_str(".Bl -tag -width Ds\n");
        for arg in grammar::options(&found.command) {
            let flag = plain(help::flag(arg).trim());
            page.push_str(&format!(".It Cm {flag}\n{}.\n", plain(&help::described(arg))));
        }
        page.push_str(".El\n");
    }
    page + ".Sh SEE ALSO\n.Xr berth 1\n"
}

fn path(group: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/man/berth-{group}.1"))
}

#[test]
fn manual_pages_tell_of_all_commands() {
    for group in GROUPS {
        let page = page(group);
        if std::env::var_os("BERTH_WRITE_MAN").is_some() {
            std::fs::write(path(group), &page).unwrap();
        }
        let there = std::fs::read_to_string(path(group)).unwrap_or_default();
        assert!(
            there == page,
            "docs/man/berth-{group}.1 is old: run BERTH_WRITE_MAN=1 cargo test -p berth-cli man"
        );
    }
}
