//! What was measured, and how it stands to the floors and the targets.

use crate::{Result, rounds::Plan};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Something that is measured.
struct Figure {
    id: &'static str,
    title: &'static str,
    unit: &'static str,
}

const fn figure(id: &'static str, title: &'static str, unit: &'static str) -> Figure {
    Figure { id, title, unit }
}

/// Every figure, in the order of the table.
const FIGURES: [Figure; 27] = [
    figure("floor.pair.p50", "floor: a socket pair between two processes, blocking, p50", "µs"),
    figure("floor.frames.p50", "floor: bare frames on a Unix socket, p50", "µs"),
    figure("floor.worker.p50", "floor: a worker driven without the daemon, p50", "µs"),
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
    figure("cpu.rate", "1 ms of CPU, 16 callers", "calls/s"),
    figure("cpu.cpu", "1 ms of CPU, 16 callers, the daemon's CPU for a call", "µs"),
    figure("bare.cpu.rate", "bare: 1 ms of CPU, 16 callers, two Bun processes", "calls/s"),
    figure("echo.rate", "1 MiB echo, 4 callers", "calls/s"),
    figure("bare.echo.rate", "bare: 1 MiB echo, 4 callers, two Bun processes", "calls/s"),
    figure("cold.claimed.p50", "hello, cold: a prewarmed process is claimed, p50", "ms"),
    figure("cold.spawned.p50", "hello, cold: a worker is spawned, p50", "ms"),
    figure("floor.cold.p50", "floor: the same worker started without the daemon, p50", "ms"),
    figure("memory.empty", "private memory of the idle daemon, no function", "MiB"),
    figure("memory.deployed", "private memory of the idle daemon, many functions, none warm", "MiB"),
    figure("memory.worker", "private memory of a warm idle worker of hello", "MiB"),
    figure("memory.deploys", "deployments, 8 at once, syntax check only", "1/s"),
];

/// What a ratio, or a figure by itself, should be.
#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// None is set; it is shown because it explains the others.
    None,
}

/// A figure divided by the sum of others, or by nothing.
struct Comparison {
    title: &'static str,
    of: &'static str,
    to: &'static [&'static str],
    target: Target,
}

/// Every comparison, in the order of the table.
const COMPARISONS: [Comparison; 11] = [
    Comparison {
        title: "warm call, 1 caller, to two bare hops (frames + worker)",
        of: "hello.1.p50",
        to: &["floor.frames.p50", "floor.worker.p50"],
        target: Target::AtMost(1.3),
    },
    Comparison {
        title: "warm call, 1 caller, to a socket pair's round trip",
        of: "hello.1.p50",
        to: &["floor.pair.p50"],
        target: Target::None,
    },
    Comparison {
        title: "hello, 64 callers, to two bare Bun processes",
        of: "hello.64.rate",
        to: &["bare.hello.rate"],
        target: Target::None,
    },
    Comparison {
        title: "the daemon's CPU for a call, 64 callers, µs",
        of: "hello.64.cpu",
        to: &[],
        target: Target::AtMost(12.0),
    },
    Comparison {
        title: "the daemon's CPU for a call, 1 caller, µs", of: "hello.1.cpu", to: &[], target: Target::None
    },
    Comparison {
        title: "1 ms of CPU, 16 callers, to two bare Bun processes",
        of: "cpu.rate",
        to: &["bare.cpu.rate"],
        target: Target::AtLeast(0.95),
    },
    Comparison {
        title: "1 MiB echo, 4 callers, to two bare Bun processes",
        of: "echo.rate",
        to: &["bare.echo.rate"],
        target: Target::AtLeast(0.6),
    },
    Comparison {
        title: "claimed cold start to a spawned one",
        of: "cold.claimed.p50",
        to: &["cold.spawned.p50"],
        target: Target::AtMost(0.35),
    },
    Comparison {
        title: "spawned cold start to the same start without the daemon",
        of: "cold.spawned.p50",
        to: &["floor.cold.p50"],
        target: Target::None,
    },
    Comparison {
        title: "idle daemon, many functions, none warm, MiB",
        of: "memory.deployed",
        to: &[],
        target: Target::AtMost(40.0),
    },
    Comparison {
        title: "warm idle worker of a small function, MiB",
        of: "memory.worker",
        to: &[],
        target: Target::AtMost(3.0),
    },
];

