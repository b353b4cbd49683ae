//! The workers of a pool, each in one state, and the questions its decisions ask about them.

use super::{Counts, Limits};
use crate::model::WorkerId;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Which invocations a busy worker has is known to their callers, and decides nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerState {
    /// It waits for a place on the node; there is no process.
    Planned {
        purpose: Purpose,
    },
    Starting {
        since: Instant,
        purpose: Purpose,
    },
    Idle {
        since: Instant,
        tenure: Tenure,
    },
    Busy {
        running: usize,
        tenure: Tenure,
    },
    /// Takes no more invocations, and stops when those it runs are over.
    Retiring {
        running: usize,
    },
    Stopping,
}

/// What a start is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Callers that wait.
    Callers,
    /// The floor.
    Floor,
    /// A wish, which the breaker does not hold up.
    Wish,
    /// To take the place of this one, which is worn.
    Replace(WorkerId),
}

/// A worker's service since it was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenure {
    ready_at: Instant,
    /// When the first of those that have replaced each other became ready.
    serving_since: Instant,
    /// Invocations that have ended in it.
    served: u64,
    /// It shall be replaced.
    pub(super) worn: bool,
}

impl Tenure {
    pub(super) fn new(ready_at: Instant) -> Self {
        Self { ready_at, serving_since: ready_at, served: 0, worn: false }
    }

    /// Of a worker that takes the place of another.
    pub(super) fn in_place_of(old: Tenure, ready_at: Instant) -> Self {
        Self { serving_since: old.serving_since, ..Self::new(ready_at) }
    }

    /// After another invocation.
    pub(super) fn after_call(mut self, id: WorkerId, limits: &Limits) -> Self {
        self.served += 1;
        self.worn |= limits.requests_max > 0 && self.served >= early(limits.requests_max, id);
        self
    }

    /// Whether its time is over.
    fn is_old(&self, id: WorkerId, limits: &Limits, now: Instant) -> bool {
        let age_max = Duration::from_millis(early(limits.age_max.as_millis() as u64, id));
        !limits.age_max.is_zero() && now.saturating_duration_since(self.ready_at) >= age_max
    }
}

/// Up to a tenth less than a limit, by the worker's id: workers that came together are not worn together.
fn early(limit: u64, id: WorkerId) -> u64 {
    // The golden ratio spreads ids that follow each other.
    let spread = id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (limit - u64::from(spread as u32 % 1_000) * (limit / 10) / 1_000).max(1)
}

impl Purpose {
    fn replaces(self, new: WorkerId) -> Option<(WorkerId, WorkerId)> {
        match self {
            Purpose::Replace(old) => Some((old, new)),
            _ => None,
        }
    }
}

/// What there is in a pool.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Survey {
    pub(super) counts: Counts,
    /// The worker that is being replaced, and the one that comes for it.
    pub(super) replacement: Option<(WorkerId, WorkerId)>,
    /// Whether a worker is worn.
    pub(super) is_worn: bool,
}

impl Survey {
    /// Those alive, a worn worker and the one that comes for it counted as one.
    pub(super) fn lasting(&self) -> usize {
        self.counts.alive() - usize::from(self.replacement.is_some())
    }
}

