//! A worker process: its environment, its output, and the meaning of its end.

use crate::harness::{Gate, TestDaemon, get, json, text, until};
use levain::{
    error::ErrorCode,
    model::{ColdStart, Network, SettingsPatch},
    protocol::{
        field::Body,
        message::{DeployRequest, InvokeRequest, InvokeResponse},
        worker::LogLevel,
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

const PID: &str = "export default () => new Response(String(process.pid));";

/// Ends a process as `kill -9` does, and waits until it is gone.
async fn kill_process(pid: u32) {
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    until("the process ends", || async move { is_gone(pid).then_some(()) }).await;
}

fn is_gone(pid: u32) -> bool {
    // The third field of the line is the state. A zombie has ended, once its other threads have.
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let is_zombie = stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X']);
    is_zombie && fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1
}

/// Targets of a process's descriptors, by their number.
fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links =
        folder.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?)));
    links.map(|(number, link)| (number, link.to_string_lossy().into_owned())).collect()
}

/// A program named in `core_pattern` gets the memory of every crash, unless the process's core limit is 1 byte.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "changes the machine's core_pattern, and needs root"]
async fn the_memory_of_a_crash_goes_to_no_collector() {
    const SETTING: &str = "/proc/sys/kernel/core_pattern";
    struct Restored(String);
    impl Drop for Restored {
        fn drop(&mut self) {
            fs::write(SETTING, &self.0).unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (collector, collected) = (folder.path().join("collector"), folder.path().join("collected"));
    fs::write(&collector, format!("#!/bin/sh\necho $1 >> {}\ncat > /dev/null\n", collected.display())).unwrap();
    fs::set_permissions(&collector, PermissionsExt::from_mode(0o755)).unwrap();
    let _restored = Restored(fs::read_to_string(SETTING).unwrap());
    fs::write(SETTING, format!("|{} %P", collector.display())).unwrap();

    // The collector works: it gets the memory of a process with the usual limit.
    let mut other = std::process::Command::new("sh").args(["-c", "kill -ABRT $$"]).spawn().unwrap();
    other.wait().unwrap();
    let others = other.id().to_string();
    assert_eq!(fs::read_to_string(&collected).unwrap().trim(), others);

    let daemon = TestDaemon::start_unconfined().await;
    daemon.deploy_text("f", PID).await;
    daemon.invoke("f").await.unwrap();
    let worker = daemon.worker_pids()[0];
    kill(Pid::from_raw(worker as i32), Signal::SIGABRT).unwrap();
    until("the worker is gone", || async { is_gone(worker).then_some(()) }).await;
    assert_eq!(fs::read_to_string(&collected).unwrap().trim(), others, "the collector got a worker's memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_inherits_nothing_of_the_daemon() {
    let daemon = TestDaemon::start_unconfined().await;
    daemon.deploy_text("f", "export default () => Response.json({ env: process.env, cwd: process.cwd() });").await;
    let seen = json(&daemon.invoke("f").await.unwrap());
    let names: BTreeSet<_> = seen["env"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["BUN_RUNTIME_TRANSPILER_CACHE_PATH", "DO_NOT_TRACK", "HOME", "PATH", "TMPDIR"];
    assert_eq!(names, expected.into());

    let pid = daemon.worker_pids()[0];
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!((seen["cwd"].as_str(), seen["env"]["HOME"].as_str()), (cwd.to_str(), cwd.to_str()));
    assert!(cwd.starts_with(daemon.data_dir().join("run")), "{cwd:?}");
    assert_eq!(fs::metadata(&cwd).unwrap().permissions().mode() & 0o777, 0o700);
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(
        core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(),
        ["1", "1"],
        "a core pattern's program does not get the worker's memory"
    );
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["1024", "1024"]);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");

    let (own, daemons) = (descriptors(pid), descriptors(std::process::id()));
    let first: Vec<_> =
        own.iter().filter(|(number, _)| *number < 3).map(|(_, link)| link.split(':').next().unwrap()).collect();
    assert_eq!(first, ["socket", "pipe", "pipe"]);
    for (number, link) in own.iter().filter(|(number, _)| *number > 2) {
        let is_shared =
            (link.starts_with("socket:") || link.starts_with("pipe:")) && daemons.iter().any(|(_, it)| it == link);
        let is_file = link.starts_with(daemon.data_dir().to_str().unwrap()) && !link.starts_with(cwd.to_str().unwrap());
        assert!(!is_shared && !is_file, "descriptor {number} of the worker is {link}");
    }
    daemon.stop().await;
    assert!(!cwd.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_beside_the_code_that_configure_bun_are_not_obeyed() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let files = [
        ("index.js", "export default () => Response.json([process.env.LEAKED ?? null, globalThis.evil ?? null]);"),
        (".env", "LEAKED=1"),
        ("bunfig.toml", "preload = ['./evil.js']"),
        ("evil.js", "globalThis.evil = 1;"),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), Body::from(text.as_bytes().to_vec())));
    let request = DeployRequest { function_id: "f".into(), files: Some(files.into()), ..DeployRequest::default() };
    daemon.call(&request).await.unwrap();
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "[null,null]");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_writes_is_kept_with_its_level_and_stream() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("logs").await.unwrap();
    let answer = daemon.invoke("logs").await.unwrap();
    for part in ["raw stdout", "raw stderr", "an error that is only logged"] {
        daemon.until_logged("logs", part).await;
    }
    let lines = daemon.logs("logs").await;
    use LogLevel::{Debug, Error, Info, Warn};
    for (part, level, stream) in [
        ("a debug line", Debug, "console"),
        ("an info line with an object", Info, "console"),
        ("a warning\nof two lines", Warn, "console"),
        ("an error that is only logged", Error, "console"),
        ("raw stdout", Info, "stdout"),
        ("raw stderr", Warn, "stderr"),
    ] {
        let line = lines.iter().find(|line| line.message.contains(part)).unwrap();
        assert_eq!((line.level, line.stream.as_str(), line.version.as_str()), (level, stream, "v1"), "{line:?}");
        if stream == "console" {
            assert_eq!(line.execution_id.as_ref(), Some(&answer.execution_id), "{line:?}");
        }
    }
    let object = lines.iter().find(|line| line.message.contains("an info line")).unwrap();
    assert!(object.message.contains("answer: 42"), "{object:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_belongs_to_the_invocation_that_printed_it() {
    let daemon = TestDaemon::start().await;
    let code = "export default async (req, ctx) => {
        console.log('first', ctx.invocationId);
        if (new URL(req.url).pathname === '/slow') await Bun.sleep(5);
        console.log('last', ctx.invocationId);
        return new Response('ok');
    };";
    daemon.deploy_text("f", code).await;
    // Sequential invocations: a line must keep its invocation even if the answer is faster.
    for _ in 0..100 {
        daemon.get("f", "/").await;
    }
    let calls: Vec<_> = (0..30).map(|_| tokio::spawn(daemon.client().call(&get("f", "/slow")))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let lines = until("all is logged", || async {
        let lines = daemon.logs("f").await;
        (lines.len() >= 260).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 260);
    let lost: Vec<_> = lines
        .iter()
        .filter(|line| {
            !line.message.ends_with(line.execution_id.as_ref().map(ToString::to_string).as_deref().unwrap_or("?"))
        })
        .collect();
    assert!(lost.is_empty(), "{} of {}: {:?}", lost.len(), lines.len(), lost[0]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_nobody_handles_is_logged_and_the_worker_lives() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("faulty/rejects-late").await.unwrap();
    let before = daemon.worker_pids();
    let answer = daemon.invoke("rejects-late").await.unwrap();
    let line = daemon.until_logged("rejects-late", "rejected after the answer").await;
    assert_eq!((line.level, line.stream.as_str()), (LogLevel::Error, "system"));
    assert_eq!(line.execution_id, Some(answer.execution_id));
    assert_eq!(daemon.invoke("rejects-late").await.unwrap().cold_start, ColdStart::None);
    assert_eq!(daemon.worker_pids(), before);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_is_a_crash_with_its_code_and_last_words() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("faulty/exits").await.unwrap();
    let answer = daemon.invoke("exits").await.unwrap();
    assert_eq!((answer.success, answer.code), (false, Some(ErrorCode::WorkerCrashed)));
    assert!(answer.error.unwrap().contains("exited with code 3"));
    let details = answer.details.unwrap();
    assert_eq!((&details["exit_code"], &details["signal"]), (&3.into(), &serde_json::Value::Null));
    assert!(details["last_words"].to_string().contains("about to exit"), "{details}");
    let line = daemon.until_logged("exits", "about to exit").await;
    assert_eq!(line.execution_id, Some(answer.execution_id));
    daemon.stop().await;
}

/// Logs and ends in ways that show the last lines.
const WORDS: &str = "export default async (req) => {
    const { pathname } = new URL(req.url);
    const raw = (text) => new Promise((done) => process.stderr.write(text, done));
    switch (pathname) {
        case '/login': {
            console.error('console of the login');
            await raw('raw of the login\\n');
            setTimeout(() => process.stderr.write('late of the login\\n'), 30);
            Promise.reject(new Error('rejection of the login'));
            break;
        }
        case '/crash': process.exit(3);
        case '/log-then-crash': { console.log('own line'); process.exit(3); }
        case '/raw-then-crash': { await raw('own raw line\\n'); process.exit(3); }
        case '/log-then-wait': { console.warn('own line'); await Bun.sleep(60_000); break; }
        case '/log-then-grow': {
            console.debug('own line');
            const kept = [];
            for (;;) { kept.push(new Uint8Array(4 << 20).fill(1)); await Bun.sleep(1); }
        }
    }
    return new Response('ok');
};";

/// The last lines in the report of a failed invocation.
fn last_words(answer: &InvokeResponse) -> Vec<String> {
    let words = &answer.details.as_ref().unwrap_or_else(|| panic!("no details: {answer:?}"))["last_words"];
    serde_json::from_value(words.clone()).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_are_of_the_invocation_that_ended_and_of_no_other() {
    let daemon = TestDaemon::start_with(|config| config.workers.memory_poll_ms = 20).await;
    daemon.deploy_text("f", WORDS).await;
    let one_worker = SettingsPatch { max_concurrent_executions: Some(1), memory_mb: Some(64), ..Default::default() };
    daemon.update("f", one_worker).await.unwrap();
    for (path, code, own) in [
        ("/crash", ErrorCode::WorkerCrashed, &[][..]),
        ("/log-then-crash", ErrorCode::WorkerCrashed, &["own line"]),
        // The raw line might also come from a timer of the login.
        ("/raw-then-crash", ErrorCode::WorkerCrashed, &[]),
        ("/log-then-grow", ErrorCode::OutOfMemory, &["own line"]),
    ] {
        assert!(daemon.get("f", "/login").await.success);
        daemon.until_logged("f", "late of the login").await;
        let answer = daemon.get("f", path).await;
        assert_eq!((answer.code, answer.cold_start), (Some(code), ColdStart::None), "{path}: {answer:?}");
        assert_eq!(last_words(&answer), own, "{path}");
        assert!(!format!("{:?} {:?}", answer.error, answer.details).contains("login"), "{path}: {answer:?}");
    }
    // Without another invocation, raw output belongs to this one.
    for (path, own) in [("/raw-then-crash", "own raw line"), ("/log-then-crash", "own line")] {
        let answer = daemon.get("f", path).await;
        assert_ne!(answer.cold_start, ColdStart::None, "{answer:?}");
        assert_eq!(last_words(&answer), [own], "{path}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_that_end_together_get_their_own_last_words() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", WORDS).await;
    daemon.update("f", SettingsPatch { worker_concurrency: Some(4), ..SettingsPatch::default() }).await.unwrap();
    let waiting = daemon.get_beside("f", "/log-then-wait").await;
    daemon.until_logged("f", "own line").await;
    let crashed = daemon.get("f", "/crash").await;
    assert_eq!((crashed.code, last_words(&crashed)), (Some(ErrorCode::WorkerCrashed), vec![]), "{crashed:?}");
    let waiting = waiting.await.unwrap().unwrap();
    assert_eq!((waiting.code, last_words(&waiting)), (Some(ErrorCode::WorkerCrashed), vec!["own line".to_owned()]));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_idle_worker_is_noticed_by_nobody() {
    let daemon = TestDaemon::start_unconfined().await;
    daemon.deploy_text("f", PID).await;
    for _ in 0..5 {
        let pid: u32 = text(&daemon.invoke("f").await.unwrap()).parse().unwrap();
        kill_process(pid).await;
        let answer = daemon.invoke("f").await.unwrap();
        assert!(answer.success && text(&answer) != pid.to_string(), "{answer:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_just_as_a_call_comes_costs_that_call_at_most() {
    let daemon = TestDaemon::start_unconfined().await;
    daemon.deploy_text("f", PID).await;
    for _ in 0..60 {
        let pid: i32 = text(&daemon.invoke("f").await.unwrap()).parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        // The request may or may not have reached the worker, but the caller must not wait for an answer that cannot
        // come.
        let answer = daemon.invoke("f").await.unwrap();
        assert!(answer.success || answer.code == Some(ErrorCode::WorkerCrashed), "{answer:?}");
        if !answer.success {
            kill_process(pid as u32).await;
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_busy_worker_is_a_crash_of_its_invocation_only() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    daemon.deploy_text("f", &gate.function()).await;
    let pid = daemon.worker_pids()[0];
    let call = daemon.get_beside("f", "/").await;
    gate.until_reached().await;
    let other = daemon.get_beside("f", "/").await;
    daemon.until_pool("f", "both run", |pool| pool.busy == 2).await;
    kill_process(pid).await;
    let answer = call.await.unwrap().unwrap();
    assert_eq!((answer.success, answer.code), (false, Some(ErrorCode::WorkerCrashed)));
    assert!(answer.error.unwrap().contains("SIGKILL"));
    assert_eq!(answer.details.unwrap()["signal"], 9);
    gate.open();
    assert!(other.await.unwrap().unwrap().success);
    assert!(daemon.get("f", "/").await.success);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_has_started_ends_with_it() {
    let daemon = TestDaemon::start_unconfined().await;
    let code = "export default async (req) => {
        const child = Bun.spawn(['sh', '-c', 'sleep 1000 & echo $!; wait'], { stdout: 'pipe' });
        const { value } = await child.stdout.getReader().read();
        const pids = [child.pid, Number(new TextDecoder().decode(value))];
        if (new URL(req.url).pathname !== '/loop') return Response.json(pids);
        console.log('pids', ...pids);
        for (;;);
    };";
    daemon.deploy_text("f", code).await;
    let pids: Vec<u32> = serde_json::from_slice(&daemon.get("f", "/").await.body.0).unwrap();
    assert!(pids.iter().all(|pid| !is_gone(*pid)));
    kill_process(daemon.worker_pids()[0]).await;
    until("its processes end", || async { pids.iter().all(|pid| is_gone(*pid)).then_some(()) }).await;
    // The processes end too when the daemon ends the worker. The next one is ready before its time runs.
    assert!(daemon.get("f", "/").await.success);
    let request = InvokeRequest { timeout_ms: Some(1_000), ..get("f", "/loop") };
    assert_eq!(daemon.invoke_with(request).await.unwrap().code, Some(ErrorCode::Timeout));
    let line = daemon.until_logged("f", "pids").await;
    let pids: Vec<u32> = line.message.split(' ').skip(1).map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    until("its processes end", || async { pids.iter().all(|pid| is_gone(*pid)).then_some(()) }).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_over_its_memory_is_ended_and_says_so() {
    let daemon = TestDaemon::start_with(|config| config.workers.memory_poll_ms = 20).await;
    daemon.deploy_sample("faulty/eats-memory").await.unwrap();
    daemon.update("eats-memory", SettingsPatch { memory_mb: Some(64), ..SettingsPatch::default() }).await.unwrap();
    let answer = daemon.invoke("eats-memory").await.unwrap();
    assert_eq!(answer.code, Some(ErrorCode::OutOfMemory), "{answer:?}");
    assert!(answer.error.unwrap().contains("64 MiB"));
    daemon.until_no_workers().await;
    daemon.stop().await;
}

/// Answers with the names of its network devices.
const DEVICES: &str = "import { readFileSync } from 'node:fs';
export default () => new Response(readFileSync('/proc/self/net/dev', 'utf8').split('\\n').slice(2)
    .map((line) => line.split(':')[0].trim()).filter(Boolean).join());";

#[tokio::test(flavor = "multi_thread")]
async fn a_function_without_network_has_its_own_loopback_device_only_and_a_change_takes_new_workers() {
    let daemon = TestDaemon::start_with(|config| {
        config.workers.memory_poll_ms = 10;
        config.workers.prewarmed_workers = 1;
    })
    .await;
    if daemon.status().await.sandbox.level == "off" {
        let refused = daemon.redeploy_text("f", None, DEVICES).await;
        return eprintln!("there is no sandbox here: {refused:?}");
    }
    let settings = SettingsPatch { network: Some(Network::Off), warm_workers: Some(1), ..SettingsPatch::default() };
    daemon.register_with("f", settings).await;
    daemon.redeploy_text("f", None, DEVICES).await.unwrap();
    assert_eq!(text(&daemon.get("f", "/").await), "lo");
    let on = SettingsPatch { network: Some(Network::On), ..SettingsPatch::default() };
    assert_eq!(daemon.update("f", on).await.unwrap().settings.network, Network::On);
    let others = fs::read_to_string("/proc/net/dev").unwrap().lines().count() - 2;
    until("a worker has the network", || async {
        let answer = daemon.get("f", "/").await;
        assert!(answer.success && answer.cold_start == ColdStart::None, "{answer:?}");
        (text(&answer).split(',').count() == others).then_some(())
    })
    .await;
    let off = SettingsPatch { network: Some(Network::Off), ..SettingsPatch::default() };
    daemon.update("f", off).await.unwrap();
    until("no worker has it", || async { (text(&daemon.get("f", "/").await) == "lo").then_some(()) }).await;
    daemon.stop().await;
}
