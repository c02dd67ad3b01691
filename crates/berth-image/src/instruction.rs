//! Instructions of a Dockerfile that change an image's configuration and nothing else: what `commit` and `import` take as
//! changes.

mod apply;
mod words;

use berth_api::duration;
use berth_oci::config::Healthcheck;

pub use apply::apply;

/// An instruction, its words as they were written: variables are not yet replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `CMD`.
    Cmd(CommandLine),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `ENV`: names and values.
    Env(Vec<(String, String)>),
    /// `EXPOSE`: ports.
    Expose(Vec<String>),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `LABEL`: names and values.
    Label(Vec<(String, String)>),
    /// `ONBUILD`: the instruction that follows it.
    OnBuild(String),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `USER`.
    User(String),
    /// `VOLUME`: paths.
    Volume(Vec<String>),
    /// `WORKDIR`.
    Workdir(String),
}

/// A command, in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// `["program", "argument"]`.
    Exec(Vec<String>),
    /// A line for the shell.
    Shell(String),
}

/// Why instructions cannot be used; the text is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InstructionError(String);

type Result<T, E = InstructionError> = std::result::Result<T, E>;

fn wrong<T>(text: impl Into<String>) -> Result<T> {
    Err(InstructionError(text.into()))
}

/// Reads instructions, one on a line; a line that ends with a backslash goes on with the next one.
///
/// # Errors
/// An instruction that is not among them, or malformed.
pub fn parse(text: &str) -> Result<Vec<Instruction>> {
    let found = lines(text).iter().map(|line| instruction(line)).collect::<Result<Vec<_>>>()?;
    if found.is_empty() { wrong("file with no instructions") } else { Ok(found) }
}

/// Lines with their continuations, without comments and blank lines.
fn lines(text: &str) -> Vec<String> {
    let (mut found, mut line) = (Vec::new(), String::new());
    for part in text.lines() {
        let bare = part.trim();
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let part = if line.is_empty() { part.trim_start() } else { part };
        match part.trim_end().strip_suffix('\\') {
            Some(begun) => line.push_str(begun),
            None => {
                line.push_str(part);
                found.push(std::mem::take(&mut line));
            }
        }
    }
    if !line.is_empty() {
        found.push(line);
    }
    found.iter().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn instruction(line: &str) -> Result<Instruction> {
    let (keyword, rest) = split(line);
    let name = keyword.to_ascii_uppercase();
    let (flags, rest) = flags(rest)?;
    let known = matches!(
        name.as_str(),
        "CMD"
            | "ENTRYPOINT"
            | "ENV"
            | "EXPOSE"
            | "HEALTHCHECK"
            | "LABEL"
            | "ONBUILD"
            | "STOPSIGNAL"
            | "USER"
            | "VOLUME"
            | "WORKDIR"
    );
    if !known {
        return wrong(format!("{keyword} is not a valid change command"));
    }
    if let (false, Some((flag, _))) = (name == "HEALTHCHECK", flags.first()) {
        return wrong(format!("unknown flag: --{flag}"));
    }
    let one = |rest: &str| match rest {
        "" => wrong(format!("{name} requires exactly one argument")),
        rest => Ok(rest.to_owned()),
    };
    Ok(match name.as_str() {
        "CMD" => Instruction::Cmd(command(rest)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)?),
        "ENV" => Instruction::Env(pairs(&name, rest)?),
        "EXPOSE" => Instruction::Expose(several(&name, words_of(rest))?),
        "HEALTHCHECK" => Instruction::Healthcheck(health(&flags, rest)?),
        "LABEL" => Instruction::Label(pairs(&name, rest)?),
        "ONBUILD" => Instruction::OnBuild(trigger(rest)?),
        "STOPSIGNAL" => Instruction::StopSignal(one(rest)?),
        "USER" => Instruction::User(one(rest)?),
        "VOLUME" => Instruction::Volume(volumes(rest)?),
        _ => Instruction::Workdir(one(rest)?),
    })
}

/// The first word, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((first, rest)) => (first, rest.trim_start()),
        None => (text, ""),
    }
}

