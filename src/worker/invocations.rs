//! The invocations of one worker, tracked to attribute and check the worker's messages.

use super::{last_words::LineOrigin, violation::Violation};
use crate::model::InvocationId;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Ended invocations that are still recognised: a worker's messages may come after its answer.
const ENDED_MAX: usize = 128;

/// After this long without an invocation, all output of the last one has been read.
const QUIET: Duration = Duration::from_millis(20);

/// The running and recently ended invocations, and the waiters for their settling.
#[derive(Debug, Default)]
pub(super) struct InvocationTable(Mutex<TableState>);

#[derive(Debug, Default)]
struct TableState {
    running: HashMap<InvocationId, SettleState>,
    /// The last ended invocations, oldest first.
    ended: VecDeque<InvocationId>,
    /// The latest id among those dropped from `ended`: a later unknown id was never this worker's.
    forgotten: Option<InvocationId>,
    last_ended: Option<Instant>,
    /// The invocations whose raw output may be in the pipes at present.
    writing: Writing,
    /// Every invocation that this worker was ever given.
    given: Writing,
}

#[derive(Debug)]
enum SettleState {
    /// The caller waits for the answer.
    Called,
    /// The caller is gone; the scheduler waits for the invocation to settle.
    Awaited(oneshot::Sender<()>),
    /// The worker has reported that the invocation is over.
    Settled,
}

#[derive(Debug, Default, Clone, Copy)]
enum Writing {
    #[default]
    Nobody,
    Only(InvocationId),
    Several,
}

impl InvocationTable {
    /// Registers an invocation that is about to be sent.
    pub(super) fn begin(&self, id: InvocationId, now: Instant) {
        let mut state = self.0.lock();
        let quiet =
            state.running.is_empty() && state.last_ended.is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
        state.writing = match state.writing {
            _ if quiet => Writing::Only(id),
            Writing::Nobody => Writing::Only(id),
            Writing::Only(_) | Writing::Several => Writing::Several,
        };
        state.given = match state.given {
            Writing::Nobody => Writing::Only(id),
            Writing::Only(_) | Writing::Several => Writing::Several,
        };
        state.running.insert(id, SettleState::Called);
    }

    /// Whether any invocation runs.
    pub(super) fn is_running(&self) -> bool {
        !self.0.lock().running.is_empty()
    }

    /// Marks an invocation as ended.
    pub(super) fn end(&self, id: InvocationId, now: Instant) {
        let mut state = self.0.lock();
        state.running.remove(&id);
        state.last_ended = Some(now);
        if state.ended.len() == ENDED_MAX {
            let oldest = state.ended.pop_front();
            state.forgotten = state.forgotten.max(oldest);
        }
        state.ended.push_back(id);
    }

    /// Resolves, with a value or without, once the worker has reported the invocation as over, or is gone.
    pub(super) fn settled(&self, id: InvocationId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        // Dropping the sender reports an invocation that has already settled or ended.
        if let Some(running @ SettleState::Called) = self.0.lock().running.get_mut(&id) {
            *running = SettleState::Awaited(sender);
        }
        receiver
    }

    /// Handles the worker's report that the named invocation is over.
    pub(super) fn settle(&self, name: &str) -> Result<(), Violation> {
        let Some(id) = self.known(Some(name))? else { return Ok(()) };
        if let Some(running) = self.0.lock().running.get_mut(&id)
            && let SettleState::Awaited(waiting) = std::mem::replace(running, SettleState::Settled)
        {
            let _ = waiting.send(());
        }
        Ok(())
    }

    /// Forgets the running invocations of a dead worker, which releases the waiters.
    pub(super) fn clear(&self) {
        self.0.lock().running.clear();
    }