/// The workers, by id and so by age.
#[derive(Debug, Default)]
pub(super) struct Members(BTreeMap<WorkerId, WorkerState>);

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<WorkerState> {
        self.0.get(&id).copied()
    }

    pub(super) fn set(&mut self, id: WorkerId, state: WorkerState) {
        self.0.insert(id, state);
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<WorkerState> {
        self.0.remove(&id)
    }

    pub(super) fn counts(&self) -> Counts {
        self.survey().counts
    }

    /// What there is, in one pass.
    pub(super) fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        let counts = &mut survey.counts;
        for (id, state) in &self.0 {
            match *state {
                WorkerState::Planned { purpose } => {
                    counts.planned += 1;
                    survey.replacement = survey.replacement.or(purpose.replaces(*id));
                }
                WorkerState::Starting { purpose, .. } => {
                    counts.starting += 1;
                    survey.replacement = survey.replacement.or(purpose.replaces(*id));
                }
                WorkerState::Idle { tenure, .. } => {
                    counts.idle += 1;
                    survey.is_worn |= tenure.worn;
                }
                WorkerState::Busy { running, tenure } => {
                    counts.busy += 1;
                    counts.running += running;
                    survey.is_worn |= tenure.worn;
                }
                WorkerState::Retiring { .. } => counts.retiring += 1,
                WorkerState::Stopping => counts.stopping += 1,
            }
        }
        survey
    }

    /// The idle workers; the greatest is the one used most recently, by id where the clock cannot tell.
    pub(super) fn idle(&self) -> impl Iterator<Item = (Instant, WorkerId)> {
        self.0.iter().filter_map(|(id, state)| match state {
            WorkerState::Idle { since, .. } => Some((*since, *id)),
            _ => None,
        })
    }

    /// The worker for the next call: the idle one used most recently, else the busy one with the most room.
    pub(super) fn with_room(&self, concurrency: usize) -> Option<WorkerId> {
        if let Some((_, id)) = self.idle().max() {
            return Some(id);
        }
        if concurrency == 1 {
            return None;
        }
        let busy = self.0.iter().filter_map(|(id, state)| match state {
            WorkerState::Busy { running, tenure } if *running < concurrency => Some((*running, tenure.worn, *id)),
            _ => None,
        });
        busy.min().map(|(_, _, id)| id)
    }

    /// The newest worker that waits for a place, for a purpose that is asked for.
    pub(super) fn newest_planned(&self, is_asked_for: impl Fn(Purpose) -> bool) -> Option<WorkerId> {
        let mut newest_first = self.0.iter().rev();
        let is_it = |state: &WorkerState| matches!(state, WorkerState::Planned { purpose } if is_asked_for(*purpose));
        newest_first.find(|(_, state)| is_it(state)).map(|(id, _)| *id)
    }

    /// Counts planned workers towards so many alive for a purpose that lasts, the oldest first: they stay when the
    /// callers leave whom they were for.
    pub(super) fn adopt(&mut self, (alive_min, purpose): (usize, Purpose)) {
        if alive_min == 0 {
            return;
        }
        let is_lesser = |state: &WorkerState| match state {
            WorkerState::Planned { purpose: Purpose::Callers } => true,
            WorkerState::Planned { purpose: Purpose::Floor } => purpose == Purpose::Wish,
            _ => false,
        };
        let lesser = self.0.values().filter(|it| is_lesser(it)).count();
        let missing = alive_min.saturating_sub(self.survey().lasting() - lesser);
        for state in self.0.values_mut().filter(|it| is_lesser(it)).take(missing) {
            *state = WorkerState::Planned { purpose };
        }
    }

    /// Leaves to the callers what is planned for the floor.
    pub(super) fn give_up_floor(&mut self) {
        for state in self.0.values_mut() {
            if let WorkerState::Planned { purpose: purpose @ Purpose::Floor } = state {
                *purpose = Purpose::Callers;
            }
        }
    }

    /// How many processes come to replace a worn one: one at most.
    pub(super) fn replacements_starting(&self) -> usize {
        let is_it = |it: &&WorkerState| matches!(it, WorkerState::Starting { purpose: Purpose::Replace(_), .. });
        self.0.values().filter(is_it).count()
    }

    pub(super) fn newest_starting(&self) -> Option<WorkerId> {
        let mut newest_first = self.0.iter().rev();
        newest_first.find(|(_, state)| matches!(state, WorkerState::Starting { .. })).map(|(id, _)| *id)
    }

    pub(super) fn newest_busy(&self) -> Option<(WorkerId, usize)> {
        let mut newest_first = self.0.iter().rev();
        newest_first.find_map(|(id, state)| match state {
            WorkerState::Busy { running, .. } => Some((*id, *running)),
            _ => None,
        })
    }

    /// The worn worker that has served longest.
    pub(super) fn first_worn(&self) -> Option<WorkerId> {
        let worn = self.tenures().filter(|(_, tenure)| tenure.worn);
        worn.min_by_key(|(id, tenure)| (tenure.ready_at, *id)).map(|(id, _)| id)
    }

    /// Marks those whose time is over.
    pub(super) fn wear_old(&mut self, limits: &Limits, now: Instant) {
        if limits.age_max.is_zero() {
            return;
        }
        for (id, state) in &mut self.0 {
            if let WorkerState::Idle { tenure, .. } | WorkerState::Busy { tenure, .. } = state {
                tenure.worn |= tenure.is_old(*id, limits, now);
            }
        }
    }

    /// Marks one.
    pub(super) fn wear(&mut self, id: WorkerId) {
        if let Some(WorkerState::Idle { tenure, .. } | WorkerState::Busy { tenure, .. }) = self.0.get_mut(&id) {
            tenure.worn = true;
        }
    }

    fn tenures(&self) -> impl Iterator<Item = (WorkerId, Tenure)> {
        self.0.iter().filter_map(|(id, state)| match state {
            WorkerState::Idle { tenure, .. } | WorkerState::Busy { tenure, .. } => Some((*id, *tenure)),
            _ => None,
        })
    }

    /// Since when the worker that has served longest does, with those that it replaced.
    pub(super) fn serving_since(&self) -> Option<Instant> {
        self.tenures().map(|(_, tenure)| tenure.serving_since).min()
    }
}
