//! All pools of a host: made when they are first needed, told that time has passed, and removed when they are over.

use super::{
    super::{
        node::PoolId,
        pool::{Event, Limits},
    },
    Cell, Driver, Floor, Host,
};
use crate::model::VersionId;
use std::{collections::HashMap, sync::Arc};

#[derive(Debug)]
pub(super) struct Pools<H: Host> {
    /// Pools by version. A version has one for each environment it runs in, and these are few.
    cells: HashMap<VersionId, Vec<Arc<Cell<H>>>>,
    /// Number of pools ever made; the source of pool ids.
    made: u64,
    /// Set when the daemon stops: a pool made after that is closed at once.
    closed: bool,
}

impl<H: Host> Default for Pools<H> {
    fn default() -> Self {
        Self { cells: HashMap::new(), made: 0, closed: false }
    }
}

impl<H: Host> Pools<H> {
    fn find(&self, version: VersionId, is_it: impl Fn(&H::Code) -> bool) -> Option<Arc<Cell<H>>> {
        self.cells.get(&version)?.iter().find(|cell| is_it(&cell.code)).cloned()
    }
}

impl<H: Host> Driver<H> {
    /// Returns a version's pool for which `is_it` holds; makes it first if there is none.
    pub(in super::super) fn pool(
        self: &Arc<Self>,
        version: VersionId,
        is_it: impl Fn(&H::Code) -> bool,
        make: impl FnOnce() -> (H::Code, Limits, Floor),
    ) -> Arc<Cell<H>> {
        let (cell, closed) = {
            let mut pools = self.pools.write();
            let cell = pools.find(version, is_it).unwrap_or_else(|| {
                let (code, settings, floor) = make();
                pools.made += 1;
                let cell = Arc::new(Cell::new(PoolId(pools.made), code, settings, floor));
                pools.cells.entry(version).or_default().push(Arc::clone(&cell));
                cell
            });
            (cell, pools.closed)
        };
        if closed {
            self.apply(&cell, Event::Close);
        }
        cell
    }

    /// Returns a version's pool for which `is_it` holds.
    pub(in super::super) fn existing(
        &self,
        version: VersionId,
        is_it: impl Fn(&H::Code) -> bool,
    ) -> Option<Arc<Cell<H>>> {
        self.pools.read().find(version, is_it)
    }

    /// Returns a version's pools.
    pub(in super::super) fn pools_of(&self, version: VersionId) -> Vec<Arc<Cell<H>>> {
        self.pools.read().cells.get(&version).cloned().unwrap_or_default()
    }

    pub(in super::super) fn cells(&self) -> Vec<Arc<Cell<H>>> {
        let mut cells = self.pools.read().cells.values().flatten().cloned().collect();
        self.host.arrange(&mut cells);
        cells
    }

    /// Searches all pools: cheap compared with the start of the worker that it is for.
    pub(super) fn cell(&self, pool: PoolId) -> Option<Arc<Cell<H>>> {
        self.pools.read().cells.values().flatten().find(|cell| cell.id == pool).cloned()
    }

    /// Closes all pools, and those that are still to be made.
    pub(in super::super) fn close(self: &Arc<Self>) {
        self.pools.write().closed = true;
        for cell in self.cells() {
            self.apply(&cell, Event::Close);
        }
    }

    /// Tells every pool that time has passed, and removes closed pools.
    pub(in super::super) fn tick(self: &Arc<Self>) {
        let now = self.host.now();
        let is_starving = self.node.lock().is_starving(now);
        for cell in self.cells() {
            if cell.is_floor_over(now, is_starving) {
                self.apply(&cell, cell.set_rules(None, Some(Floor::Nothing)));
            }
            self.apply(&cell, Event::Tick);
            self.retire_blocked(&cell);
        }
        self.pools.write().cells.retain(|_, cells| {
            cells.retain(|cell| !cell.is_over());
            !cells.is_empty()
        });
    }

    /// Retires workers that block several invocations at once, so that they take no more.
    fn retire_blocked(self: &Arc<Self>, cell: &Arc<Cell<H>>) {
        if cell.concurrency() == 1 {
            return;
        }
        for (id, worker) in cell.workers() {
            if self.host.is_blocked(&worker) {
                self.apply(cell, Event::Retire(id));
            }
        }
    }

    /// Has worn workers replaced.
    pub(in super::super) fn replace_worn(self: &Arc<Self>) {
        for cell in self.cells() {
            for (id, worker) in cell.workers() {
                if self.host.is_worn(&cell, &worker) {
                    self.apply(&cell, Event::Worn(id));
                }
            }
        }
    }
}
