//! Functions that begin to fail when they are loaded.

use crate::harness::{Gate, Load, TestDaemon, get, is_refused, text, until};
use levain::{error::ErrorCode, model::SettingsPatch};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Number of calls to the failing function.
const CALLS: usize = 1_000;

/// A function that records each import in a file, fails to load while another file exists, and waits at a gate in some
/// invocations.
struct Fragile {
    imports: PathBuf,
    trouble: PathBuf,
    gate: Gate,
}

impl Fragile {
    fn new(folder: &Path) -> Self {
        Self { imports: folder.join("imports"), trouble: folder.join("trouble"), gate: Gate::shut(folder) }
    }

    fn code(&self) -> String {
        format!(
            "import {{ appendFileSync, existsSync }} from 'node:fs';
            appendFileSync({:?}, '.');
            if (existsSync({:?})) throw new Error('the moon is full');
            export default async (req) => {{
                if (new URL(req.url).pathname === '/slow') {{ {} }}
                return new Response(String(process.pid));
            }};",
            self.imports,
            self.trouble,
            self.gate.wait()
        )
    }

    fn imports(&self) -> usize {
        fs::metadata(&self.imports).map_or(0, |it| it.len() as usize)
    }

    fn begin(&self) {
        fs::write(&self.trouble, "").expect("a file");
    }

    fn end(&self) {
        fs::remove_file(&self.trouble).expect("it is there");
    }
}

/// Upper bound of failed starts in a time: the first at once, then with pauses of 100 ms, doubled each time.
fn starts_max(elapsed: Duration) -> usize {
    let mut pause = Duration::from_millis(100);
    let (mut starts, mut at) = (1, Duration::ZERO);
    while at + pause <= elapsed {
        at += pause;
        pause = (2 * pause).min(Duration::from_secs(15));
        starts += 1;
    }
    starts
}

async fn kill_workers(daemon: &TestDaemon) {
    for pid in daemon.worker_pids() {
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("the process belongs to this user");
    }
    daemon.until_no_workers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_cost_as_many_starts_as_the_back_off_allows() {
    let daemon = TestDaemon::start_unconfined().await;
    let folder = tempfile::tempdir().expect("a folder");
    let fragile = Fragile::new(folder.path());
    daemon.deploy_text("fragile", &fragile.code()).await;
    assert!(daemon.get("fragile", "/").await.success);
    kill_workers(&daemon).await;
    daemon.deploy_text("hello", "export default () => new Response('hello');").await;
    let hello = Load::start(&daemon, "hello", "/", 2).await;
    fragile.begin();
    let (before, started) = (fragile.imports(), Instant::now());
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let client = daemon.connect().await;
        callers.spawn(async move {
            for _ in 0..CALLS / 8 {
                let outcome = client.call(&get("fragile", "/")).await.map_err(crate::harness::refused);
                assert!(is_refused(&outcome, ErrorCode::BundleLoadError), "{outcome:?}");
                let error = outcome.expect_err("it is refused");
                assert!(error.message.contains("the moon is full"), "{error:?}");
            }
        });
    }
    callers.join_all().await;
    // At the beginning, starts may run side by side: as many as callers wait.
    let starts = fragile.imports() - before;
    let allowed = starts_max(started.elapsed()) + 7;
    assert!((1..=allowed).contains(&starts), "{starts} starts in {:?}, {allowed} are allowed", started.elapsed());
    let pool = daemon.until_pool("fragile", "the pool reports failed starts", |pool| pool.failed_starts > 0).await;
    assert_eq!((pool.idle, pool.busy, pool.queued), (0, 0, 0));
    assert!(hello.stop().await.len() > 100, "other functions are served throughout");

    fragile.end();
    let answer = until("it recovers by itself", || async { daemon.invoke("fragile").await.ok() }).await;
    assert!(answer.success, "{answer:?}");
    daemon.until_pool("fragile", "it is healthy", |pool| pool.failed_starts == 0).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_live_go_on_serving_while_starts_fail() {
    let daemon = TestDaemon::start_unconfined().await;
    let folder = tempfile::tempdir().expect("a folder");
    let fragile = Fragile::new(folder.path());
    daemon.register_with("fragile", SettingsPatch { warm_workers: Some(1), ..SettingsPatch::default() }).await;
    daemon.redeploy_text("fragile", None, &fragile.code()).await.expect("it loads");
    let pid = text(&daemon.get("fragile", "/").await).to_owned();
    fragile.begin();
    let before = fragile.imports();
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(daemon.get_beside("fragile", "/slow").await);
    }
    until("another worker was tried", || async { (fragile.imports() > before).then_some(()) }).await;
    fragile.gate.open();
    for call in calls {
        let answer = call.await.expect("it runs").expect("the living worker answers");
        assert!(answer.success && text(&answer) == pid, "{answer:?}");
    }
    daemon.stop().await;
}
