//! State of a run, and the queue of happenings.

use super::{
    super::{
        driver::{self, Driver, Effect, Lease, Rules, Waiting},
        node::Node,
        pool::{Action, Event, Limits},
    },
    Key,
    history::{NodeHistory, PoolHistory},
    host::{SimulatedHost, SimulatedWorker},
    random::Random,
    scenario::{Scenario, Workload},
};
use crate::model::{InvocationId, WorkerId};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// Number of latest lines shown when a run fails.
const LINES: usize = 60;

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) scenario: Scenario,
    pub(super) elapsed: Duration,
    pub(super) driver: Arc<Driver<SimulatedHost>>,
    pub(super) cells: Vec<Cell>,
    pub(super) functions: Vec<Function>,
    pub(super) processes: BTreeMap<Key, Process>,
    pub(super) calls: Vec<Call>,
    pub(super) starts_free: usize,
    /// Workers that wait for their turn to start.
    pub(super) start_line: VecDeque<Key>,
    /// Whether calls, changes and faults have ended.
    pub(super) is_calm: bool,
    /// Groups of effects still to be performed.
    pub(super) pending: usize,
    pub(super) watch: NodeHistory,
    base: Instant,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    log: VecDeque<(Duration, Line)>,
    verbose: bool,
}

/// One pool with what the world knows about it.
pub(super) struct Cell {
    pub(super) pool: Arc<driver::Cell<SimulatedHost>>,
    pub(super) function: usize,
    /// Whether no worker of this version ever starts.
    pub(super) is_broken: bool,
    /// Whether a tick has found the pool over; the node's answers no longer reach it.
    pub(super) forgotten: bool,
    /// Callers in its queue.
    pub(super) waiting: usize,
    pub(super) checked: PoolHistory,
}

impl Cell {
    /// Returns the number of workers that nothing may take away.
    pub(super) fn floor(&self) -> usize {
        floor(self.pool.rules(), self.pool.is_closed())
    }
}

pub(super) fn floor(rules: Rules, is_closed: bool) -> usize {
    let limits = rules.limits();
    if is_closed { 0 } else { limits.workers_min.min(limits.workers_max) }
}

/// A function and the destination of its traffic.
pub(super) struct Function {
    pub(super) workload: Workload,
    /// Pools in the order in which they were made.
    pub(super) versions: Vec<usize>,
    pub(super) live: usize,
    pub(super) before: Option<usize>,
    /// Whether a version is being brought up.
    pub(super) is_deploying: bool,
    pub(super) is_deleted: bool,
    pub(super) settings: Limits,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) phase: Phase,
    /// Its handle, once the start has begun.
    pub(super) worker: Option<Arc<SimulatedWorker>>,
    /// Invocations that its pool counts, and those that were abandoned and run on.
    pub(super) running: Vec<usize>,
    pub(super) abandoned: usize,
    pub(super) memory: u64,
    /// Start and end of the time in which its event loop is blocked.
    pub(super) blocked: Option<(Duration, Duration)>,
    /// Whether its pool wants it to end.
    pub(super) is_stopped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The start was ordered, and has not begun.
    Ordered,
    /// The start waits in line.
    InLine,
    Starting,
    Ready,
    /// Dead or dying; the pool hears of it soon.
    Dying,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) pool: usize,
    pub(super) function: usize,
    pub(super) asked: Duration,
    pub(super) state: CallState,
    /// Workers tried so far.
    pub(super) tries: usize,
    pub(super) has_left: bool,
    /// Place in the queue, until the caller has heard how its wait has ended.
    pub(super) waiting: Option<Waiting<SimulatedHost>>,
    pub(super) lease: Option<Lease<SimulatedHost>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallState {
    Waiting,
    /// Dispatched: the pool counts the invocation to this worker.
    Running(WorkerId),
    Over(End),
}

/// Outcome of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Ended in its worker.
    Done,
    /// Left the queue, or waited too long.
    Cancelled,
    Failed,
    /// Its worker was killed or died, or it was abandoned there.
    Broken,
}

/// A scheduled happening.
#[derive(Debug)]
pub(super) enum Happening {
    Arrive(usize),
    /// A caller may hear how its wait has ended.
    Hear(usize),
    CallerLeaves(usize),
    QueueTimeout(usize),
    CallEnds(usize, usize),
    Deadline(usize, usize),
    GraceOver(usize, usize),
    /// The lease of a broken invocation ends.
    Late(usize),
    StartEnds(Key),
    CancelStart(Key),
    Crash(Key),
    Exit(Key),
    Perform(Vec<Effect<SimulatedHost>>),
    Tick,
    Act,
    Bring {
        pool: usize,
        count: usize,
        patience: Duration,
        failures: usize,
    },
}

