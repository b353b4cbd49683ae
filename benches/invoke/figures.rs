//! Every figure that is measured, and the comparisons between them.

/// One measured quantity.
pub(crate) struct Figure {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
}

const fn figure(id: &'static str, title: &'static str, unit: &'static str) -> Figure {
    Figure { id, title, unit }
}

/// Every figure, in the order of the table.
pub(crate) const FIGURES: [Figure; 75] = [
    figure("floor.pair.p50", "floor: a socket pair between two processes, blocking, p50", "µs"),
    figure("floor.frames.p50", "floor: bare frames on a Unix socket, p50", "µs"),
    figure("floor.worker.p50", "floor: a worker driven without the daemon, p50", "µs"),
    figure("workerd.hello.p50", "workerd: hello, 1 caller, p50", "µs"),
    figure("hello.1.p50", "hello, 1 caller, p50", "µs"),
    figure("hello.1.p99", "hello, 1 caller, p99", "µs"),
    figure("hello.1.cpu", "hello, 1 caller, the daemon's CPU for a call", "µs"),
    figure("hello.16.p50", "hello, 16 callers, p50", "µs"),
    figure("hello.16.p99", "hello, 16 callers, p99", "µs"),
    figure("hello.16.rate", "hello, 16 callers", "calls/s"),
    figure("hello.64.p50", "hello, 64 callers, p50", "µs"),
    figure("hello.64.p99", "hello, 64 callers, p99", "µs"),
    figure("hello.64.cpu", "hello, 64 callers, the daemon's CPU for a call", "µs"),
    figure("hello.64.rate", "hello, 64 callers", "calls/s"),
    figure("hello.shared.rate", "hello, 64 callers on one connection", "calls/s"),
    figure("bare.hello.rate", "bare: hello, 64 callers, two Bun processes", "calls/s"),
    figure("workerd.hello.rate", "workerd: hello, 64 callers", "calls/s"),
    figure("cpu.rate", "1 ms of CPU, 16 callers", "calls/s"),
    figure("cpu.few.rate", "… with three workers, by max_concurrent_executions", "calls/s"),
    figure("cpu.cpu", "1 ms of CPU, 16 callers, the daemon's CPU for a call", "µs"),
    figure("bare.cpu.rate", "bare: 1 ms of CPU, 16 callers, two Bun processes", "calls/s"),
    figure("workerd.cpu.rate", "workerd: 1 ms of CPU, 16 callers", "calls/s"),
    figure("echo.rate", "1 MiB echo, 4 callers", "calls/s"),
    figure("bare.echo.rate", "bare: 1 MiB echo, 4 callers, two Bun processes", "calls/s"),
    figure("ipc.1.p50", "hello through the command socket, 1 caller, p50", "µs"),
    figure("http.1.p50", "hello over HTTP, 1 caller, p50", "µs"),
    figure("workerd.http.1.p50", "workerd: hello over TCP, 1 caller, p50", "µs"),
    figure("ipc.1.cpu", "the daemon's CPU for a call through the command socket, 1 caller", "µs"),
    figure("http.1.cpu", "… over HTTP", "µs"),
    figure("ipc.64.p50", "hello through the command socket, 64 callers, p50", "µs"),
    figure("http.64.p50", "hello over HTTP, 64 callers, p50", "µs"),
    figure("ipc.64.cpu", "the daemon's CPU for a call through the command socket, 64 callers", "µs"),
    figure("http.64.cpu", "… over HTTP", "µs"),
    figure("ipc.64.rate", "hello through the command socket, 64 callers", "calls/s"),
    figure("http.64.rate", "hello over HTTP, 64 callers", "calls/s"),
    figure("workerd.http.64.rate", "workerd: hello over TCP, 64 callers", "calls/s"),
    figure("cold.claimed.p50", "hello, cold: a prewarmed process is claimed, p50", "ms"),
    figure("cold.spawned.p50", "hello, cold: a worker is spawned, p50", "ms"),
    figure("floor.cold.p50", "floor: the same worker started without the daemon, p50", "ms"),
    figure("workerd.cold.p50", "workerd: hello, cold: its loader makes an isolate, p50", "ms"),
    figure("workerd.isolate", "workerd: what one more function adds to its start", "ms"),
    figure("workerd.start", "workerd: from its start to the first answer", "ms"),
    figure("sandbox.spawned.p50", "hello, cold, spawned, isolated, p50", "ms"),
    figure("open.spawned.p50", "… without isolation", "ms"),
    figure("sandbox.claimed.p50", "hello, cold, claimed, isolated, p50", "ms"),
    figure("open.claimed.p50", "… without isolation", "ms"),
    figure("sandbox.hello.p50", "hello, 1 caller, isolated, p50", "µs"),
    figure("open.hello.p50", "… without isolation", "µs"),
    figure("small.spawned.p50", "a worker started by a small process, p50", "ms"),
    figure("large.spawned.p50", "… by one that has written to 500 MiB", "ms"),
    figure("versions.plain.rate", "hello, 16 callers, LIVE points at one version", "calls/s"),
    figure("versions.split.rate", "… LIVE divides its calls between two", "calls/s"),
    figure("versions.calls.p99", "hello, 16 callers, while LIVE goes back again and again, p99", "ms"),
    figure("versions.rollback.p50", "rollback among 16 callers, until the version answers, p50", "ms"),
    figure("versions.rollback.max", "… the longest", "ms"),
    figure("fault.none.p99", "hello, 4 callers, each every 2 ms, p99", "µs"),
    figure("fault.burner.p99", "… beside a process outside that burns one processor", "µs"),
    figure("fault.loop.p99", "… beside a function that loops", "µs"),
    figure("fault.crash.p99", "… beside a function that crashes", "µs"),
    figure("fault.exit.p99", "… beside a function that ends its process", "µs"),
    figure("fault.memory.p99", "… beside a function that takes all memory it can", "µs"),
    figure("fault.import.p99", "… beside a function whose import fails", "µs"),
    figure("fault.forks.p99", "… beside a function that starts 30 processes", "µs"),
    figure("overload.refused", "overload, 3 times as many callers as places: refused calls", "%"),
    figure("overload.rate", "overload: answered calls of 1 ms of CPU", "calls/s"),
    figure("overload.p99", "overload: p99 of the answered", "ms"),
    figure("overload.p50.before", "1 caller before the overload, p50", "µs"),
    figure("overload.p50.after", "1 caller after the overload, p50", "µs"),
    figure("overload.memory.before", "private memory of the daemon before the overload", "MiB"),
    figure("overload.memory.during", "… at most during it", "MiB"),
    figure("overload.memory.after", "… after it", "MiB"),
    figure("memory.empty", "private memory of the idle daemon, no function", "MiB"),
    figure("memory.deployed", "private memory of the idle daemon, many functions, none warm", "MiB"),
    figure("memory.worker", "private memory of a warm idle worker of hello", "MiB"),
    figure("memory.deploys", "deployments, 8 at once, syntax check only", "1/s"),
];

