//! Other limits, and another restart policy, for a container that exists.
//!
//! The row is written first and the cgroup after it; where the kernel refuses, both are as they were. An engine that
//! ends between the two leaves a row whose limits the next one sets again.

use berth_api::container::{HostConfig, UpdateRequest, UpdateResponse};

use super::owner::{Owner, Request, ask};
use crate::blocking::blocking;
use crate::container::changes::{apply, merge, touched};
use crate::container::state::State;
use crate::create::validate::{Part, validate_update};
use crate::event::ContainerEvent;
use crate::{Engine, Error, op, spec};

impl Engine {
    /// Gives a container other limits, or another restart policy; what runs has the limits at once.
    pub async fn update(&self, name: &str, op: op::Update) -> Result<UpdateResponse, Error> {
        let mut asked = HostConfig::default();
        apply(&op.changes, &mut asked);
        validate_update(&asked, Part::Change, self.parts.cpus)?;
        let container = self.parts.containers.find(name)?;
        ask(&container, |answer| Request::Update(Box::new(op), answer)).await?;
        Ok(UpdateResponse::default())
    }
}

impl Owner {
    pub(super) async fn update(&mut self, op: op::Update) -> Result<(), Error> {
        let outcome = self.try_update(&op.changes).await;
        outcome
            .map_err(|error| Error::Update { id: self.container.id().to_owned(), source: Box::new(error) })?;
        self.tell(ContainerEvent::Update);
        Ok(())
    }

    async fn try_update(&mut self, changes: &UpdateRequest) -> Result<(), Error> {
        if matches!(self.container.state(), State::Removing) {
            return Err(Error::Conflict(
                "container is marked for removal and cannot be \"update\"".to_owned(),
            ));
        }
        let mut host = self.container.current().host.clone();
        check_against(changes, &host)?;
        apply(changes, &mut host);
        validate_update(&host, Part::Whole, self.parts.cpus)?;
        let before = self.container.kept().changes;
        self.change(|kept| kept.changes = Some(Box::new(merge(kept.changes.as_deref(), changes))))?;
        let applied = self.set_limits(&touched(changes, &host)).await;
        applied.inspect_err(|_| self.change_regardless(|kept| kept.changes.clone_from(&before)))
    }

    /// Sets those limits of a running container that `host` names.
    async fn set_limits(&self, host: &HostConfig) -> Result<(), Error> {
        if !matches!(self.container.state(), State::Running(_)) {
            return Ok(());
        }
        let resources = spec::resources::changed(host)?;
        let cgroup = self.cgroup()?;
        blocking(move || Ok(cgroup.update(&resources)?)).await
    }

    /// Sets again what updates have changed: an earlier engine may have ended before it did.
    pub(super) async fn renew_limits(&self) {
        let Some(changes) = self.container.kept().changes else { return };
        let host = self.container.current().host.clone();
        if let Err(error) = self.set_limits(&touched(&changes, &host)).await {
            tracing::warn!(container = self.container.id(), %error, "its limits could not be set again");
        }
    }
}

/// What an update must not change, because of what was set before.
fn check_against(changes: &UpdateRequest, host: &HostConfig) -> Result<(), Error> {
    let conflict = |text: &str| Err(Error::Conflict(text.to_owned()));
    if changes.nano_cpus > 0 && host.cpu_period > 0 {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        );
    }
    if changes.nano_cpus > 0 && host.cpu_quota > 0 {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        );
    }
    if changes.cpu_period > 0 && host.nano_cpus > 0 {
        return conflict(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        );
    }
    if changes.cpu_quota > 0 && host.nano_cpus > 0 {
        return conflict("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
    }
    if changes.memory > host.memory_swap && changes.memory != 0 && changes.memory_swap == 0 {
        return conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    if host.auto_remove && !matches!(changes.restart_policy.name.as_str(), "" | "no") {
        return conflict("Restart policy cannot be updated because AutoRemove is enabled for the container");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use berth_api::container::RestartPolicy;

    use super::*;

    #[test]
    fn conflicts_with_what_is_set_are_told_in_dockers_words() {
        let nano = UpdateRequest { nano_cpus: 1, ..Default::default() };
        let period = UpdateRequest { cpu_period: 1000, ..Default::default() };
        let quota = UpdateRequest { cpu_quota: 1000, ..Default::default() };
        let memory = UpdateRequest { memory: 8 << 20, ..Default::default() };
        let policy = UpdateRequest {
            restart_policy: RestartPolicy { name: "always".into(), ..Default::default() },
            ..Default::default()
        };
        let cases: [(&UpdateRequest, HostConfig, &str); 6] = [
            (
                &nano,
                HostConfig { cpu_period: 1, ..Default::default() },
                "Nano CPUs cannot be updated as CPU Period",
            ),
            (
                &nano,
                HostConfig { cpu_quota: 1, ..Default::default() },
                "Nano CPUs cannot be updated as CPU Quota",
            ),
            (
                &period,
                HostConfig { nano_cpus: 1, ..Default::default() },
                "CPU Period cannot be updated as NanoCPUs",
            ),
            (
                &quota,
                HostConfig { nano_cpus: 1, ..Default::default() },
                "CPU Quota cannot be updated as NanoCPUs",
            ),
            (
                &memory,
                HostConfig { memory: 6 << 20, memory_swap: 7 << 20, ..Default::default() },
                "smaller than already set memoryswap limit",
            ),
            (
                &policy,
                HostConfig { auto_remove: true, ..Default::default() },
                "because AutoRemove is enabled",
            ),
        ];
        for (changes, host, text) in cases {
            let error = check_against(changes, &host).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(error.kind(), crate::ErrorKind::Conflict);
            check_against(&UpdateRequest::default(), &host).unwrap();
        }
        let both = UpdateRequest { memory_swap: 16 << 20, ..memory };
        check_against(&both, &HostConfig::default()).unwrap();
    }
}
