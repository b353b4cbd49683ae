//! Recent output of a worker, for the report of its end.
//!
//! **Invariant.** [`LastWords::of`] gives an invocation only lines that cannot be another one's. The callers of two
//! invocations may be strangers, so a line whose invocation is only inferred belongs to neither:
//!
//! | line | belongs to |
//! |---|---|
//! | `console.*`, or an unhandled error, with a known asynchronous context | that invocation |
//! | raw output while the worker has had a single invocation | that invocation |
//! | raw output after a second one, which a timer of the first may have written | no invocation |
//! | anything before the first invocation | the start of the worker |
//!
//! The log has every line, including those of unknown origin.

use crate::model::InvocationId;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Maximum lines in the report of one crash.
const LINES_MAX: usize = 20;

/// Maximum lines kept per worker: its concurrent invocations share them.
const KEPT_MAX: usize = 5 * LINES_MAX;

/// Origin of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineOrigin {
    /// The module, before the first invocation.
    Start,
    /// This invocation, and certainly no other.
    Invocation(InvocationId),
    /// One of several invocations.
    Unknown,
}

/// The last lines of a worker.
#[derive(Debug, Default)]
pub(super) struct LastWords(Mutex<VecDeque<(LineOrigin, String)>>);

impl LastWords {
    /// Keeps a line if its origin is known.
    pub(super) fn keep(&self, origin: LineOrigin, line: &str) {
        if origin == LineOrigin::Unknown {
            return;
        }
        let mut kept = self.0.lock();
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((origin, line.to_owned()));
    }

    /// Returns the last lines of an invocation.
    pub(super) fn of(&self, invocation: InvocationId) -> Vec<String> {
        self.of_origin(LineOrigin::Invocation(invocation))
    }

    /// Returns the last lines before the first invocation.
    pub(super) fn of_start(&self) -> Vec<String> {
        self.of_origin(LineOrigin::Start)
    }

    fn of_origin(&self, wanted: LineOrigin) -> Vec<String> {
        let kept = self.0.lock();
        let lines = kept.iter().rev().filter(|(origin, _)| *origin == wanted).take(LINES_MAX);
        let mut lines: Vec<String> = lines.map(|(_, line)| line.clone()).collect();
        lines.reverse();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_gets_its_own_lines_and_the_last_of_them() {
        let (words, first, second) = (LastWords::default(), InvocationId::new(), InvocationId::new());
        words.keep(LineOrigin::Start, "imported");
        words.keep(LineOrigin::Unknown, "anybody's");
        for number in 0..LINES_MAX + 3 {
            words.keep(LineOrigin::Invocation(first), &format!("first {number}"));
            words.keep(LineOrigin::Invocation(second), "second");
        }
        let own = words.of(first);
        assert_eq!((own.len(), own[0].as_str()), (LINES_MAX, "first 3"));
        assert_eq!(words.of(second), vec!["second".to_owned(); LINES_MAX]);
        assert_eq!(words.of_start(), ["imported"]);
        assert_eq!(words.of(InvocationId::new()), [] as [String; 0]);
    }

    #[test]
    fn what_a_worker_has_said_is_bounded() {
        let words = LastWords::default();
        (0..10 * KEPT_MAX).for_each(|_| words.keep(LineOrigin::Start, "x"));
        assert_eq!(words.0.lock().len(), KEPT_MAX);
    }
}
