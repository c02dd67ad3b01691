//! The processes of a container.

use berth_api::container::TopResponse;

use super::processes::{self, Column, Host, Process};
use crate::blocking::blocking;
use crate::container::state::State;
use crate::event::ContainerEvent;
use crate::{Engine, Error};

impl Engine {
    /// The processes of a container; `ps_args` as for `ps`, empty for `-ef`.
    pub async fn top(&self, name: &str, ps_args: &str) -> Result<TopResponse, Error> {
        let listing = processes::listing(ps_args)?;
        let container = self.parts.containers.find(name)?;
        match container.state() {
            State::Running(_) => {}
            State::Restarting(_) => return Err(Error::restarting(container.id())),
            _ => return Err(Error::NotRunning(container.id().to_owned())),
        }
        let cgroup = self.parts.cgroup(&container)?;
        let answer = blocking(move || {
            let host = Host::read();
            let mut listed: Vec<_> = cgroup.pids()?.into_iter().filter_map(Process::read).collect();
            listing.sort(&mut listed, &host);
            let columns = &listing.columns;
            let row = |process: &Process| columns.iter().map(|c| process.value(*c, &host)).collect();
            let processes = listed.iter().map(row).collect();
            let titles = columns.iter().map(|c| Column::title(*c).to_owned()).collect();
            Ok(TopResponse { processes, titles })
        });
        let answer = answer.await?;
        self.parts.events.publish(container.event(ContainerEvent::Top));
        Ok(answer)
    }
}
