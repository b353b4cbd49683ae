//! Lanes: the threads that serve connections.
//!
//! Each lane is one thread with a runtime of its own, and each connection belongs to one lane. That thread alone
//! watches the connection's socket and the sockets to the workers of its invocations, so that a request or an answer
//! wakes only the thread that handles it. A multi-threaded runtime would wake a second thread for each event, in case
//! there is more to do. Everything but invocations runs on the daemon's main runtime.
//!
//! A worker released on one lane may go to an invocation that waits on another. The runtime would make a system call
//! for each such wake-up from outside. So a lane has an inbox, which it empties whenever it serves a connection and
//! before it sleeps; only a sleeping lane must be woken by a system call.
//!
//! ```text
//! lane:     asleep = true  → empty the inbox → sleep       another thread that wakes a connection of the lane:
//!           asleep = false → empty the inbox → serve         put it into the inbox → wake the lane up if asleep
//! ```

use parking_lot::Mutex;
use std::{
    cell::RefCell,
    future::Future,
    io, mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};
use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Interval of a timer that always comes first. A runtime is woken for each new timer that is earlier than all others,
/// and an invocation has a timer for its deadline; this timer avoids that.
const FIRST_TIMER: Duration = Duration::from_secs(1);

/// The lanes. Dropping this ends them, with everything that still runs on them.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Lane>,
    next: AtomicUsize,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    inbox: Arc<Inbox>,
}

/// Connections of a lane that other threads have woken.
#[derive(Debug, Default)]
struct Inbox {
    woken: Mutex<Vec<Waker>>,
    is_empty: AtomicBool,
    /// Set when the lane will not look into its inbox again before it is woken.
    asleep: AtomicBool,
}

thread_local! {
    /// Inbox of this thread's lane.
    static OWN: RefCell<Option<Arc<Inbox>>> = const { RefCell::new(None) };
}

impl Lanes {
    /// Starts one lane for each processor.
    pub fn start() -> io::Result<Self> {
        Self::start_some(thread::available_parallelism().map_or(1, usize::from))
    }

    fn start_some(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let lanes = (0..count).map(|number| Lane::start(number, stop.clone())).collect::<io::Result<_>>()?;
        Ok(Self { lanes, next: AtomicUsize::new(0), _stop: guard })
    }

    /// Serves a connection on the next lane, in turns.
    pub fn serve(&self, connections: &mut JoinSet<()>, connection: impl Future<Output = ()> + Send + 'static) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        let Lane { runtime, inbox } = &self.lanes[next];
        let connection = Box::pin(connection);
        connections.spawn_on(OnLane { connection, inbox: Arc::clone(inbox), waker: None }, runtime);
    }
}

impl Lane {
    fn start(number: usize, stop: CancellationToken) -> io::Result<Self> {
        let inbox = Arc::new(Inbox { is_empty: true.into(), ..Inbox::default() });
        let (sleeping, waking, own) = (Arc::clone(&inbox), Arc::clone(&inbox), Arc::clone(&inbox));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(move || {
                sleeping.asleep.store(true, Ordering::SeqCst);
                sleeping.empty();
            })
            .on_thread_unpark(move || {
                waking.asleep.store(false, Ordering::SeqCst);
                waking.empty();
            })
            .build()?;
        let handle = runtime.handle().clone();
        let first_timer = async {
            let mut ticks = interval(FIRST_TIMER);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
            }
        };
        let run = move || {
            OWN.set(Some(own));
            runtime.block_on(stop.run_until_cancelled(first_timer));
        };
        thread::Builder::new().name(format!("levain-lane-{number}")).spawn(run)?;
        Ok(Self { runtime: handle, inbox })
    }
}

impl Inbox {
    /// Wakes the connections that other threads have put here, from this thread.
    fn empty(&self) {
        if !self.is_empty.load(Ordering::SeqCst) {
            self.is_empty.store(true, Ordering::SeqCst);
            let woken = mem::take(&mut *self.woken.lock());
            woken.into_iter().for_each(Waker::wake);
        }
    }

    fn put(&self, task: &Waker) {
        self.woken.lock().push(task.clone());
        self.is_empty.store(false, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            task.wake_by_ref();
        }
    }

    fn is_own(&self) -> bool {
        OWN.with_borrow(|own| own.as_ref().is_some_and(|own| std::ptr::eq(&**own, self)))
    }
}

/// A connection's future on its lane.
struct OnLane<F> {
    connection: Pin<Box<F>>,
    inbox: Arc<Inbox>,
    /// The task's own waker, and the one through the inbox that the connection gets instead.
    waker: Option<(Waker, Waker)>,
}

impl<F: Future<Output = ()>> Future for OnLane<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { connection, inbox, waker } = self.get_mut();
        inbox.empty();
        let own = context.waker();
        let (_, waker) = match waker {
            Some(both) if both.0.will_wake(own) => both,
            _ => {
                let through_inbox = Arc::new(ThroughInbox { inbox: Arc::clone(inbox), task: own.clone() });
                waker.insert((own.clone(), through_inbox.into()))
            }
        };
        connection.as_mut().poll(&mut Context::from_waker(waker))
    }
}

/// Waker of a task: directly on its own lane's thread, through the lane's inbox from any other.
struct ThroughInbox {
    inbox: Arc<Inbox>,
    task: Waker,
}

impl Wake for ThroughInbox {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.inbox.is_own() { self.task.wake_by_ref() } else { self.inbox.put(&self.task) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    /// Passes each number on, with a pause now and then that lets the other lane fall asleep.
    async fn pass_on(mut from: mpsc::Receiver<u32>, to: mpsc::Sender<u32>) {
        while let Some(number) = from.recv().await {
            if number.is_multiple_of(7) {
                tokio::task::yield_now().await;
            }
            if to.send(number).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn connections_on_different_lanes_always_hear_of_each_other() {
        const NUMBERS: u32 = 20_000;
        let lanes = Lanes::start_some(3).expect("threads");
        let mut connections = JoinSet::new();
        // Once around all lanes and back to this thread; the last channel has room for all numbers in transit.
        let (first, mut from) = mpsc::channel(3);
        for room in [1, 2, 1, 1, NUMBERS as usize] {
            let (to, next) = mpsc::channel(room);
            lanes.serve(&mut connections, pass_on(from, to));
            from = next;
        }
        let passing = async {
            for number in 0..NUMBERS {
                first.send(number).await.expect("the first one listens");
            }
            drop(first);
            for number in 0..NUMBERS {
                assert_eq!(from.recv().await, Some(number));
            }
            while connections.join_next().await.is_some() {}
        };
        tokio::time::timeout(Duration::from_secs(30), passing).await.expect("no wake-up is lost");
    }
}