/// Flags with their values, and what follows them.
fn flags(mut rest: &str) -> Result<(Vec<(&str, &str)>, &str)> {
    let mut found = Vec::new();
    while rest.starts_with("--") {
        let (word, after) = split(rest);
        rest = after;
        if word == "--" {
            break;
        }
        let flag = word.trim_start_matches('-');
        match flag.split_once('=') {
            Some((name, value)) => found.push((name, value)),
            None => found.push((flag, "")),
        }
    }
    Ok((found, rest))
}

fn words_of(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn several(name: &str, words: Vec<String>) -> Result<Vec<String>> {
    if words.is_empty() { wrong(format!("{name} requires at least one argument")) } else { Ok(words) }
}

/// A JSON array of texts; none if the text is no JSON array.
fn json_list(text: &str) -> Result<Option<Vec<String>>> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let texts = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => wrong("when using JSON array syntax, arrays must be comprised of strings only"),
    });
    texts.collect::<Result<_>>().map(Some)
}

fn command(rest: &str) -> Result<CommandLine> {
    Ok(match json_list(rest)? {
        Some(words) => CommandLine::Exec(words),
        None => CommandLine::Shell(rest.to_owned()),
    })
}

/// `name=value …`, or the older `name value`.
fn pairs(instruction: &str, rest: &str) -> Result<Vec<(String, String)>> {
    let words = words::split(rest);
    let Some(first) = words.first() else {
        return wrong(format!("{instruction} requires at least one argument"));
    };
    let found = if first.contains('=') {
        let pair = |word: &String| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => {
                wrong(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value"))
            }
        };
        words.iter().map(pair).collect::<Result<Vec<_>>>()?
    } else {
        match split(rest) {
            (_, "") => return wrong(format!("{instruction} must have two arguments")),
            (name, value) => vec![(name.to_owned(), value.to_owned())],
        }
    };
    if found.iter().any(|(name, _)| name.is_empty()) {
        return wrong(format!("{instruction} names can not be blank"));
    }
    Ok(found)
}

fn volumes(rest: &str) -> Result<Vec<String>> {
    let words = match json_list(rest)? {
        Some(words) => words,
        None => words_of(rest),
    };
    let words: Vec<String> = words.iter().map(|word| word.trim().to_owned()).collect();
    if words.iter().any(String::is_empty) {
        return wrong("VOLUME specified can not be an empty string");
    }
    several("VOLUME", words)
}

