//! Setup that a seed gives a run: the node, the functions, and how badly everything behaves.

use super::{
    super::{
        TICK,
        breaker::BACK_OFF_MAX,
        node::{Caps, START_BYTES, TURN},
        pool::Limits,
    },
    random::{Random, Span},
};
use std::time::Duration;

/// Theme of a run. Each has limits of its own: a limit that covers all cases at their worst tests little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Every fault at once.
    Chaos,
    /// Greedy functions and rare ones on a node that is too small, without faults.
    Crowd,
    /// Functions that do not start for a while.
    CrashLoop,
    /// Less memory than the workers want.
    Memory,
    /// Deployments, rollbacks, settings and deletions one after the other.
    Deploys,
}

#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) kind: Kind,
    pub(super) caps: Caps,
    /// Duration until everything behaves.
    pub(super) chaos: Duration,
    pub(super) starts_max: usize,
    pub(super) queue_timeout: Duration,
    pub(super) kill_grace: Duration,
    pub(super) blocked: Duration,
    pub(super) rollback_warm: Duration,
    /// Interval between an operator's changes.
    pub(super) acts: Option<Span>,
    /// Probability, per thousand, that the actions of an event are performed only after other events.
    pub(super) racy: u64,
    pub(super) functions: Vec<Workload>,
}

/// One function and its callers.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    /// Settings, with `warm_workers` as the floor.
    pub(super) settings: Limits,
    pub(super) arrivals: Arrivals,
    pub(super) service: Span,
    pub(super) timeout: Duration,
    pub(super) start: Span,
    /// Time from the order to stop until the process is gone.
    pub(super) exit: Span,
    /// Memory of a worker that has just started, growth per invocation, and the size at which it is worn, in bytes.
    pub(super) memory: u64,
    pub(super) growth: u64,
    pub(super) memory_soft: u64,
    /// Span of time in which starts fail.
    pub(super) failing: Option<(Duration, Duration)>,
    pub(super) odds: Odds,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Arrivals {
    /// One caller after each such time.
    Steady(Span),
    /// A number of callers at once after each such time.
    Bursts(Span, usize),
    /// A number of callers that wait at any time.
    Greedy(usize),
}

/// Probabilities per thousand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Odds {
    /// The invocation never ends.
    pub(super) endless: u64,
    /// The invocation blocks the event loop while it runs.
    pub(super) blocking: u64,
    /// The invocation crashes its worker.
    pub(super) crash: u64,
    /// The caller leaves before the end.
    pub(super) leave: u64,
    /// The worker dies a moment after its last invocation.
    pub(super) idle_crash: u64,
    /// A start fails, at any time.
    pub(super) start: u64,
}

impl Scenario {
    pub(super) fn new(random: &mut Random) -> Self {
        let kind = [Kind::Chaos, Kind::Chaos, Kind::Crowd, Kind::CrashLoop, Kind::Memory, Kind::Deploys];
        let kind = kind[random.index(kind.len())];
        let (functions, workers_max, chaos) = match kind {
            Kind::Chaos => (random.count(1..=40), random.count(1..=20), 20),
            Kind::Crowd => (random.count(2..=8), random.count(1..=6), 30),
            Kind::CrashLoop => (random.count(2..=8), random.count(2..=12), 40),
            Kind::Memory => (random.count(2..=12), random.count(4..=20), 20),
            Kind::Deploys => (random.count(1..=5), random.count(2..=16), 40),
        };
        let mut functions: Vec<_> = (0..functions).map(|at| Workload::new(kind, at, random)).collect();
        if kind == Kind::Crowd && random.chance(300) {
            // Workers are often being replaced or stopping, but wear out no faster than they exit: replacements would
            // then take each place that becomes free before waiting pools get one.
            for it in &mut functions {
                it.settings.workers_min = 0;
                it.settings.requests_max = random.within(6..=16) * it.settings.concurrency as u64;
                it.exit = Span::milliseconds(20, 80);
            }
        }
        let largest = functions.iter().map(|it| it.memory).max().unwrap_or(0);
        let memory_max = match kind {
            Kind::Memory => random.within(1..=workers_max as u64) * largest + START_BYTES,
            Kind::Chaos if random.chance(300) => random.within(1..=workers_max as u64) * largest + START_BYTES,
            _ => u64::MAX / 2,
        };
        let acts = match kind {
            Kind::Deploys => Some(Span::milliseconds(50, 3_000)),
            Kind::Crowd => None,
            _ => Some(Span::milliseconds(200, 10_000)),
        };
        Self {
            kind,
            caps: Caps { workers_max, memory_max },
            chaos: Duration::from_secs(chaos),
            starts_max: random.count(1..=8),
            queue_timeout: if kind == Kind::Crowd {
                Duration::from_secs(600)
            } else {
                random.milliseconds(500..=30_000)
            },
            kill_grace: random.milliseconds(100..=1_000),
            blocked: random.milliseconds(300..=2_000),
            rollback_warm: random.milliseconds(1_000..=15_000),
            acts,
            racy: [0, 0, 30, 200][random.index(4)],
            functions,
        }
    }

