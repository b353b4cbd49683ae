//! The workers of a pool, each in one state, and the queries that its decisions need.

use super::{Counts, Limits};
use crate::model::WorkerId;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// State of a worker. Only a number of invocations is kept for a busy one: their callers know which, and no decision
/// depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerState {
    /// Waits for a place on the node; has no process.
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
    /// Takes no more invocations, and stops when its current ones are over.
    Retiring {
        running: usize,
    },
    Stopping,
}

/// Purpose of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve waiting callers.
    Callers,
    /// To fill the floor.
    Floor,
    /// To fulfil a wish, which the breaker does not delay.
    Wish,
    /// To replace this worn worker.
    Replace(WorkerId),
}

/// Service of a worker since it was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenure {
    ready_at: Instant,
    /// Time when the first worker of this chain of replacements became ready.
    serving_since: Instant,
    /// Invocations that have ended in it.
    served: u64,
    /// Whether it must be replaced.
    pub(super) worn: bool,
}

impl Tenure {
    pub(super) fn new(ready_at: Instant) -> Self {
        Self { ready_at, serving_since: ready_at, served: 0, worn: false }
    }

    /// Makes the tenure of a worker that replaces another.
    pub(super) fn in_place_of(old: Tenure, ready_at: Instant) -> Self {
        Self { serving_since: old.serving_since, ..Self::new(ready_at) }
    }

    /// Returns the tenure after another invocation.
    pub(super) fn after_call(mut self, id: WorkerId, limits: &Limits) -> Self {
        self.served += 1;
        self.worn |= limits.requests_max > 0 && self.served >= early(limits.requests_max, id);
        self
    }

    /// Whether the worker has reached its maximum age.
    fn is_old(&self, id: WorkerId, limits: &Limits, now: Instant) -> bool {
        let age_max = Duration::from_millis(early(limits.age_max.as_millis() as u64, id));
        !limits.age_max.is_zero() && now.saturating_duration_since(self.ready_at) >= age_max
    }
}

/// Lowers a limit by up to a tenth, depending on the worker's id: workers that started together do not wear out
/// together.
fn early(limit: u64, id: WorkerId) -> u64 {
    // Multiplying by the golden ratio spreads consecutive ids.
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

/// Summary of a pool's workers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Survey {
    pub(super) counts: Counts,
    /// The worn worker that is being replaced, and its replacement.
    pub(super) replacement: Option<(WorkerId, WorkerId)>,
    /// Whether a worker is worn.
    pub(super) is_worn: bool,
}

impl Survey {
    /// Returns the number of workers alive; a worn worker and its replacement count as one.
    pub(super) fn lasting(&self) -> usize {
        self.counts.alive() - usize::from(self.replacement.is_some())
    }
}

/// The workers by id, which is also the order of their age.
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

    /// Summarizes all workers in one pass.
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

    /// Returns the idle workers with the time since when they are idle. The greatest is the one used most recently, by
    /// id where the times are equal.
    pub(super) fn idle(&self) -> impl Iterator<Item = (Instant, WorkerId)> {
        self.0.iter().filter_map(|(id, state)| match state {
            WorkerState::Idle { since, .. } => Some((*since, *id)),
            _ => None,
        })
    }

    /// Returns the worker for the next invocation: the most recently used idle one, else the busy one with the most
    /// room.
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

    /// Returns the newest planned worker whose purpose satisfies the predicate.
    pub(super) fn newest_planned(&self, is_asked_for: impl Fn(Purpose) -> bool) -> Option<WorkerId> {
        let mut newest_first = self.0.iter().rev();
        let is_it = |state: &WorkerState| matches!(state, WorkerState::Planned { purpose } if is_asked_for(*purpose));
        newest_first.find(|(_, state)| is_it(state)).map(|(id, _)| *id)
    }

    /// Assigns planned workers, the oldest first, to a lasting purpose until `alive_min` workers count for it: they
    /// then stay when the callers that they were planned for leave.
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

    /// Turns workers planned for the floor into workers planned for callers.
    pub(super) fn give_up_floor(&mut self) {
        for state in self.0.values_mut() {
            if let WorkerState::Planned { purpose: purpose @ Purpose::Floor } = state {
                *purpose = Purpose::Callers;
            }
        }
    }

    /// Returns the number of processes starting as replacements: at most one.
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

    /// Returns the worn worker that has served longest.
    pub(super) fn first_worn(&self) -> Option<WorkerId> {
        let worn = self.tenures().filter(|(_, tenure)| tenure.worn);
        worn.min_by_key(|(id, tenure)| (tenure.ready_at, *id)).map(|(id, _)| id)
    }

    /// Marks workers that have reached their maximum age as worn.
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

    /// Marks one worker as worn.
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

    /// Returns the time since which the longest-serving worker has served, including the workers that it replaced.
    pub(super) fn serving_since(&self) -> Option<Instant> {
        self.tenures().map(|(_, tenure)| tenure.serving_since).min()
    }
}
