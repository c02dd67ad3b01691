//! Warnings about a Dockerfile, told to clients that ask for them.

use std::collections::BTreeMap;

use berth_api::build::{Checked, Failed, Lint, Place, Warning};
use berth_archive::ignore::Ignore;
use berth_build::dockerfile::Dockerfile;
use berth_build::lint::{self, Surroundings};
use berth_build::variables::Given;
use berth_oci::config::ContainerDefaults;

use super::executor::Worker;
use crate::Error;

/// Looks at one Dockerfile.
pub(super) struct Checker<'a> {
    /// It.
    pub file: &'a Dockerfile,
    /// Its text.
    pub text: &'a [u8],
    /// What the build was told.
    pub given: &'a Given,
    /// What stays out of the context.
    pub ignore: &'a Ignore,
}

/// Tells a client that shows such where in the Dockerfile the build has failed, before it hears of the failure.
pub(super) fn tell_place(worker: &Worker, error: &Error, text: &[u8]) {
    let own = if let Error::Build(error) = error { error.lines() } else { None };
    let lines = worker.failed.get().copied().or(own);
    let Some(lines) = lines.filter(|_| worker.request.lint != Lint::No && worker.check().is_ok()) else {
        return;
    };
    let failed = Some(Place { first: lines.first, last: lines.last });
    let failed = Failed { failed, source: String::from_utf8_lossy(text).into_owned() };
    // A client that is gone misses nothing.
    let _ = worker.output.aside(serde_json::json!(failed));
}

impl Checker<'_> {
    /// Whether there is something to build after this: warnings are told if nothing else is wanted, and fail the build if the
    /// Dockerfile says so.
    pub fn run(&self, worker: &mut Worker) -> Result<bool, Error> {
        if worker.request.lint != Lint::Only && self.file.directives.check.is_none() {
            return Ok(true);
        }
        let (found, fails) = self.check(worker)?;
        if worker.request.lint == Lint::Only {
            self.send(worker, &found)?;
            return Ok(false);
        }
        if fails {
            if worker.request.lint == Lint::Also {
                self.send(worker, &found)?;
            }
            return Err(Error::InvalidParameter(lint::failure(&found)));
        }
        Ok(true)
    }

    /// Tells a client that asks for it what was found, now that all images are here that the stages begin with.
    pub fn tell(&self, worker: &mut Worker) -> Result<(), Error> {
        if worker.request.lint != Lint::Also {
            return Ok(());
        }
        let (found, _) = self.check(worker)?;
        self.send(worker, &found)
    }

    fn check(&self, worker: &Worker) -> Result<(Vec<lint::Warning>, bool), Error> {
        let contexts: BTreeMap<String, &String> = worker
            .request
            .contexts
            .iter()
            .map(|(name, place)| (berth_build::stages::normal(name), place))
            .collect();
        // Nothing is fetched for this: of images that are not here, nothing is known.
        let base = |name: &str| -> Option<ContainerDefaults> {
            let name = match contexts.get(&berth_build::stages::normal(name)) {
                Some(place) => place.strip_prefix("docker-image://")?,
                None => name,
            };
            let found = worker.parts().images.resolve_for(name, worker.request.platform.as_ref()).ok()?;
            Some(found.config.config)
        };
        let surroundings = Surroundings { given: self.given, ignore: self.ignore, base: &base };
        Ok(lint::check(self.file, &surroundings)?)
    }

    fn send(&self, worker: &Worker, found: &[lint::Warning]) -> Result<(), Error> {
        let warning = |warning: &lint::Warning| Warning {
            rule: warning.rule.name(),
            description: warning.rule.description().to_owned(),
            url: warning.rule.url().unwrap_or_default(),
            message: warning.message.clone(),
            first: warning.lines.first,
            last: warning.lines.last,
        };
        let warnings = Some(found.iter().map(warning).collect());
        let source = String::from_utf8_lossy(self.text).into_owned();
        worker.output.aside(serde_json::json!(Checked { warnings, source }))
    }
}