/// The values of one figure or ratio, a value for each round.
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Self { min: at(0), median: (at(last / 2) + at(last.div_ceil(2))) / 2.0, max: at(last) }
    }

    fn cells(&self) -> [String; 3] {
        [self.min, self.median, self.max].map(rounded)
    }

    fn json(&self) -> Value {
        json!({ "min": self.min, "median": self.median, "max": self.max })
    }
}

/// Three digits that count.
fn rounded(value: f64) -> String {
    match value.abs() {
        it if it >= 100.0 => format!("{value:.0}"),
        it if it >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Target {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(bound) => Some(value <= bound),
            Self::AtLeast(bound) => Some(value >= bound),
            Self::None => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {bound}"),
            Self::AtLeast(bound) => format!("≥ {bound}"),
            Self::None => String::new(),
        }
    }
}

/// The figures of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    values: BTreeMap<&'static str, Vec<f64>>,
    conditions: Vec<(&'static str, Value)>,
}

impl Report {
    /// Takes a figure of the present round.
    pub(crate) fn add(&mut self, id: &'static str, value: f64) {
        debug_assert!(FIGURES.iter().any(|it| it.id == id), "{id} is in the list of figures");
        self.values.entry(id).or_default().push(value);
    }

    /// Forgets what was measured so far.
    pub(crate) fn clear(&mut self) {
        self.values.clear();
    }

    /// Notes what the figures were taken under.
    pub(crate) fn set_conditions(&mut self, plan: &Plan, bun: String) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        self.conditions = vec![
            ("levain", env!("CARGO_PKG_VERSION").into()),
            ("bun", bun.into()),
            ("cores", cores.into()),
            ("rounds", plan.rounds.into()),
            ("slice_ms", (plan.slice.as_millis() as u64).into()),
            ("functions", plan.functions.into()),
        ];
    }

    fn values(&self, id: &str) -> &[f64] {
        self.values.get(id).map_or(&[], Vec::as_slice)
    }

    /// A comparison's value in each round.
    fn compared(&self, comparison: &Comparison) -> Vec<f64> {
        let of = self.values(comparison.of).iter().enumerate();
        let part =
            |round: usize| comparison.to.iter().map(|id| self.values(id).get(round).unwrap_or(&f64::NAN)).sum::<f64>();
        of.map(|(round, value)| if comparison.to.is_empty() { *value } else { value / part(round) }).collect()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let conditions: Vec<String> = self
            .conditions
            .iter()
            .map(|(name, value)| format!("{name} {}", value.to_string().trim_matches('"')))
            .collect();
        let mut figures = table(["figure", "", "min", "median", "max"]);
        for Figure { id, title, unit } in &FIGURES {
            let [min, median, max] = Spread::of(self.values(id)).cells();
            figures.add_row([(*title).to_owned(), (*unit).to_owned(), min, median, max]);
        }
        let mut comparisons = table(["comparison", "min", "median", "max", "target", ""]);
        for comparison in &COMPARISONS {
            let spread = Spread::of(&self.compared(comparison));
            let verdict = match comparison.target.is_met(spread.median) {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            let [min, median, max] = spread.cells();
            comparisons.add_row([
                comparison.title.to_owned(),
                min,
                median,
                max,
                comparison.target.text(),
                verdict.to_owned(),
            ]);
        }
        format!("{}\n\n{figures}\n\n{comparisons}", conditions.join(", "))
    }

    /// For programs.
    pub(crate) fn json(&self) -> Result<String> {
        let figure = |Figure { id, title, unit }: &Figure| {
            let values = self.values(id);
            json!({ "id": id, "title": title, "unit": unit, "spread": Spread::of(values).json(), "rounds": values })
        };
        let comparison = |it: &Comparison| {
            let rounds = self.compared(it);
            let spread = Spread::of(&rounds);
            let is_met = it.target.is_met(spread.median);
            json!({
                "title": it.title, "of": it.of, "to": it.to, "target": it.target.text(), "is_met": is_met,
                "spread": spread.json(), "rounds": rounds,
            })
        };
        let report = json!({
            "conditions": self.conditions.iter().cloned().collect::<BTreeMap<_, _>>(),
            "figures": FIGURES.iter().map(figure).collect::<Vec<_>>(),
            "comparisons": COMPARISONS.iter().map(comparison).collect::<Vec<_>>(),
        });
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }
}

fn table<const N: usize>(heads: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (1..5).contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
