//! `/health` and `/ready` from the start of a daemon to its end.

use super::exchange;
use crate::harness::{DaemonProcess, bun, until};
use levain::{
    model::SettingsPatch,
    protocol::{
        field::Body,
        message::{DeployRequest, RegisterRequest},
    },
};
use nix::sys::signal::Signal;
use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path};

/// Sends a `GET` on a connection of its own, and returns the answer.
async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    exchange(address, request.as_bytes()).await
}

async fn until_ready_says(address: SocketAddr, part: &str) {
    until(part, || async move { get(address, "/ready").await.contains(part).then_some(()) }).await;
}

async fn command(data: &Path) -> std::process::Command {
    let mut command = DaemonProcess::serve(data).await;
    // The functions look for files of the test, so they run without a sandbox.
    command.env("LEVAIN_HTTP_ADDRESS", "127.0.0.1:0").env("LEVAIN_SANDBOX_MODE", "off");
    command.env("LEVAIN_WORKERS_PREWARMED_WORKERS", "0");
    command
}

/// Registers a function and deploys it with one worker that is always kept.
async fn deploy(daemon: &DaemonProcess, name: &str, code: &str) {
    let client = daemon.client().await;
    let settings = Some(SettingsPatch { warm_workers: Some(1), ..SettingsPatch::default() });
    let request = RegisterRequest { name: name.into(), settings, ..RegisterRequest::default() };
    client.call(&request).await.unwrap();
    let bundle = Some(Body::from(code.as_bytes().to_vec()));
    let request = DeployRequest { function_id: name.into(), bundle, ..DeployRequest::default() };
    client.call(&request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_is_healthy_and_not_ready() {
    let data = tempfile::tempdir().unwrap();
    let script = data.path().join("bun.sh");
    let go = data.path().join("go");
    let waits = format!(
        "#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.02; done\nexec {} \"$@\"\n",
        go.display(),
        bun().await.display()
    );
    fs::write(&script, waits).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = command(data.path()).await;
    command.env("LEVAIN_BUN", &script);
    let daemon = DaemonProcess::begin(command, data.path());
    let address = daemon.http().await;
    let ready = get(address, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("retry-after: 1"), "{ready}");
    assert!(ready.ends_with("\r\n\r\nthe daemon is starting\n"), "{ready}");
    assert!(get(address, "/health").await.starts_with("HTTP/1.1 200 "));
    for path in ["/functions/f", "/api/status"] {
        let refused = get(address, path).await;
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
        assert!(refused.contains(r#""code":"STARTING""#), "{refused}");
    }
    assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 503 "));
    fs::write(&go, "").unwrap();
    until_ready_says(address, "HTTP/1.1 200 ").await;
    assert!(get(address, "/functions/f").await.contains("FUNCTION_NOT_FOUND"));
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_is_ready_when_its_workers_are_warm() {
    let data = tempfile::tempdir().unwrap();
    let (go, broken) = (data.path().join("go"), data.path().join("broken"));
    fs::write(&go, "").unwrap();
    let daemon = DaemonProcess::spawn(command(data.path()).await, data.path()).await;
    let exists = |path: &Path| format!("await Bun.file({path:?}).exists()");
    let slow = format!("while (!({})) await Bun.sleep(10); export default () => new Response('slow');", exists(&go));
    let fails = format!("if ({}) throw new Error('no'); export default () => new Response('x');", exists(&broken));
    deploy(&daemon, "slow", &slow).await;
    deploy(&daemon, "fails", &fails).await;
    daemon.kill().await;
    fs::remove_file(&go).unwrap();
    fs::write(&broken, "").unwrap();
    let daemon = DaemonProcess::spawn(command(data.path()).await, data.path()).await;
    let address = daemon.http().await;
    let ready = get(address, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("kept warm are starting"), "{ready}");
    // Requests that do not need the starting functions are served.
    assert!(get(address, "/functions/nope").await.contains("FUNCTION_NOT_FOUND"));
    fs::write(&go, "").unwrap();
    // A function that cannot be loaded does not keep the daemon from becoming ready.
    until_ready_says(address, "HTTP/1.1 200 ").await;
    assert!(get(address, "/functions/slow").await.contains("slow"));
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_is_healthy_and_not_ready() {
    let data = tempfile::tempdir().unwrap();
    let [go, runs] = ["go", "runs"].map(|it| data.path().join(it));
    let daemon = DaemonProcess::spawn(command(data.path()).await, data.path()).await;
    let code = format!(
        "export default async () => {{ await Bun.write({runs:?}, ''); \
         while (!(await Bun.file({go:?}).exists())) await Bun.sleep(10); return new Response('done'); }}"
    );
    deploy(&daemon, "f", &code).await;
    let address = daemon.http().await;
    until_ready_says(address, "HTTP/1.1 200 ").await;
    let call = tokio::spawn(async move { get(address, "/functions/f").await });
    until("the call runs", || async { runs.exists().then_some(()) }).await;
    daemon.signal(Signal::SIGTERM);
    until_ready_says(address, "\r\n\r\nthe daemon is stopping\n").await;
    let ready = get(address, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("retry-after: 1"), "{ready}");
    // During shutdown, a new connection gets one answer and is closed.
    let kept = exchange(address, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(kept.starts_with("HTTP/1.1 200 ") && kept.contains("connection: close"), "{kept}");
    let refused = get(address, "/functions/f").await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.contains(r#""code":"SHUTTING_DOWN""#), "{refused}");
    fs::write(&go, "").unwrap();
    let answer = call.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"), "{answer}");
    assert_eq!(daemon.ended().await.code(), Some(0));
}
