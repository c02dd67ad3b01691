//! The command line: flags to settings, tables, templates, progress, terminal.
#![forbid(unsafe_code)]
