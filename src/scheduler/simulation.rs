//! Pools, node and breaker together.
#![allow(clippy::print_stderr, reason = "a run that fails shows its past, and a long one how far it is")]

mod callers;
mod checks;
mod glue;
mod operator;
mod random;
mod scenario;
mod workers;
mod world;

use world::World;

/// Runs of the usual tests.
const RUNS: u64 = 100;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{value}`")))
}

#[test]
fn pools_and_node_hold_together() {
    if let Some(seed) = variable("LEVAIN_SIMULATION_SEED") {
        return World::new(seed, true).run();
    }
    let runs = variable("LEVAIN_SIMULATION_RUNS");
    for seed in 0..runs.unwrap_or(RUNS) {
        World::new(seed, false).run();
        if runs.is_some() && (seed + 1).is_multiple_of(500) {
            eprintln!("{} runs", seed + 1);
        }
    }
}