/// Bound of a ratio, or of a figure by itself.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {bound}"),
            Self::AtLeast(bound) => format!("≥ {bound}"),
        }
    }
}

/// One target: its number, and a bound that it sets.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) number: u8,
    pub(crate) bound: Bound,
}

/// A figure divided by the sum of others, or by itself where `to` is empty.
pub(crate) struct Comparison {
    pub(crate) title: &'static str,
    pub(crate) of: &'static str,
    pub(crate) to: &'static [&'static str],
    /// Without a target, the comparison is shown because it explains the others.
    pub(crate) target: Option<Target>,
}

const fn compare(title: &'static str, of: &'static str, to: &'static [&'static str]) -> Comparison {
    Comparison { title, of, to, target: None }
}

impl Comparison {
    const fn at_most(mut self, number: u8, bound: f64) -> Self {
        self.target = Some(Target { number, bound: Bound::AtMost(bound) });
        self
    }

    const fn at_least(mut self, number: u8, bound: f64) -> Self {
        self.target = Some(Target { number, bound: Bound::AtLeast(bound) });
        self
    }
}

/// Every comparison, by the numbers of the targets: 1 cold starts, 2 a single warm caller, 3 many callers, 4 functions
/// that compute, 5 large bodies, 6 idle functions, 7 faults, 8 isolation, 9 HTTP.
pub(crate) const COMPARISONS: [Comparison; 41] = [
    compare("claimed cold start to a spawned one", "cold.claimed.p50", &["cold.spawned.p50"]).at_most(1, 0.35),
    compare("claimed cold start, ms", "cold.claimed.p50", &[]).at_most(1, 2.0),
    compare("claimed cold start to a first call through workerd's loader", "cold.claimed.p50", &["workerd.cold.p50"])
        .at_most(1, 0.6),
    compare("claimed cold start to an isolate in workerd's start", "cold.claimed.p50", &["workerd.isolate"])
        .at_most(1, 0.6),
    compare("spawned cold start to the same start without the daemon", "cold.spawned.p50", &["floor.cold.p50"]),
    compare(
        "warm call, 1 caller, to two bare hops (frames + worker)",
        "hello.1.p50",
        &["floor.frames.p50", "floor.worker.p50"],
    )
    .at_most(2, 1.3),
    compare("warm call, 1 caller, to a socket pair's round trip", "hello.1.p50", &["floor.pair.p50"]),
    compare("warm call, 1 caller, to workerd", "hello.1.p50", &["workerd.hello.p50"]),
    compare("hello, 64 callers, to workerd", "hello.64.rate", &["workerd.hello.rate"]).at_least(3, 2.0),
    compare("the daemon's CPU for a call, 64 callers, µs", "hello.64.cpu", &[]).at_most(3, 12.0),
    compare("the daemon's CPU for a call, 1 caller, µs", "hello.1.cpu", &[]),
    compare("over HTTP to the command socket, 1 caller, p50", "http.1.p50", &["ipc.1.p50"]).at_most(9, 1.5),
    compare("over HTTP to the command socket, 64 callers, p50", "http.64.p50", &["ipc.64.p50"]).at_most(9, 1.5),
    compare("over HTTP to the command socket, 1 caller, the daemon's CPU", "http.1.cpu", &["ipc.1.cpu"]),
    compare("over HTTP to the command socket, 64 callers, the daemon's CPU", "http.64.cpu", &["ipc.64.cpu"]),
    compare("over HTTP, 64 callers, calls to those of the command socket", "http.64.rate", &["ipc.64.rate"]),
    compare("over HTTP, 1 caller, to workerd over TCP", "http.1.p50", &["workerd.http.1.p50"]),
    compare("over HTTP, 64 callers, to workerd over TCP", "http.64.rate", &["workerd.http.64.rate"]).at_least(3, 1.5),
    compare("hello, 64 callers, to two bare Bun processes", "hello.64.rate", &["bare.hello.rate"]),
    compare("1 ms of CPU, 16 callers, to two bare Bun processes", "cpu.rate", &["bare.cpu.rate"]).at_least(4, 0.95),
    compare("… with three workers, to two bare Bun processes", "cpu.few.rate", &["bare.cpu.rate"]).at_least(4, 0.95),
    compare("1 ms of CPU, 16 callers, to workerd", "cpu.rate", &["workerd.cpu.rate"]),
    compare("1 MiB echo, 4 callers, to two bare Bun processes", "echo.rate", &["bare.echo.rate"]).at_least(5, 0.6),
    compare("idle daemon, many functions, none warm, MiB", "memory.deployed", &[]).at_most(6, 40.0),
    compare("warm idle worker of a small function, MiB", "memory.worker", &[]).at_most(6, 3.0),
    compare("isolated start of a worker to one without isolation", "sandbox.spawned.p50", &["open.spawned.p50"])
        .at_most(8, 1.2),
    compare("isolated claim to one without isolation", "sandbox.claimed.p50", &["open.claimed.p50"]).at_most(8, 1.1),
    compare("isolated warm call to one without isolation", "sandbox.hello.p50", &["open.hello.p50"]).at_most(8, 1.1),
    compare("start by a process of 500 MiB to one by a small process", "large.spawned.p50", &["small.spawned.p50"])
        .at_most(8, 1.2),
    compare("calls of a divided alias to those of one version", "versions.split.rate", &["versions.plain.rate"]),
    compare("rollback among 16 callers until the version answers, ms", "versions.rollback.max", &[]),
    compare("others' p99 beside a function that loops", "fault.loop.p99", &["fault.none.p99"]).at_most(7, 1.5),
    compare("others' p99 beside one that crashes", "fault.crash.p99", &["fault.none.p99"]).at_most(7, 1.5),
    compare("others' p99 beside one that ends its process", "fault.exit.p99", &["fault.none.p99"]).at_most(7, 1.5),
    compare("others' p99 beside one that takes all memory", "fault.memory.p99", &["fault.none.p99"]).at_most(7, 1.5),
    compare("others' p99 beside one whose import fails", "fault.import.p99", &["fault.none.p99"]).at_most(7, 1.5),
    compare("others' p99 beside one that starts processes", "fault.forks.p99", &["fault.none.p99"]).at_most(7, 1.5),
    compare("others' p99 beside a burning process outside", "fault.burner.p99", &["fault.none.p99"]),
    compare("a function that loops to a burning process outside", "fault.loop.p99", &["fault.burner.p99"]),
    compare("1 caller after an overload to before", "overload.p50.after", &["overload.p50.before"]),
    compare("the daemon's memory in an overload to before", "overload.memory.during", &["overload.memory.before"]),
];
