//! Pools, node and breaker together, in virtual time.
//!
//! Several real [`Pool`](super::pool::Pool)s and the real [`Node`](super::node::Node) play through what a daemon lives
//! through: what they are told, what they answer and what becomes of it is done as `cell.rs` and `mod.rs` do it, but
//! every process, caller and clock is made of a seed. Nothing here waits, spawns or reads the time, so a seed is always
//! the same run. A run plays chaos for a while; then everything behaves and must come to rest; then the floors go and
//! with them the last worker; then all is closed.
//!
//! ```text
//! scenario ─▶ world (what happens next) ─▶ callers, workers, operator ─▶ glue ─▶ Pool, Node
//!                                                                         └────▶ checks
//! ```
//!
//! - One run, line by line: `LEVAIN_SIMULATION_SEED=123 cargo test --lib simulation -- --nocapture`
//! - Many runs: `LEVAIN_SIMULATION_RUNS=20000 cargo test --release --lib simulation -- --nocapture`
//!
//! Without either, [`RUNS`] runs go with the other tests. A run that fails shows its last lines and its seed.
//!
//! # What it knows of the world
//!
//! Functions with one or more invocations to a worker, floors, wear by requests, age and memory; callers that come
//! steadily, in bursts, seldom or without end, that leave and that wait too long; invocations that take long, never end,
//! crash or block their worker; starts that are slow, that stand in line, that fail now and then or for a while; exits
//! that take their time; deployments of versions that start or do not, rollbacks, settings, caps, warm-ups, deletions.
//! In some runs, what an event asks for is done only after other events, as it is where many threads meet.
//!
//! # Invariants
//!
//! After each event or tick, if nothing else is said:
//!
//! - **S1** Every call ends exactly once, and who is dispatched or refused was waiting. A pool has in its queue who waits.
//!   At the end, no call is open.
//! - **S2** No worker runs more than `concurrency`, no pool dispatches beyond `executions_max`, or when it is closed.
//! - **S3** A worker starts once, is stopped once, and has calls only between its start and that.
//! - **S4** The places that the node counts are those of the processes there are, and those who ask are those whom pools
//!   have planned. They are at most `workers_max`, one more for a replacement, and those held when the cap was lowered;
//!   nobody gets one while there is no memory. Without floors and calls, none is held and nobody asks.
//! - **S5** No call is cut but by the kill, crash or deadline of its own worker.
//! - **S6** A pool at its floor loses no worker but by its death; one that is replaced goes when the other is ready.
//! - **S7** A pool with callers and no place gets one in time, if floors leave any: a round of the node for each other pool
//!   that may come before it, divided by the places that no floor takes, and one of its own. A round is a start, with its
//!   wait in the line of starts; [`TURN`](super::node::TURN) of service; a tick; what the worker runs; and its exit.
//! - **S8** From the first failed start to the next success, no more workers start than the back-off allows and people wish
//!   for; while none may and none is alive, nobody waits.
//! - **S9** No event leads to others for ever. When everything behaves, nobody waits after a bounded time and every pool
//!   stands at its floor; a closed one is gone.
//! - **S10** While a floor is kept for a rollback, a pool that had a ready worker has one, unless it died.
//! - **S11** When the workers have too much memory and one above the floors is idle, some worker is told to stop within two
//!   ticks.
//! - **S12** No pool gives up busy workers while nobody asks for a place.
//!
//! S7 is not promised where workers are worn faster than they exit: each place that becomes free is then taken by a
//! replacement, which may have one beyond the cap.
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

/// Runs of the usual tests: some two seconds in a debug build.
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
