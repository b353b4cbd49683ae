//! After a change of variables: new workers first, then the old ones go, and whoever made the change learns when.

use super::{Scheduler, cell::Cell, pool::Event};
use crate::{
    model::WorkerId,
    worker::{Blueprint, StartError},
};
use std::sync::Arc;

/// The workers of a pool are being replaced because variables have changed.
#[derive(Debug)]
pub struct Renewal {
    cell: Arc<Cell>,
    /// Those that were starting, and may have got the variables from before.
    starting: Vec<WorkerId>,
    /// Starts that had failed.
    failures: usize,
}

impl Renewal {
    /// Waits until every call gets a worker with the present variables; no longer than until a start fails.
    pub async fn done(self) -> Result<(), Option<Arc<StartError>>> {
        let mut changes = self.cell.changes();
        loop {
            if self.cell.is_renewed(&self.starting) {
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

    /// The function, the version and the environment that it is about.
    #[must_use]
    pub fn blueprint(&self) -> &Blueprint {
        &self.cell.blueprint
    }
}

impl Scheduler {
    /// Has all workers replaced that would get other variables now. Answers the pools that they are in, or start in.
    #[must_use]
    pub fn renew(&self) -> Vec<Renewal> {
        let mut renewals = Vec::new();
        for cell in self.0.cells() {
            let starting = cell.starting();
            let outdated = cell.outdated();
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
