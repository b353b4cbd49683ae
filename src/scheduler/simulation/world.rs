//! State of a run, and the queue of happenings.

use super::{
    super::{
        Floor,
        node::{Node, PoolId},
        pool::{Action, Event, Limits, Pool},
    },
    Key,
    history::NodeHistory,
    random::Random,
    scenario::{Scenario, Workload},
};
use crate::model::{InvocationId, WorkerId};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    fmt,
    time::{Duration, Instant},
};

/// Number of latest lines shown when a run fails.
const LINES: usize = 60;

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) scenario: Scenario,
    pub(super) elapsed: Duration,
    pub(super) node: Node,
    pub(super) is_short: bool,
    pub(super) reclaiming: bool,
    pub(super) reclaim_wanted: bool,
    pub(super) cells: Vec<Cell>,
    pub(super) functions: Vec<Function>,
    pub(super) processes: BTreeMap<Key, Process>,
    pub(super) calls: Vec<Call>,
    pub(super) starts_free: usize,
    /// Workers that wait for their turn to start.
    pub(super) start_line: VecDeque<Key>,
    /// Whether calls, changes and faults have ended.
    pub(super) is_calm: bool,
    /// Groups of actions still to be performed, and exits that the node has not been told.
    pub(super) pending: usize,
    pub(super) watch: NodeHistory,
    base: Instant,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    log: VecDeque<(Duration, Line)>,
    verbose: bool,
}

/// One pool with the parts of the daemon's cell around it.
pub(super) struct Cell {
    pub(super) pool: Pool,
    pub(super) function: usize,
    pub(super) settings: Limits,
    pub(super) floor: Floor,
    /// Whether no worker of this version ever starts.
    pub(super) is_broken: bool,
    /// Whether a tick has found the pool over; the node's answers no longer reach it.
    pub(super) forgotten: bool,
    pub(super) failures: usize,
    /// Callers in its queue.
    pub(super) waiting: usize,
    pub(super) checked: super::history::PoolHistory,
}

impl Cell {
    pub(super) fn limits(&self) -> Limits {
        let workers_min = match self.floor {
            Floor::Settings => self.settings.workers_min,
            Floor::OneUntil(_) => 1,
            Floor::Nothing => 0,
        };
        Limits { workers_min, ..self.settings }
    }

    /// Returns the number of workers that nothing may take away.
    pub(super) fn floor(&self) -> usize {
        let limits = self.limits();
        if self.pool.is_closed() { 0 } else { limits.workers_min.min(limits.workers_max) }
    }
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
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Arrive(usize),
    CallerLeaves(usize),
    QueueTimeout(usize),
    CallEnds(usize, usize),
    Deadline(usize, usize),
    GraceOver(usize, usize),
    /// The lease of a broken invocation ends.
    Late(usize, Event),
    StartEnds(Key),
    CancelStart(Key),
    Crash(Key),
    Exit(Key),
    Left(Key),
    Perform {
        pool: usize,
        actions: Vec<Action>,
        has_spare: bool,
    },
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
        let mut world = Self {
            seed,
            random,
            elapsed: Duration::ZERO,
            node: Node::new(scenario.caps),
            is_short: false,
            reclaiming: false,
            reclaim_wanted: false,
            cells: Vec::new(),
            functions: Vec::new(),
            processes: BTreeMap::new(),
            calls: Vec::new(),
            starts_free: scenario.starts_max,
            start_line: VecDeque::new(),
            is_calm: false,
            pending: 0,
            watch: NodeHistory::default(),
            base: Instant::now(),
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
            Happening::CallerLeaves(call) => self.caller_leaves(call),
            Happening::QueueTimeout(call) => self.queue_timeout(call),
            Happening::CallEnds(call, tries) => self.call_ends(call, tries),
            Happening::Deadline(call, tries) => self.deadline(call, tries),
            Happening::GraceOver(call, tries) => self.grace_over(call, tries),
            Happening::Late(pool, event) => self.apply(pool, event),
            Happening::StartEnds(key) => self.start_ends(key),
            Happening::CancelStart(key) => self.cancel_start(key),
            Happening::Crash(key) => self.crash(key),
            Happening::Exit(key) => self.exit(key),
            Happening::Left(key) => {
                self.pending -= 1;
                self.left(key);
            }
            Happening::Perform { pool, actions, has_spare } => {
                self.pending -= 1;
                self.perform(pool, actions, has_spare);
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

    /// Schedules a happening within the next two milliseconds, so that related ones may occur in any order.
    pub(super) fn soon(&mut self, happening: Happening) {
        let delay = Duration::from_micros(self.random.within(0..=2_000));
        self.after(delay, happening);
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

pub(super) fn pool_id(pool: usize) -> PoolId {
    PoolId(pool as u64)
}

pub(super) fn pool_of(id: PoolId) -> usize {
    id.0 as usize
}

pub(super) fn invocation_id(call: usize) -> InvocationId {
    InvocationId::from_bytes((call as u128).to_be_bytes())
}

pub(super) fn call_of(id: InvocationId) -> usize {
    u128::from_be_bytes(id.to_bytes()) as usize
}
