//! Pools, node and breaker together, in virtual time.
//!
//! The daemon's own [`Driver`](super::driver::Driver), with its pools, node, leases and locks, plays through a life of
//! its own. The simulation is its [`Host`](super::driver::Host): every process, caller and clock is derived from a
//! seed. It never waits, spawns or reads the time, so a seed always produces the same run. A run plays chaos for a
//! while; then everything behaves and must come to rest; then the floors are removed, and the last workers must go;
//! then all pools are closed.
//!
//! ```text
//! scenario ─▶ world (what happens next) ─▶ callers, workers, operator ─▶ Driver ─▶ Pool, Node
//!               ▲  └─▶ checks                                              │
//!               └───────────────── records of the host ◀───────────────────┘
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
//! what follows the release of a lock is done only after other events, as happens between threads.
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
//! - **S13** While a request starves, no tick leaves a floor that is kept for a rollback.
//! - **S14** A worker that becomes idle at the end of an invocation stops at once if another pool's request finds no
//!   place.
//!
//! S7 is not guaranteed where workers wear out faster than they exit: each place that becomes free is then taken by a
//! replacement, which may have one beyond the cap.
#![allow(clippy::print_stderr, reason = "a run that fails shows its past, and a long one how far it is")]

mod callers;
mod checks;
mod follow;
mod history;
mod host;
mod operator;
mod random;
mod scenario;
mod workers;
mod world;

use super::{
    Floor,
    driver::{Cell, Driver},
    node::{Caps, Node},
    pool::{Event, Limits},
};
use crate::model::{VersionId, WorkerId};
use host::{Record, SimulatedHost, SimulatedWorker};
use random::Random;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use world::{World, invocation_id};

/// Key of a worker: the index of its pool and its id.
type Key = (usize, WorkerId);

/// Runs as part of the usual tests: some two seconds in a debug build.
const RUNS: u64 = 25;

/// Makes a driver, and pools with one worker each.
fn driver(racy: u64) -> (Arc<Driver<SimulatedHost>>, [Arc<Cell<SimulatedHost>>; 2]) {
    let caps = Caps { workers_max: 2, memory_max: u64::MAX / 2 };
    let driver = Arc::new(Driver::new(SimulatedHost::new(Instant::now(), 0, racy), Node::new(caps)));
    let settings = Limits { workers_max: 1, executions_max: 1, ..scenario::settings(&mut Random::new(0)) };
    let pools = [0_u128, 1].map(|number| {
        let version = VersionId::from_bytes(number.to_be_bytes());
        driver.pool(version, |()| true, || ((), settings, Floor::Nothing))
    });
    (driver, pools)
}

/// Performs delayed effects, and returns the workers that are to start.
fn starts(driver: &Arc<Driver<SimulatedHost>>) -> Vec<Arc<SimulatedWorker>> {
    let mut starts = Vec::new();
    loop {
        let records = std::mem::take(&mut *driver.host.records.lock());
        if records.is_empty() {
            return starts;
        }
        for record in records {
            match record {
                Record::Delayed(effects) => driver.perform(effects),
                Record::Start(worker) => starts.push(worker),
                _ => {}
            }
        }
    }
}

#[test]
fn the_place_of_a_crashed_worker_is_free_before_its_pool_asks_for_another() {
    let (driver, [other, crashing]) = driver(0);
    let request = |pool, call| driver.request(pool, invocation_id(call)).expect_err("no worker is idle");
    let (of_other, _runs, _waits) = (request(&other, 0), request(&crashing, 1), request(&crashing, 2));
    let started = starts(&driver);
    driver.ready(&other, started[0].key.1, &started[0]);
    driver.ready(&crashing, started[1].key.1, &started[1]);
    drop(of_other);
    assert_eq!(other.counts().idle, 1);
    driver.gone(&crashing, started[1].key.1, None);
    assert_eq!(starts(&driver).len(), 1, "the crashed worker is replaced");
    assert_eq!(other.counts().idle, 1, "no other worker has to go for it");
}

#[test]
fn a_worker_that_is_ready_before_its_start_is_cancelled_is_stopped() {
    let (driver, [pool, _]) = driver(1_000);
    let _waiting = driver.request(&pool, invocation_id(0)).expect_err("no worker is idle");
    let started = starts(&driver);
    driver.apply(&pool, Event::Close);
    driver.ready(&pool, started[0].key.1, &started[0]);
    let records = std::mem::take(&mut *driver.host.records.lock());
    assert!(!started[0].is_cancelled.load(Ordering::Relaxed), "the order to cancel is still on its way");
    assert!(records.iter().any(|it| matches!(it, Record::Stop(_))), "the ready worker is stopped: {records:?}");
}

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
