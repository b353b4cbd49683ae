//! Unread answers of all connections, and the limit on their sum.
//!
//! A connection's own limit lets one client keep a few large answers waiting; a thousand such clients would make the
//! daemon hold a thousand times as much. So there is a limit for all of them together. When it is exceeded, the client
//! that has read nothing for the longest time is cut off: a client that reads, however slowly, comes after those that
//! do not.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// The backlogs of all connections.
#[derive(Debug, Default)]
pub(super) struct Backlogs {
    last_id: AtomicU64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    of: HashMap<u64, Backlog>,
}

#[derive(Debug)]
struct Backlog {
    bytes: usize,
    /// Time at which the client last read something, or at which the backlog began.
    since: Instant,
    cut_off: CancellationToken,
}

/// A connection's share of the backlogs; dropping it gives the bytes back.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<Backlogs>,
    id: u64,
    bytes: usize,
    cut_off: CancellationToken,
}

impl Share {
    pub(super) fn new(all: Arc<Backlogs>) -> Self {
        let id = all.last_id.fetch_add(1, Ordering::Relaxed);
        Self { all, id, bytes: 0, cut_off: CancellationToken::new() }
    }

    /// Sets the number of bytes that wait for this client. If the sum over all clients exceeds `bytes_max`, one of them
    /// is cut off.
    pub(super) fn set(&mut self, bytes: usize, bytes_max: usize) {
        if bytes == self.bytes || self.cut_off.is_cancelled() {
            return;
        }
        let has_read = bytes < self.bytes;
        self.bytes = bytes;
        let mut held = self.all.held.lock();
        let now = Instant::now();
        let cut_off = || self.cut_off.clone();
        let before = held.of.remove(&self.id).unwrap_or_else(|| Backlog { bytes: 0, since: now, cut_off: cut_off() });
        held.bytes = held.bytes - before.bytes + bytes;
        if bytes > 0 {
            let since = if has_read { now } else { before.since };
            held.of.insert(self.id, Backlog { bytes, since, ..before });
        }
        while held.bytes > bytes_max {
            let Some(id) = held.of.iter().min_by_key(|(_, it)| it.since).map(|(id, _)| *id) else { break };
            let idlest = held.of.remove(&id).expect("it was just found");
            held.bytes -= idlest.bytes;
            idlest.cut_off.cancel();
        }
    }

    /// Whether the connection has a backlog that counts.
    pub(super) fn is_held(&self) -> bool {
        self.bytes > 0
    }

    /// Resolves when the client must be cut off.
    pub(super) async fn cut_off(&self) {
        self.cut_off.cancelled().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0, usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_read_for_the_longest_time_is_cut_off() {
        let all = Arc::new(Backlogs::default());
        let [mut reading, mut idle, mut late] = [(); 3].map(|()| Share::new(Arc::clone(&all)));
        reading.set(50, 100);
        idle.set(40, 100);
        reading.set(49, 100);
        late.set(11, 100);
        let are_cut_off = |shares: [&Share; 3]| shares.map(|it| it.cut_off.is_cancelled());
        assert_eq!(are_cut_off([&reading, &idle, &late]), [false; 3], "the sum is exactly at the limit");
        late.set(12, 100);
        assert_eq!(are_cut_off([&reading, &idle, &late]), [false, true, false]);
        assert_eq!(all.held.lock().bytes, 61);
        late.set(52, 100);
        assert_eq!(are_cut_off([&reading, &idle, &late]), [true, true, false]);
        late.set(101, 100);
        assert!(late.cut_off.is_cancelled(), "the limit holds for a single client too");
        drop((reading, idle, late));
        let held = all.held.lock();
        assert_eq!((held.bytes, held.of.len()), (0, 0));
    }
}
