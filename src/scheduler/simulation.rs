//! Pools, node and breaker together, in virtual time.
//!
//! Several real [`Pool`](super::pool::Pool)s and the real [`Node`](super::node::Node) play through the life of a
//! daemon. Events, actions and effects are handled as in `cell.rs` and `mod.rs`, but every process, caller and clock is
//! derived from a seed. The simulation never waits, spawns or reads the time, so a seed always produces the same run. A
//! run plays chaos for a while; then everything behaves and must come to rest; then the floors are removed, and the
//! last workers must go; then all pools are closed.
//!
//! ```text
//! scenario ─▶ world (what happens next) ─▶ callers, workers, operator ─▶ glue ─▶ Pool, Node
//!                                                                         └────▶ checks
//! ```
//!
//! - One run, line by line: `LEVAIN_SIMULATION_SEED=123 cargo test --lib simulation -- --nocapture`
//! - Many runs: `LEVAIN_SIMULATION_RUNS=20000 cargo test --release --lib simulation -- --nocapture`
//!
//! Without either variable, [`RUNS`] runs go with the other tests. A failing run shows its last lines and its seed.
//!
//! # What it simulates
//!
//! Functions with one or more invocations per worker, floors, and wear by requests, age and memory. Callers that arrive
//! steadily, in bursts, seldom or without end, that leave, and that wait too long. Invocations that take long, never
//! end, crash or block their worker. Starts that are slow, that queue, that fail now and then or for a while. Slow
//! exits. Deployments of versions that start or do not, rollbacks, settings, caps, warm-ups, deletions. In some runs,
//! the actions of an event are performed only after other events, as happens between threads.
//!
//! # Invariants
//!
//! Checked after each event or tick, unless stated otherwise:
//!
//! - **S1** Every invocation ends exactly once, and only waiting callers are dispatched or refused. The queue of a pool
//!   holds exactly its waiting callers. At the end, no invocation is open.
//! - **S2** No worker runs more than `concurrency`, and no pool dispatches beyond `executions_max` or when it is
//!   closed.
//! - **S3** A worker starts once, is stopped once, and has invocations only in between.
//! - **S4** The places that the node counts are those of existing processes, and its requests are those of workers that
//!   pools have planned. Places are at most `workers_max`, plus one for a replacement, or as many as were held when the
//!   cap was lowered; none is given without memory for it. Without floors and invocations, no place is held or
//!   requested.
//! - **S5** An invocation is cut only by the kill, crash or deadline of its own worker.
//! - **S6** A pool at its floor loses a worker only by its death; a replaced worker stops when its replacement is
//!   ready.
//! - **S7** A pool with callers and no place gets one in time, if floors leave any: after one round of the node for
//!   each other pool that may come before it, divided by the places that no floor takes, and one round of its own. A
//!   round is a start, with its wait in the line of starts; [`TURN`](super::node::TURN) of service; a tick; the
//!   worker's running invocations; and its exit.
//! - **S8** From the first failed start to the next success, no more workers start than the back-off allows and wishes
//!   ask for; while none may start and none is alive, no caller waits.
//! - **S9** No event leads to others for ever. When everything behaves, no caller waits after a bounded time and every
//!   pool stands at its floor; a closed pool is gone.
//! - **S10** While a floor is kept for a rollback, a pool that had a ready worker has one, unless it died.
//! - **S11** When the workers use too much memory and one above the floors is idle, some worker is told to stop within
//!   two ticks.
//! - **S12** No pool gives up busy workers while no pool asks for a place.
//!
//! S7 is not guaranteed where workers wear out faster than they exit: each place that becomes free is then taken by a
//! replacement, which may have one beyond the cap.
#![allow(clippy::print_stderr, reason = "a run that fails shows its past, and a long one how far it is")]

mod callers;
mod checks;
mod glue;
mod history;
mod operator;
mod random;
mod scenario;
mod workers;
mod world;

use crate::model::WorkerId;
use world::World;

/// Key of a worker: the index of its pool and its id.
type Key = (usize, WorkerId);

/// Runs as part of the usual tests: some two seconds in a debug build.
const RUNS: u64 = 25;

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