#[derive(Debug)]
struct Due {
    at: Duration,
    sequence: u64,
    happening: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// A line of the history that a failed run shows.
#[derive(Debug)]
pub(super) enum Line {
    Event(usize, Event),
    Action(usize, Action),
    Note(String),
}

impl World {
    pub(super) fn new(seed: u64, verbose: bool) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random);
        let base = Instant::now();
        let host = SimulatedHost::new(base, !seed, scenario.racy);
        let mut world = Self {
            seed,
            random,
            elapsed: Duration::ZERO,
            driver: Arc::new(Driver::new(host, Node::new(scenario.caps))),
            cells: Vec::new(),
            functions: Vec::new(),
            processes: BTreeMap::new(),
            calls: Vec::new(),
            starts_free: scenario.starts_max,
            start_line: VecDeque::new(),
            is_calm: false,
            pending: 0,
            watch: NodeHistory::default(),
            base,
            queue: BinaryHeap::new(),
            sequence: 0,
            log: VecDeque::new(),
            verbose,
            scenario,
        };
        world.note(|world| format!("{:?}", world.scenario));
        world.populate();
        world
    }

    /// Plays the run to its end.
    pub(super) fn run(&mut self) {
        let chaos = self.scenario.chaos;
        self.play_until(chaos);
        self.calm_down();
    }

    /// Plays on until a time.
    pub(super) fn play_until(&mut self, until: Duration) {
        while self.queue.peek().is_some_and(|Reverse(due)| due.at <= until)
            && let Some(Reverse(due)) = self.queue.pop()
        {
            self.elapsed = due.at;
            self.happen(due.happening);
            self.check_state();
        }
        self.elapsed = until;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive(function) => self.arrive(function),
            Happening::Hear(call) => self.hear(call),
            Happening::CallerLeaves(call) => self.caller_leaves(call),
            Happening::QueueTimeout(call) => self.queue_timeout(call),
            Happening::CallEnds(call, tries) => self.call_ends(call, tries),
            Happening::Deadline(call, tries) => self.deadline(call, tries),
            Happening::GraceOver(call, tries) => self.grace_over(call, tries),
            Happening::Late(call) => self.end_lease(call),
            Happening::StartEnds(key) => self.start_ends(key),
            Happening::CancelStart(key) => self.cancel_start(key),
            Happening::Crash(key) => self.crash(key),
            Happening::Exit(key) => self.exit(key),
            Happening::Perform(effects) => {
                self.pending -= 1;
                self.drive(|driver| driver.perform(effects));
            }
            Happening::Tick => self.tick(),
            Happening::Act => self.act(),
            Happening::Bring { pool, count, patience, failures } => self.bring(pool, count, patience, failures),
        }
    }

    pub(super) fn after(&mut self, delay: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse(Due { at: self.elapsed + delay, sequence: self.sequence, happening }));
    }

    /// Schedules a happening within the next two milliseconds, now and then within twenty, so that related ones may
    /// occur in any order.
    pub(super) fn soon(&mut self, happening: Happening) {
        let delay_max = if self.random.chance(100) { 20_000 } else { 2_000 };
        let delay = Duration::from_micros(self.random.within(0..=delay_max));
        self.after(delay, happening);
    }

    /// Asks the node something.
    pub(super) fn node<T>(&self, ask: impl FnOnce(&Node) -> T) -> T {
        self.driver.ask_node(ask)
    }

    /// Returns the pools that have not been removed.
    pub(super) fn pools(&self) -> Vec<usize> {
        (0..self.cells.len()).filter(|pool| !self.cells[*pool].forgotten).collect()
    }

    pub(super) fn now(&self) -> Instant {
        self.base + self.elapsed
    }

    pub(super) fn note(&mut self, note: impl FnOnce(&Self) -> String) {
        let note = note(self);
        self.line(Line::Note(note));
    }

    pub(super) fn line(&mut self, line: Line) {
        if self.verbose {
            eprintln!("{:>10.3} {line}", self.elapsed.as_secs_f64());
            return;
        }
        if self.log.len() == LINES {
            self.log.pop_front();
        }
        self.log.push_back((self.elapsed, line));
    }
}

/// Prints how to repeat a failed run.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Otherwise the drop of a lease would use a driver that is in the middle of something.
            std::mem::forget((std::mem::take(&mut self.calls), std::mem::take(&mut self.queue)));
            for (at, line) in &self.log {
                eprintln!("{:>10.3} {line}", at.as_secs_f64());
            }
            eprintln!("a run of kind {:?} failed; see all of it with:", self.scenario.kind);
            eprintln!("LEVAIN_SIMULATION_SEED={} cargo test --lib simulation -- --nocapture", self.seed);
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Event(pool, Event::Invoke(id)) => write!(f, "pool {pool} <- Invoke({})", call_of(*id)),
            Line::Event(pool, Event::Cancel(id)) => write!(f, "pool {pool} <- Cancel({})", call_of(*id)),
            Line::Event(pool, event) => write!(f, "pool {pool} <- {event:?}"),
            Line::Action(pool, Action::Dispatch { worker, invocation }) => {
                write!(f, "pool {pool}    -> Dispatch {} to {worker}", call_of(*invocation))
            }
            Line::Action(pool, Action::Fail { invocation, reason }) => {
                write!(f, "pool {pool}    -> Fail {}: {reason:?}", call_of(*invocation))
            }
            Line::Action(pool, action) => write!(f, "pool {pool}    -> {action:?}"),
            Line::Note(note) => write!(f, "{note}"),
        }
    }
}

pub(super) fn invocation_id(call: usize) -> InvocationId {
    InvocationId::from_bytes((call as u128).to_be_bytes())
}

pub(super) fn call_of(id: InvocationId) -> usize {
    u128::from_be_bytes(id.to_bytes()) as usize
}