    /// Returns the named invocation if this worker runs it or has just run it: a worker speaks for its own invocations
    /// only. `None` for one that it may have run long ago, or without a name.
    pub(super) fn known(&self, name: Option<&str>) -> Result<Option<InvocationId>, Violation> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        let id = name.parse().map_err(|_| Violation::ForeignInvocation)?;
        let state = self.0.lock();
        if state.running.contains_key(&id) || state.ended.contains(&id) {
            Ok(Some(id))
        } else if state.forgotten >= Some(id) {
            Ok(None)
        } else {
            Err(Violation::ForeignInvocation)
        }
    }

    /// The invocation that has certainly written raw output. Unlike [`Self::writer`], this considers what an earlier
    /// invocation may have left running: the callers of two invocations may be strangers.
    pub(super) fn line_origin(&self) -> LineOrigin {
        match self.0.lock().given {
            Writing::Nobody => LineOrigin::Start,
            Writing::Only(id) => LineOrigin::Invocation(id),
            Writing::Several => LineOrigin::Unknown,
        }
    }

    /// The invocation that raw output belongs to, if there is only one candidate. Output under a wrong id is worse than
    /// output without one.
    pub(super) fn writer(&self) -> Option<InvocationId> {
        match self.0.lock().writing {
            Writing::Only(id) => Some(id),
            Writing::Nobody | Writing::Several => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_output_has_an_id_only_while_one_invocation_can_have_written_it() {
        let (invocations, first, second, now) =
            (InvocationTable::default(), InvocationId::new(), InvocationId::new(), Instant::now());
        assert_eq!(invocations.writer(), None);
        invocations.begin(first, now);
        assert_eq!(invocations.writer(), Some(first));
        invocations.end(first, now);
        assert_eq!(invocations.writer(), Some(first), "its last output may still be in the pipe");
        let soon = now + QUIET - Duration::from_nanos(1);
        invocations.begin(second, soon);
        assert_eq!(invocations.writer(), None, "so soon after the first, it may be from either");
        invocations.end(second, soon);
        invocations.begin(first, soon + QUIET);
        assert_eq!(invocations.writer(), Some(first));
    }

    #[test]
    fn raw_output_has_no_id_from_when_a_second_invocation_begins_until_all_have_been_over_for_a_while() {
        let (invocations, first, second, third) =
            (InvocationTable::default(), InvocationId::new(), InvocationId::new(), InvocationId::new());
        let (now, later) = (Instant::now(), Instant::now() + 2 * QUIET);
        invocations.begin(first, now);
        invocations.begin(second, now);
        assert_eq!(invocations.writer(), None, "two run");
        invocations.end(first, now);
        assert_eq!(invocations.writer(), None, "what the first one left running may still write");
        invocations.begin(third, later);
        assert_eq!(invocations.writer(), None, "the second one still runs");
        invocations.end(third, later);
        invocations.end(second, later);
        assert_eq!(invocations.writer(), None, "it may be from any of them");
        invocations.begin(third, later + QUIET);
        assert_eq!(invocations.writer(), Some(third));
    }

    #[test]
    fn raw_output_is_certainly_of_an_invocation_only_while_there_was_no_other() {
        let (invocations, first, now) = (InvocationTable::default(), InvocationId::new(), Instant::now());
        assert_eq!(invocations.line_origin(), LineOrigin::Start);
        invocations.begin(first, now);
        assert_eq!(invocations.line_origin(), LineOrigin::Invocation(first));
        invocations.end(first, now);
        assert_eq!(invocations.line_origin(), LineOrigin::Invocation(first), "its timers may go on");
        invocations.begin(InvocationId::new(), now + QUIET);
        assert_eq!(invocations.line_origin(), LineOrigin::Unknown, "a timer of the first one may write");
    }

    #[test]
    fn a_worker_speaks_for_its_own_invocations_only() {
        let (invocations, own, foreign) = (InvocationTable::default(), InvocationId::new(), InvocationId::new());
        let known = |name: &str| invocations.known(Some(name));
        invocations.begin(own, Instant::now());
        assert_eq!(known(&own.to_string()), Ok(Some(own)));
        invocations.end(own, Instant::now());
        assert_eq!(known(&own.to_string()), Ok(Some(own)));
        assert_eq!(invocations.settle(&own.to_string()), Ok(()), "it may say so again");
        for name in [&foreign.to_string(), "nonsense", "exec-"] {
            assert_eq!(known(name), Err(Violation::ForeignInvocation), "{name}");
            assert_eq!(invocations.settle(name), Err(Violation::ForeignInvocation), "{name}");
        }
        assert_eq!((invocations.known(None), known("")), (Ok(None), Ok(None)));
    }

    #[test]
    fn what_was_forgotten_is_not_named_and_nothing_else_passes_for_it() {
        let (invocations, before) = (InvocationTable::default(), InvocationId::new());
        let ids: Vec<_> = (0..2 * ENDED_MAX).map(|_| InvocationId::new()).collect();
        // The invocations end in another order than they began, as concurrent ones do.
        let order = ids[..ENDED_MAX].iter().rev().chain(&ids[ENDED_MAX..]);
        for id in order {
            invocations.begin(*id, Instant::now());
            invocations.end(*id, Instant::now());
        }
        let known = |id: InvocationId| invocations.known(Some(&id.to_string()));
        assert!(ids[..ENDED_MAX].iter().all(|id| known(*id) == Ok(None)));
        assert!(ids[ENDED_MAX..].iter().all(|id| known(*id) == Ok(Some(*id))));
        assert_eq!(known(before), Ok(None), "it may have been this worker's");
        assert_eq!(known(InvocationId::new()), Err(Violation::ForeignInvocation));
    }

    #[tokio::test]
    async fn whoever_waits_for_an_invocation_hears_when_it_has_settled_or_never_will() {
        let (invocations, id) = (InvocationTable::default(), InvocationId::new());
        invocations.begin(id, Instant::now());
        let waiting = invocations.settled(id);
        invocations.settle(&id.to_string()).expect("it runs");
        assert!(waiting.await.is_ok());
        assert!(invocations.settled(id).await.is_err(), "it has settled before");
        invocations.begin(id, Instant::now());
        let waiting = invocations.settled(id);
        invocations.clear();
        assert!(waiting.await.is_err(), "the worker is gone");
    }
}
