//! Instructions that `commit` and `import` take as changes: those that change an image's configuration and nothing else.

use berth_oci::config::ImageConfig;

use crate::configure::{Draft, Settings};
use crate::dockerfile::{Dockerfile, Instruction};
use crate::error::{Error, Fault, Result};
use crate::expand::Words;
use crate::variables::{Given, Globals};

/// `image` after the instructions of `text`.
///
/// # Errors
/// An instruction that is not for changes or makes no sense. The text names no line: changes are no file.
pub fn change(image: ImageConfig, text: &str) -> Result<ImageConfig> {
    let file = Dockerfile::read(text.as_bytes()).map_err(|error| match error.fault() {
        Fault::UnknownInstruction(keyword) => refused(keyword),
        fault => Error::new(fault.clone()),
    })?;
    if let Some(statement) = file.statements.iter().find(|statement| !is_change(&statement.instruction)) {
        return Err(refused(&statement.keyword));
    }
    let (given, globals) = (Given::default(), Globals::default());
    let settings = Settings { given: &given, globals: &globals, words: Words::new(file.directives.escape) };
    let mut draft = Draft::bare(image);
    for statement in &file.statements {
        draft.apply(&statement.instruction, settings)?;
    }
    Ok(draft.image)
}

fn refused(keyword: &str) -> Error {
    Error::new(Fault::Instruction(format!("{keyword} is not a valid change command")))
}

fn is_change(instruction: &Instruction) -> bool {
    use Instruction::{
        Cmd, Entrypoint, Env, Expose, Healthcheck, Label, OnBuild, StopSignal, User, Volume, Workdir,
    };
    matches!(
        instruction,
        Cmd(_)
            | Entrypoint(_)
            | Env(_)
            | Expose(_)
            | Healthcheck(_)
            | Label(_)
            | OnBuild(_)
            | StopSignal(_)
            | User(_)
            | Volume(_)
            | Workdir(_)
    )
}

#[cfg(test)]
mod tests {
    use berth_oci::config::ContainerDefaults;

    use super::*;

    fn changed(config: ContainerDefaults, text: &str) -> Result<ContainerDefaults, String> {
        let image = ImageConfig { config, ..ImageConfig::default() };
        change(image, text).map(|image| image.config).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_but_what_is_asked_for_changes() {
        let before = ContainerDefaults {
            env: vec!["A=old".into()],
            on_build: Some(vec!["RUN x".into()]),
            ..ContainerDefaults::default()
        };
        let after = changed(before.clone(), "env B=$A\nONBUILD RUN y").unwrap();
        let expected = ContainerDefaults {
            env: vec!["A=old".into(), "B=old".into()],
            on_build: Some(vec!["RUN x".into(), "RUN y".into()]),
            ..before
        };
        assert_eq!(after, expected);
    }

    #[test]
    fn an_entry_point_takes_an_older_command_away() {
        let line = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let before = || ContainerDefaults { cmd: line(&["old"]), ..ContainerDefaults::default() };
        assert_eq!(changed(before(), "ENTRYPOINT /e").unwrap().cmd, None);
        assert_eq!(changed(before(), "CMD [\"new\"]\nENTRYPOINT /e").unwrap().cmd, line(&["new"]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_dockers_words() {
        for (text, error) in [
            ("", "file with no instructions"),
            ("RUN x", "RUN is not a valid change command"),
            ("run", "run is not a valid change command"),
            ("FROM x", "FROM is not a valid change command"),
            ("NOTHING", "NOTHING is not a valid change command"),
            ("CMD a\nARG x", "ARG is not a valid change command"),
            ("ENV a", "ENV must have two arguments"),
            ("EXPOSE 9-1", "invalid containerPort: 9-1"),
            ("STOPSIGNAL NONE", "invalid signal: NONE"),
            ("USER --x y", "unknown flag: --x"),
        ] {
            assert_eq!(changed(ContainerDefaults::default(), text).unwrap_err(), error, "{text}");
        }
    }
}
