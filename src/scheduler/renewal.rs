//! Replaces workers after a change of variables: new workers first, then the old ones stop. The author of the change
//! learns when it is done.

use super::{DaemonHost, Scheduler, driver::Cell, pool::Event};
use crate::{
    model::WorkerId,
    worker::{Blueprint, StartError, Worker},
};
use std::sync::Arc;

/// A pool whose workers are being replaced because variables have changed.
#[derive(Debug)]
pub struct Renewal {
    cell: Arc<Cell<DaemonHost>>,
    /// Workers that were starting, and may have the previous variables.
    starting: Vec<WorkerId>,
    /// Failed starts of the pool before the renewal.
    failures: usize,
}

impl Renewal {
    /// Waits until every invocation gets a worker with the current variables, or until a start fails.
    pub async fn done(self) -> Result<(), Option<Arc<StartError>>> {
        let mut changes = self.cell.changes();
        loop {
            let has_started = |id: &WorkerId| !self.cell.is_starting(*id);
            if self.starting.iter().all(has_started) && outdated(&self.cell).is_empty() {
                return Ok(());
            }
            if self.cell.failures() > self.failures {
                return Err(self.cell.last_failure());
            }
            if changes.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Returns the function, version and environment of the pool.
    #[must_use]
    pub fn blueprint(&self) -> &Blueprint {
        &self.cell.code.blueprint
    }
}

impl Scheduler {
    /// Replaces all workers whose variables are outdated. Returns a renewal for each pool that has such a worker or is
    /// starting one.
    #[must_use]
    pub fn renew(&self) -> Vec<Renewal> {
        let mut renewals = Vec::new();
        for cell in self.0.cells() {
            let starting = cell.starting();
            let outdated = outdated(&cell);
            for id in &outdated {
                self.0.apply(&cell, Event::Worn(*id));
            }
            if !outdated.is_empty() || !starting.is_empty() {
                let failures = cell.failures();
                renewals.push(Renewal { cell, starting, failures });
            }
        }
        renewals
    }
}

/// Returns the workers that take invocations but have outdated variables.
fn outdated(cell: &Cell<DaemonHost>) -> Vec<WorkerId> {
    let blueprint = &cell.code.blueprint;
    let is_outdated = |worker: &Worker| !blueprint.has_current_variables(&worker.revisions);
    let workers = cell.workers().into_iter().filter(|(id, worker)| is_outdated(worker) && cell.is_serving(*id));
    workers.map(|(id, _)| id).collect()
}