fn trigger(rest: &str) -> Result<String> {
    let (keyword, _) = split(rest);
    match keyword.to_ascii_uppercase().as_str() {
        "" => wrong("ONBUILD requires at least one argument"),
        "ONBUILD" => wrong("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        name @ ("MAINTAINER" | "FROM") => wrong(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ => Ok(rest.to_owned()),
    }
}

fn health(flags: &[(&str, &str)], rest: &str) -> Result<Healthcheck> {
    let (kind, rest) = split(rest);
    let mut check = Healthcheck::default();
    let upper = kind.to_ascii_uppercase();
    match upper.as_str() {
        "" => return wrong("HEALTHCHECK requires at least one argument"),
        "NONE" if !rest.is_empty() => return wrong("HEALTHCHECK NONE takes no arguments"),
        "NONE" => check.test = vec![upper],
        "CMD" => {
            let (form, words) = match command(rest)? {
                CommandLine::Exec(words) => ("CMD", words),
                CommandLine::Shell(line) => ("CMD-SHELL", vec![line]),
            };
            if words.iter().all(String::is_empty) {
                return wrong("Missing command after HEALTHCHECK CMD");
            }
            check.test = [form.to_owned()].into_iter().chain(words).collect();
        }
        _ => return wrong(format!("Unknown type {upper:?} in HEALTHCHECK (try CMD)")),
    }
    for &(name, value) in flags {
        match name {
            "interval" => check.interval = interval(name, value)?,
            "timeout" => check.timeout = interval(name, value)?,
            "start-period" => check.start_period = interval(name, value)?,
            "start-interval" => check.start_interval = interval(name, value)?,
            "retries" => check.retries = retries(value)?,
            _ => return wrong(format!("unknown flag: --{name}")),
        }
    }
    Ok(check)
}

/// Nanoseconds; none for zero, which means the default.
fn interval(name: &str, value: &str) -> Result<Option<i64>> {
    let time = duration::signed_nanoseconds(value).map_err(InstructionError)?;
    match time {
        0 => Ok(None),
        ..1_000_000 => wrong(format!("Interval {name:?} cannot be less than 1ms")),
        time => Ok(Some(time)),
    }
}

fn retries(value: &str) -> Result<Option<i64>> {
    match value.parse::<i64>() {
        Ok(count @ ..0) => wrong(format!("--retries cannot be negative ({count})")),
        Ok(count) => Ok((count > 0).then_some(count)),
        Err(_) => wrong(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn instructions_are_read_as_docker_reads_them() {
        let text = "# a comment\ncmd [\"/a\", \"b c\"]\nENTRYPOINT exec /e\nENV A=1 \\\n  # not here\n  B=\"x y\"\nENV C d e\n\
            EXPOSE 80 53/udp\nLABEL k=v\nONBUILD RUN make\nUSER 1:2\nVOLUME [\"/v\", \"/w x\"]\nvolume /a /b\n\nWORKDIR /w";
        let found = parse(text).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let expected = [
            Instruction::Cmd(CommandLine::Exec(list(&["/a", "b c"]))),
            Instruction::Entrypoint(CommandLine::Shell("exec /e".into())),
            Instruction::Env(vec![pair("A", "1"), pair("B", "\"x y\"")]),
            Instruction::Env(vec![pair("C", "d e")]),
            Instruction::Expose(list(&["80", "53/udp"])),
            Instruction::Label(vec![pair("k", "v")]),
            Instruction::OnBuild("RUN make".into()),
            Instruction::User("1:2".into()),
            Instruction::Volume(list(&["/v", "/w x"])),
            Instruction::Volume(list(&["/a", "/b"])),
            Instruction::Workdir("/w".into()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn health_checks_have_flags() {
        let found =
            parse("HEALTHCHECK --interval=5s --retries=3 --timeout=0s CMD curl -f x || exit 1").unwrap();
        let Instruction::Healthcheck(check) = &found[0] else { panic!("{found:?}") };
        assert_eq!(check.test, ["CMD-SHELL", "curl -f x || exit 1"]);
        assert_eq!((check.interval, check.retries, check.timeout), (Some(5_000_000_000), Some(3), None));
        let found = parse("HEALTHCHECK none").unwrap();
        assert!(matches!(&found[0], Instruction::Healthcheck(check) if check.test == ["NONE"]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_dockers_words() {
        for (text, error) in [
            ("", "file with no instructions"),
            ("RUN x", "RUN is not a valid change command"),
            ("FROM x", "FROM is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV a", "ENV must have two arguments"),
            ("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
            ("LABEL =x", "LABEL names can not be blank"),
            ("EXPOSE", "EXPOSE requires at least one argument"),
            ("USER", "USER requires exactly one argument"),
            ("VOLUME []", "VOLUME requires at least one argument"),
            ("VOLUME [\" \"]", "VOLUME specified can not be an empty string"),
            ("CMD [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
            ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
            ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
            ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
            ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
            ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
            ("HEALTHCHECK TCP x", "Unknown type \"TCP\" in HEALTHCHECK (try CMD)"),
            ("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"),
            ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
            ("HEALTHCHECK --often CMD x", "unknown flag: --often"),
            ("USER --x y", "unknown flag: --x"),
        ] {
            assert_eq!(refused(text), error, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "((ENV|LABEL|CMD|HEALTHCHECK|EXPOSE|VOLUME|ONBUILD|x)?[ -~\u{e4}\n]{0,24}){0,3}") {
            if let Ok(found) = parse(&text) {
                let _ = apply(&found, &mut berth_oci::config::ContainerDefaults::default());
            }
        }
    }
}
