//! The results, and how they compare with the floors and the targets.

use crate::{
    Result,
    figures::{COMPARISONS, Comparison, FIGURES, Figure},
    rounds::Plan,
};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Values of one figure or ratio, one for each round.
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
        [self.min, self.median, self.max].map(|it| if it.is_nan() { "–".into() } else { rounded(it) })
    }

    /// Whether the median is within the bound, if both exist.
    fn meets(&self, comparison: &Comparison) -> Option<bool> {
        comparison.target.filter(|_| !self.median.is_nan()).map(|it| it.bound.is_met(self.median))
    }

    fn json(&self) -> Value {
        json!({ "min": self.min, "median": self.median, "max": self.max })
    }
}

/// Rounds to three significant digits.
fn rounded(value: f64) -> String {
    match value.abs() {
        it if it >= 100.0 => format!("{value:.0}"),
        it if it >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The figures of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    values: BTreeMap<&'static str, Vec<f64>>,
    conditions: Vec<(&'static str, Value)>,
}

impl Report {
    /// Adds a figure of the present round.
    pub(crate) fn add(&mut self, id: &'static str, value: f64) {
        assert!(FIGURES.iter().any(|it| it.id == id), "{id} is in the list of figures");
        self.values.entry(id).or_default().push(value);
    }

    /// Drops all figures so far.
    pub(crate) fn clear(&mut self) {
        self.values.clear();
    }

    /// Records the conditions of the measurement.
    pub(crate) fn set_conditions(&mut self, plan: &Plan, bun: &str, peer: Option<&str>) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        self.conditions = vec![
            ("levain", env!("CARGO_PKG_VERSION").into()),
            ("bun", bun.into()),
            ("peer", peer.unwrap_or("none").into()),
            ("cores", cores.into()),
            ("rounds", plan.rounds.into()),
            ("slice_ms", (plan.slice.as_millis() as u64).into()),
            ("functions", plan.functions.into()),
        ];
    }

    fn values(&self, id: &str) -> &[f64] {
        self.values.get(id).map_or(&[], Vec::as_slice)
    }

    /// Returns a comparison's value in each round.
    fn compared(&self, comparison: &Comparison) -> Vec<f64> {
        let of = self.values(comparison.of).iter().enumerate();
        let part =
            |round: usize| comparison.to.iter().map(|id| self.values(id).get(round).unwrap_or(&f64::NAN)).sum::<f64>();
        of.map(|(round, value)| if comparison.to.is_empty() { *value } else { value / part(round) }).collect()
    }

    /// Formats the tables for people.
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
        let mut comparisons = table(["target", "comparison", "min", "median", "max", "", ""]);
        for comparison in &COMPARISONS {
            let spread = Spread::of(&self.compared(comparison));
            let number = comparison.target.map_or(String::new(), |it| it.number.to_string());
            let bound = comparison.target.map_or(String::new(), |it| it.bound.text());
            let verdict = match spread.meets(comparison) {
                Some(true) => "reached",
                Some(false) => "MISSED",
                None if comparison.target.is_some() => "not measured",
                None => "",
            };
            let [min, median, max] = spread.cells();
            comparisons.add_row([number, comparison.title.into(), min, median, max, bound, verdict.into()]);
        }
        format!("{}\n\n{figures}\n\n{comparisons}", conditions.join(", "))
    }

    /// Formats the figures for programs.
    pub(crate) fn json(&self) -> Result<String> {
        let figure = |Figure { id, title, unit }: &Figure| {
            let values = self.values(id);
            json!({ "id": id, "title": title, "unit": unit, "spread": Spread::of(values).json(), "rounds": values })
        };
        let comparison = |it: &Comparison| {
            let rounds = self.compared(it);
            let spread = Spread::of(&rounds);
            json!({
                "title": it.title, "of": it.of, "to": it.to, "target": it.target.map(|it| it.number),
                "bound": it.target.map(|it| it.bound.text()), "is_met": spread.meets(it),
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
        if (2..6).contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