    /// Returns the longest time that one worker can hold a place against the node's will: its invocation ends, another
    /// that it has begun in the meantime ends too, and it exits.
    fn hold_max(&self) -> Duration {
        let run = |it: &Workload| match it.odds.endless + it.odds.blocking {
            0 if it.settings.concurrency == 1 => it.service.max.min(it.timeout),
            0 => it.service.max.min(it.timeout) * 2,
            _ => (it.timeout + self.kill_grace) * 2,
        };
        self.functions.iter().map(|it| run(it) + it.exit.max).max().unwrap_or_default()
    }

    /// Returns the longest time from a grant to a serving worker, including the line of starts.
    fn start_max(&self) -> Duration {
        let start = self.functions.iter().map(|it| it.start.max).max().unwrap_or_default();
        start * (self.caps.workers_max as u32 + 1).div_ceil(self.starts_max as u32)
    }

    /// Returns the time of one turn of a place: a worker starts and serves its time, the tick fires, its invocation
    /// ends, and it exits.
    pub(super) fn round(&self) -> Duration {
        self.start_max() + TURN + TICK + self.hold_max() + Duration::from_millis(20)
    }

    /// Returns the time for what happens without an event: the back-off, the timeouts and the temporary floors.
    pub(super) fn settle(&self) -> Duration {
        let idle = self.functions.iter().map(|it| it.settings.idle_timeout).max().unwrap_or_default();
        BACK_OFF_MAX + self.start_max() + self.rollback_warm + idle + self.round()
    }
}

impl Workload {
    fn new(kind: Kind, at: usize, random: &mut Random) -> Self {
        let crowd = kind == Kind::Crowd;
        let arrivals = match random.index(4) {
            _ if crowd && at == 0 => Arrivals::Greedy(random.count(5..=60)),
            0 if crowd => Arrivals::Greedy(random.count(1..=60)),
            0 if at < 3 => Arrivals::Greedy(random.count(1..=20)),
            1 => Arrivals::Bursts(Span::milliseconds(2_000, 8_000), random.count(2..=30)),
            2 => Arrivals::Steady(Span::milliseconds(5_000, 20_000)),
            _ => Arrivals::Steady(Span::milliseconds(50, 1_500)),
        };
        let service = match random.index(4) {
            0 if !crowd => Span::milliseconds(500, 3_000),
            1 => Span::milliseconds(1, 20),
            _ => Span::milliseconds(20, 200),
        };
        let start = match random.index(4) {
            0 if !crowd => Span::milliseconds(500, 4_000),
            _ => Span::milliseconds(5, 80),
        };
        let exit = match random.index(4) {
            0 if !crowd => Span::milliseconds(100, 1_500),
            _ => Span::milliseconds(1, 20),
        };
        let failing = match random.index(3) {
            0 if kind == Kind::CrashLoop || (kind == Kind::Chaos && random.chance(300)) => {
                let from = random.milliseconds(0..=15_000);
                Some((from, from + random.milliseconds(500..=30_000)))
            }
            _ => None,
        };
        let memory = random.within(20..=64) << 20;
        let grows = random.chance(if kind == Kind::Memory { 700 } else { 200 });
        let mut settings = settings(random);
        if crowd {
            // A crowd wants more than the node has.
            settings.queue_max = 1_000;
            if let Arrivals::Greedy(callers) = arrivals {
                settings.executions_max = random.count(1..=callers);
                settings.workers_max = settings.executions_max.div_ceil(settings.concurrency);
                settings.workers_min = settings.workers_min.min(settings.workers_max);
            }
        }
        Self {
            settings,
            arrivals,
            service,
            timeout: if crowd { Duration::from_secs(600) } else { random.milliseconds(300..=8_000) },
            start,
            exit,
            memory,
            growth: if grows { random.within(1..=4) << 20 } else { 0 },
            memory_soft: memory * random.within(2..=4),
            failing,
            odds: if crowd { Odds::default() } else { odds(random) },
        }
    }
}

pub(super) fn settings(random: &mut Random) -> Limits {
    let concurrency = if random.chance(500) { 1 } else { random.count(2..=4) };
    let executions_max = random.count(1..=12);
    let workers_max = executions_max.div_ceil(concurrency);
    let is_worn = random.chance(200);
    Limits {
        workers_max,
        concurrency,
        executions_max,
        queue_max: random.count(0..=40),
        workers_min: if random.chance(700) { 0 } else { random.count(0..=2).min(workers_max) },
        idle_timeout: random.milliseconds(1_000..=8_000),
        requests_max: if is_worn { random.within(1..=40) } else { 0 },
        age_max: if random.chance(150) { random.milliseconds(1_000..=8_000) } else { Duration::ZERO },
    }
}

fn odds(random: &mut Random) -> Odds {
    let mut of = |often: u64, most: u64| if random.chance(often) { random.within(1..=most) } else { 0 };
    Odds {
        endless: of(300, 30),
        blocking: of(300, 30),
        crash: of(300, 50),
        leave: of(500, 200),
        idle_crash: of(200, 50),
        start: of(200, 200),
    }
}
