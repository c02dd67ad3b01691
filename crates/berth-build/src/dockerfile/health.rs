//! `HEALTHCHECK`.

use berth_api::duration;
use berth_oci::config::Healthcheck;

use super::flags::{self, Flags, Kind};
use super::instruction::CommandLine;
use super::lines::Raw;
use super::{parse, words};
use crate::error::{Error, Fault, Result, wrong};

const FLAGS: [(&str, Kind); 5] = [
    ("interval", Kind::Text),
    ("timeout", Kind::Text),
    ("start-period", Kind::Text),
    ("start-interval", Kind::Text),
    ("retries", Kind::Text),
];

pub(super) fn healthcheck(raw: &Raw) -> Result<Healthcheck> {
    let (kind, rest) = words::first(&raw.rest);
    let kind = kind.to_uppercase();
    match kind.as_str() {
        "" => return wrong("HEALTHCHECK requires at least one argument"),
        "NONE" if !rest.is_empty() => return wrong("HEALTHCHECK NONE takes no arguments"),
        "NONE" => return Ok(Healthcheck { test: vec![kind], ..Healthcheck::default() }),
        _ => {}
    }
    let flags = flags::check(&raw.flags, &FLAGS)?;
    if kind != "CMD" {
        return wrong(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"));
    }
    let (form, words) = match parse::command(rest)? {
        CommandLine::Exec(words) => ("CMD", words),
        CommandLine::Shell(line) => ("CMD-SHELL", vec![line]),
    };
    if words.iter().all(String::is_empty) {
        return wrong("Missing command after HEALTHCHECK CMD");
    }
    Ok(Healthcheck {
        test: [form.to_owned()].into_iter().chain(words).collect(),
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

/// Nanoseconds; none for zero, which means the default.
fn interval(flags: &Flags, name: &str) -> Result<Option<i64>> {
    let Some(text) = flags.text(name) else { return Ok(None) };
    let time = duration::signed_nanoseconds(&text).map_err(|text| Error::new(Fault::Instruction(text)))?;
    match time {
        0 => Ok(None),
        ..1_000_000 => wrong(format!("Interval {name:?} cannot be less than 1ms")),
        time => Ok(Some(time)),
    }
}

fn retries(flags: &Flags) -> Result<Option<i64>> {
    let Some(text) = flags.text("retries") else { return Ok(None) };
    match text.parse::<i32>() {
        Ok(count @ ..0) => wrong(format!("--retries cannot be negative ({count})")),
        Ok(count) => Ok((count > 0).then_some(i64::from(count))),
        Err(_) => wrong(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")),
    }
}
