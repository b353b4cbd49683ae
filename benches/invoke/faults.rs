//! Measures how much a misbehaving function disturbs others.
//!
//! The others are callers of hello with an interval between their calls: callers without a pause use up all processors,
//! and so wait for one another longer than for any fault. They are measured undisturbed before each fault, and those
//! slices together are the baseline of a round's faults. On a machine with few processors, a function that only burns
//! CPU time slows everybody down whatever a platform does, so the callers are also measured beside a process outside
//! the daemon that burns one processor.

use crate::{
    Result,
    daemon::{Daemon, IpcCaller, get, sample},
    floor::Burner,
    load::{self, Load},
    report::Report,
    rounds::PREWARMED,
};
use levain::{error::ErrorCode, model::SettingsPatch, protocol::message::InvokeRequest};
use std::{
    fs,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Number of callers that are disturbed.
const CALLERS: usize = 4;

/// Interval between the calls of one caller.
const INTERVAL: Duration = Duration::from_millis(2);

/// Pause between two invocations of a failing function. An invocation whose import fails is refused at once: a caller
/// without a pause would disturb the others by itself.
const PAUSE: Duration = Duration::from_millis(1);

/// Time after which an endless invocation is ended.
const TIMEOUT_MS: u64 = 200;

/// Memory limit: the least that the worker itself can live with, so that the fault is soon over.
const MEMORY_MB: u32 = 64;

/// Ends the process without a chance to report anything. A signal from itself does not end the first process of a
/// namespace.
const CRASHES: &str = r#"export default () => process.abort();"#;

/// A fork bomb with a limit, so that the machine survives where nothing stops it.
const FORKS: &str = r#"
export default () => {
  for (let child = 0; child < 30; child++) Bun.spawn([process.execPath, "-e", "await Bun.sleep(5000)"]);
  return new Promise(() => {});
};
"#;

/// Fails at import. The version is deployed without being loaded, as if it had begun to fail later.
const FAILS_AT_IMPORT: &str = r#"export default () => {}; throw new Error("not today");"#;

/// A way to misbehave.
struct Fault {
    name: &'static str,
    /// Name of the figure for the other callers' p99 latency.
    p99: &'static str,
    code: &'static str,
    /// Error code that ends each invocation of the faulty function.
    ends_with: ErrorCode,
}

const FAULTS: [Fault; 6] = [
    Fault {
        name: "loops",
        p99: "fault.loop.p99",
        code: include_str!("../../bundles/faulty/loops/index.js"),
        ends_with: ErrorCode::Timeout,
    },
    Fault { name: "crashes", p99: "fault.crash.p99", code: CRASHES, ends_with: ErrorCode::WorkerCrashed },
    Fault {
        name: "exits",
        p99: "fault.exit.p99",
        code: include_str!("../../bundles/faulty/exits/index.js"),
        ends_with: ErrorCode::WorkerCrashed,
    },
    Fault {
        name: "eats-memory",
        p99: "fault.memory.p99",
        code: include_str!("../../bundles/faulty/eats-memory/index.js"),
        ends_with: ErrorCode::OutOfMemory,
    },
    Fault {
        name: "fails-at-import",
        p99: "fault.import.p99",
        code: FAILS_AT_IMPORT,
        ends_with: ErrorCode::BundleLoadError,
    },
    Fault { name: "forks", p99: "fault.forks.p99", code: FORKS, ends_with: ErrorCode::Timeout },
];

/// Callers of hello, and the functions that disturb them.
pub(crate) struct Faults {
    hello: Vec<IpcCaller>,
    /// One caller per fault, in the order of the faults.
    faulty: Vec<IpcCaller>,
}

impl Faults {
    pub(crate) async fn start(daemon: &Daemon) -> Result<Self> {
        daemon.deploy("hello", &sample("hello")).await?;
        let folder = TempDir::new()?;
        let mut faulty = Vec::new();
        for fault in &FAULTS {
            let file = folder.path().join(format!("{}.js", fault.name));
            fs::write(&file, fault.code)?;
            let settings = SettingsPatch { memory_mb: Some(MEMORY_MB), ..SettingsPatch::default() };
            daemon.deploy_with(fault.name, &file, settings).await?;
            let timeout_ms = (fault.ends_with == ErrorCode::Timeout).then_some(TIMEOUT_MS);
            let request = InvokeRequest { timeout_ms, ..get(fault.name) };
            faulty.append(&mut daemon.callers(&request, 1).await?);
        }
        Ok(Self { hello: daemon.callers(&get("hello"), CALLERS).await?, faulty })
    }

    /// Runs each fault once.
    pub(crate) async fn round(&mut self, daemon: &Daemon, slice: Duration, report: &mut Report) -> Result<()> {
        let mut quiet = Vec::new();
        for (fault, faulty) in FAULTS.iter().zip(&mut self.faulty) {
            daemon.until_prewarmed(PREWARMED).await?;
            quiet.push(load::run_paced(&mut self.hello, INTERVAL, slice / 2).await?);
            let others = load::run_paced(&mut self.hello, INTERVAL, slice);
            let (others, ()) = tokio::try_join!(others, misbehave(faulty, fault.ends_with, slice))?;
            report.add(fault.p99, others.p99_us());
        }
        daemon.until_prewarmed(PREWARMED).await?;
        quiet.push(load::run_paced(&mut self.hello, INTERVAL, slice / 2).await?);
        let burner = Burner::start()?;
        report.add("fault.burner.p99", load::run_paced(&mut self.hello, INTERVAL, slice).await?.p99_us());
        drop(burner);
        report.add("fault.none.p99", Load::joined(quiet).p99_us());
        Ok(())
    }
}

/// Invokes the faulty function again and again.
async fn misbehave(faulty: &mut IpcCaller, expected: ErrorCode, time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        faulty.fail(expected).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
