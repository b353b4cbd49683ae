//! One test per rule of the pool, by theme. The random tests are in `properties`.

use std::time::Duration;

use super::*;

mod calls;
mod concurrency;
mod ends;
mod failures;
mod floor;
mod limits;
mod places;
mod properties;
mod wear;

const LIMITS: Limits = Limits {
    workers_max: 3,
    concurrency: 1,
    executions_max: 3,
    queue_max: 2,
    workers_min: 0,
    idle_timeout: Duration::from_secs(10),
    requests_max: 0,
    age_max: Duration::ZERO,
};

fn inv(number: u128) -> InvocationId {
    InvocationId::from_bytes(number.to_be_bytes())
}

fn ask(worker: u64) -> Action {
    Action::Ask { worker: WorkerId(worker), replaces: false }
}

fn ask_to_replace(worker: u64) -> Action {
    Action::Ask { worker: WorkerId(worker), replaces: true }
}

fn withdraw(worker: u64) -> Action {
    Action::Withdraw(WorkerId(worker))
}

fn start(worker: u64) -> Action {
    Action::Start(WorkerId(worker))
}

fn dispatch(worker: u64, invocation: u128) -> Action {
    Action::Dispatch { worker: WorkerId(worker), invocation: inv(invocation) }
}

fn stop(worker: u64) -> Action {
    Action::Stop(WorkerId(worker))
}

fn unhealthy(failures: u32, retry_in_ms: u64) -> Health {
    Health::Unhealthy { failures, retry_in: Duration::from_millis(retry_in_ms) }
}

fn fail(invocation: u128, reason: Failure) -> Action {
    Action::Fail { invocation: inv(invocation), reason }
}

/// A pool, its clock and its node.
struct Bench {
    pool: Pool,
    now: Instant,
    /// Whether the node has a place for every request: the returned actions then show starts and not places.
    is_rich: bool,
}

impl Bench {
    /// Makes a pool on a node with a place for every request.
    fn new(limits: Limits) -> Bench {
        Bench { pool: Pool::new(limits), now: Instant::now(), is_rich: true }
    }

    /// Makes a pool on a node that gives a place only when the test says so.
    fn poor(limits: Limits) -> Bench {
        Bench { is_rich: false, ..Bench::new(limits) }
    }

    /// Makes a pool with this many idle workers; worker 1 is the least recently used.
    fn warm(limits: Limits, workers: u64) -> Bench {
        let mut bench = Bench::new(limits);
        bench.on(Event::Warm(workers as usize));
        for worker in 1..=workers {
            bench.wait(1);
            bench.ready(worker);
        }
        bench
    }

    /// Makes a warm pool whose node from now on gives a place only when the test says so.
    fn warm_then_poor(limits: Limits, workers: u64) -> Bench {
        Bench { is_rich: false, ..Bench::warm(limits, workers) }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn wait_ms(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.pool.handle(event, self.now, &mut actions);
        if !self.is_rich {
            return actions;
        }
        let mut answered = Vec::new();
        for action in actions {
            match action {
                Action::Ask { worker, .. } => answered.extend(self.on(Event::Granted(worker))),
                other => answered.push(other),
            }
        }
        answered
    }

    fn invoke(&mut self, invocation: u128) -> Vec<Action> {
        self.on(Event::Invoke(inv(invocation)))
    }

    fn cancel(&mut self, invocation: u128) -> Vec<Action> {
        self.on(Event::Cancel(inv(invocation)))
    }

    fn granted(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Granted(WorkerId(worker)))
    }

    fn ready(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Ready(WorkerId(worker)))
    }

    fn start_failed(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::StartFailed(WorkerId(worker)))
    }

    fn release(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Release(WorkerId(worker)))
    }

    fn abandon(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Abandon(WorkerId(worker)))
    }

    fn kill(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Kill(WorkerId(worker)))
    }

    fn retire(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Retire(WorkerId(worker)))
    }

    fn worn(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Worn(WorkerId(worker)))
    }

    fn exited(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Exited(WorkerId(worker)))
    }

    fn tick(&mut self) -> Vec<Action> {
        self.on(Event::Tick)
    }

    fn health(&self) -> Health {
        self.pool.health(self.now)
    }

    fn planned(&self) -> usize {
        self.pool.counts().planned
    }

    fn retiring(&self) -> usize {
        self.pool.counts().retiring
    }

    /// Returns `[starting, idle, busy, stopping, queued]`.
    fn counts(&self) -> [usize; 5] {
        let counts = self.pool.counts();
        [counts.starting, counts.idle, counts.busy, counts.stopping, counts.queued]
    }
}
