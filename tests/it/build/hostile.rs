//! Hostile builds: they take too much, look where they must not, and get in the way.

use super::project::{at, nothing_is_left, project, with_macro, write};
use crate::harness::{DaemonProcess, TestDaemon, is_refused, refused, text, until, workers_of};
use levain::{
    config::{Config, SandboxLevel},
    error::ErrorCode,
    model::DeploymentStatus,
    protocol::message::{DeploymentsRequest, GetRequest},
};
use std::{fs, time::Instant};

/// Sets small limits that still leave room for Bun.
fn tight(config: &mut Config) {
    config.build.memory_mb = 256;
    config.build.disk_mb = 32;
    config.build.log_bytes_max = 4_096;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_takes_too_long_is_ended_with_all_it_has_started() {
    let daemon = TestDaemon::start_with(|config| config.build.timeout_ms = 1_500).await;
    let leaves =
        "Bun.spawn([process.execPath, '-e', 'setInterval(() => {}, 1000)'], { detached: true }); await Bun.sleep(1e9);";
    let is_ended = async |(name, body): (&str, &str)| {
        daemon.register(name).await;
        let error = daemon.call(&at(name, &with_macro(body))).await.expect_err("it is ended");
        assert_eq!(error.code, ErrorCode::BuildFailed, "{error:?}");
        assert!(error.message.contains("longer than the 1500 ms of build.timeout_ms"), "{error:?}");
        assert_eq!(daemon.deployments(name).await.remove(0).status, DeploymentStatus::Failed);
    };
    tokio::join!(is_ended(("loops", "for (;;);")), is_ended(("leaves", leaves)));
    nothing_is_left(&daemon).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_takes_too_much_is_ended() {
    let daemon = TestDaemon::start_with(tight).await;
    daemon.register("f").await;
    let eats = "const all = []; for (;;) { all.push(new Uint8Array(8 << 20).fill(1)); await Bun.sleep(1); }";
    let writes = "for (let i = 0; ; i++) { await Bun.write('/tmp/../' + process.cwd() + '/f' + i, new Uint8Array(1 << 20).fill(1)); }";
    for (body, words) in [(eats, "build.memory_mb"), (writes, "build.disk_mb")] {
        let folder = with_macro(body);
        let error = daemon.call(&at("f", &folder)).await.expect_err("it is ended");
        assert_eq!(error.code, ErrorCode::BuildFailed, "{error:?}");
        assert!(error.message.contains(words), "{error:?}");
        nothing_is_left(&daemon).await;
        assert_eq!(daemon.deployments("f").await.remove(0).status, DeploymentStatus::Failed);
    }
    // Noise does not fail the build; its log is cut.
    let floods = with_macro("for (let i = 0; i < 200_000; i++) console.log('noise', i); return 'done';");
    daemon.call(&at("f", &floods)).await.expect("it is built");
    let log = daemon.deployments("f").await.remove(0).build_log.unwrap();
    assert!(log.len() < 6_000 && log.contains("the output exceeds 4096 bytes"), "{}", log.len());
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "done");
    daemon.stop().await;
}

/// Code of a macro that attacks its surroundings and returns the attempts that succeeded.
fn attack(daemon: &TestDaemon) -> String {
    let data = daemon.data_dir().display();
    format!(
        r#"
  const fs = await import("node:fs");
  const net = await import("node:net");
  const done = [];
  const attempt = (what, act) => {{ try {{ act(); done.push(what); }} catch {{}} }};
  for (const file of ["/etc/shadow", "{data}/admin.token", "{data}/levain.db", "{data}/logs.db"]) attempt("read " + file, () => fs.readFileSync(file));
  attempt("listed the data", () => fs.readdirSync("{data}"));
  attempt("wrote Bun", () => fs.writeFileSync(process.execPath, "x"));
  attempt("wrote the root", () => fs.writeFileSync("/levain-was-here", "x"));
  attempt("wrote the data", () => fs.writeFileSync("{data}/levain-was-here", "x"));
  const connected = await new Promise((done) => {{
    const socket = net.connect("{data}/levain.sock");
    socket.on("connect", () => socket.write(Buffer.from([15, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 15, 2, 0, 0, 0, 123, 125])));
    // The byte after the length and the id is 0 if a command was carried out.
    socket.on("data", (answer) => done(answer[12] === 0));
    socket.on("error", () => done(false));
    socket.on("close", () => done(false));
    setTimeout(() => done(false), 2000);
  }});
  if (connected) done.push("commanded the daemon");
  const served = await fetch("http://127.0.0.1:" + (await Bun.file("port.txt").text()).trim()).then(() => true, () => false);
  if (served) done.push("reached the network");
  return done.join(", ") || "nothing";
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_reaches_nothing_of_the_machine_at_any_level() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for level in [SandboxLevel::Auto, SandboxLevel::UserNamespace, SandboxLevel::SharedProc, SandboxLevel::Landlock] {
        let daemon = TestDaemon::start_with(|config| config.sandbox.level = level).await;
        let folder = with_macro(&attack(&daemon));
        write(folder.path(), &[("port.txt", &port)]);
        daemon.call(&at("f", &folder)).await.unwrap_or_else(|error| panic!("{level:?}: {error:?}"));
        assert_eq!(
            text(&daemon.invoke("f").await.unwrap()),
            "nothing",
            "{level:?}: {:?}",
            daemon.status().await.sandbox
        );
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_build_leaves_for_a_bundle_is_read_and_not_followed() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let secret = daemon.data_dir().join("admin.token").display().to_string();
    let data = daemon.data_dir().display().to_string();
    let place = "const fs = await import('node:fs'); const place = require('node:path').dirname(process.cwd());";
    let forged =
        r#"fs.writeFileSync(place + '/result.json', '{"ok":true,"problems":[],"warnings":[]}'); process.exit(0);"#;
    for body in [
        format!(
            "{place} fs.mkdirSync(place + '/out', {{ recursive: true }}); fs.symlinkSync('{secret}', place + '/out/bundle.js'); {forged}"
        ),
        format!(
            "{place} fs.rmSync(place + '/out', {{ recursive: true, force: true }}); fs.symlinkSync('{data}', place + '/out'); {forged}"
        ),
        format!("{place} fs.symlinkSync('{secret}', place + '/result.json'); process.exit(0);"),
        format!("{place} fs.mkdirSync(place + '/result.json'); process.exit(0);"),
        "process.exit(7)".to_owned(),
    ] {
        let folder = with_macro(&body);
        let error = daemon.call(&at("f", &folder)).await.expect_err(&body);
        assert!([ErrorCode::BuildFailed, ErrorCode::BundleInvalid].contains(&error.code), "{body}: {error:?}");
        nothing_is_left(&daemon).await;
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_ends_its_builds_and_waits_for_none() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let folder = with_macro("for (;;);");
    let (client, request) = (daemon.connect().await, at("f", &folder));
    let building = tokio::spawn(async move { client.call(&request).await });
    until("the build runs", || async { (!daemon.worker_pids().is_empty()).then_some(()) }).await;
    let started = Instant::now();
    daemon.stop().await;
    assert!(started.elapsed().as_secs() < 20, "the second build waited");
    assert!(building.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_during_a_build_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("LEVAIN_WORKERS_PREWARMED_WORKERS", "0");
    let daemon = DaemonProcess::spawn(command, data.path()).await;
    let before = workers_of(data.path());
    let folder =
        with_macro("Bun.spawn([process.execPath, '-e', 'setInterval(() => {}, 1000)'], { detached: true }); for (;;);");
    let (client, request) = (daemon.client().await, at("f", &folder));
    let building = tokio::spawn(async move { client.call(&request).await });
    until("the build runs", || async { workers_of(data.path()).iter().any(|it| !before.contains(it)).then_some(()) })
        .await;
    daemon.kill().await;
    assert!(building.await.unwrap().is_err());
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    let request = DeploymentsRequest { status: Some(DeploymentStatus::Failed), ..DeploymentsRequest::default() };
    let told = client.call(&request).await.unwrap().deployments;
    assert_eq!((told.len(), told[0].function.as_str(), told[0].number), (1, "f", None));
    let gone = client.call(&GetRequest { function_id: "f".into() }).await.map_err(refused);
    assert!(is_refused(&gone, ErrorCode::FunctionNotFound), "{gone:?}");
    assert_eq!(fs::read_dir(data.path().join("incoming")).unwrap().count(), 0);
    let places = fs::read_dir(data.path().join("run")).unwrap().flatten();
    assert_eq!(places.filter(|it| it.path().join("bundle/levain-project").exists()).count(), 0);
    let works = project(&[("src/index.ts", "export default () => new Response('works');")]);
    client.call(&at("f", &works)).await.expect("the next build succeeds");
    daemon.kill().await;
}
