//! What other functions notice while one does its worst.
//!
//! The others are callers of hello who call now and then: callers without a pause use all processors up and so wait for
//! one another longer than for any fault. Before each fault they are measured undisturbed, and those slices together are
//! what a round's faults are compared with. On a machine of few processors, who only burns CPU time slows everybody down
//! whatever a platform does, so the same is measured beside a process outside the daemon that burns one processor.

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

/// Who is disturbed.
const CALLERS: usize = 4;

/// How often each of them calls.
const INTERVAL: Duration = Duration::from_millis(2);

/// Between two invocations of a function that fails. One whose import fails is refused at once: a caller without a pause
/// would disturb the others by itself.
const PAUSE: Duration = Duration::from_millis(1);

/// When an invocation that never ends is ended.
const TIMEOUT_MS: u64 = 200;

/// As few as the worker itself can live with, so that it is soon over.
const MEMORY_MB: u32 = 64;

/// Ends its process without a chance to say anything. No signal of its own ends the first process of a namespace.
const CRASHES: &str = r#"export default () => process.abort();"#;

/// A fork bomb with a limit, so that the machine survives where nothing stops it.
const FORKS: &str = r#"
export default () => {
  for (let child = 0; child < 30; child++) Bun.spawn([process.execPath, "-e", "await Bun.sleep(5000)"]);
  return new Promise(() => {});
};
"#;

/// Deployed without being loaded, as if it had begun to fail later.
const FAILS_AT_IMPORT: &str = r#"export default () => {}; throw new Error("not today");"#;

/// A way to misbehave.
struct Fault {
    name: &'static str,
    /// What others then see, as a figure.
    p99: &'static str,
    code: &'static str,
    /// How each of its invocations ends.
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
    /// Of each fault, in order.
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

    /// Takes each fault once.
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

/// Has a function misbehave again and again.
async fn misbehave(faulty: &mut IpcCaller, expected: ErrorCode, time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        faulty.fail(expected).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
