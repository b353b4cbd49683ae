//! Hostile or broken clients do no harm to the daemon. The tests run the real binary, and observe its memory and open
//! files from outside.

pub mod noise;

use crate::{
    harness::{DaemonProcess, repetitions, until},
    protocol::wire::{self, Language, Wire, frame},
};
use levain::protocol::{
    field::Body,
    message::{DeployRequest, InvokeRequest, RegisterRequest, StatusRequest},
};
use noise::{Noise, Random};
use serde_json::json;
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Starts a daemon process with a few functions.
async fn start(data_dir: &Path) -> DaemonProcess {
    with_functions(DaemonProcess::start(data_dir).await).await
}

async fn with_functions(daemon: DaemonProcess) -> DaemonProcess {
    let functions = [
        ("hello", "export default () => new Response('hello');"),
        ("big", "const big = 'x'.repeat(1 << 20); export default () => new Response(big);"),
        (
            "endless",
            "export default () => new Response(new ReadableStream({ pull(it) { it.enqueue('x'.repeat(65536)); } }));",
        ),
    ];
    for (name, code) in functions {
        let client = daemon.client().await;
        client.call(&RegisterRequest { name: name.into(), ..RegisterRequest::default() }).await.unwrap();
        let bundle = Some(Body::from(code.as_bytes().to_vec()));
        let request = DeployRequest { function_id: name.into(), bundle, ..DeployRequest::default() };
        client.call(&request).await.unwrap();
    }
    daemon
}

async fn serves(daemon: &DaemonProcess) {
    let request = InvokeRequest { function_id: "hello".into(), ..InvokeRequest::default() };
    let answer = daemon.client().await.call(&request).await.unwrap();
    assert!(answer.success && answer.body.0 == "hello", "{answer:?}");
}

/// Number of open connections to the command socket: the daemon's ends of them bear its path.
fn connections(daemon: &DaemonProcess) -> usize {
    const CONNECTED: &str = "03";
    let path = daemon.socket().canonicalize().unwrap();
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let fields = sockets.lines().map(|line| Vec::from_iter(line.split_whitespace()));
    fields.filter(|fields| fields.get(5) == Some(&CONNECTED) && fields.get(7) == path.to_str().as_ref()).count()
}

fn open_files(daemon: &DaemonProcess) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

fn resident_mb(daemon: &DaemonProcess) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

async fn until_all_are_closed(daemon: &DaemonProcess) {
    until("connections are closed", || async move { (connections(daemon) == 0).then_some(()) }).await;
}

/// Waits for the prewarmed processes, because each of them takes open files of the daemon.
async fn until_prewarmed(daemon: &DaemonProcess) {
    let client = &daemon.client().await;
    until("all prewarmed processes wait", || async move {
        (client.call(&StatusRequest {}).await.unwrap().prewarmed == 2).then_some(())
    })
    .await;
}

async fn until_nothing_runs(daemon: &DaemonProcess) {
    let client = &daemon.client().await;
    until("invocations without a caller end", || async move {
        let status = client.call(&StatusRequest {}).await.unwrap();
        status.pools.iter().all(|pool| pool.busy + pool.queued == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_noise_change_nothing() {
    let data = tempfile::tempdir().unwrap();
    let daemon = start(data.path()).await;
    // Each thread of the daemon that serves connections keeps a connection of its own to the worker.
    for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        serves(&daemon).await;
    }
    until_prewarmed(&daemon).await;
    until_all_are_closed(&daemon).await;
    let before = open_files(&daemon);
    let mut noise = Noise::new(Random::new(0x1e7a));
    let (mut sent, frames) = (0, repetitions(20_000, 100_000));
    while sent < frames {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let batch = noise.batch();
        sent += batch.frames;
        // The daemon may close the connection over a malformed frame and leave the rest unread.
        let _ = stream.write_all(&batch.bytes);
        if batch.answers > 0 {
            let mut wire = Wire::from(stream);
            for _ in 0..batch.answers {
                let answer = wire.answer();
                assert_eq!(answer.status, wire::ERROR, "noise is answered with an error: {answer:?}");
            }
        } else {
            let _ = stream.shutdown(Shutdown::Write);
            let mut rest = Vec::new();
            match stream.read_to_end(&mut rest) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the daemon keeps a dead connection"),
                _ => {}
            }
        }
    }
    serves(&daemon).await;
    until_prewarmed(&daemon).await;
    until_all_are_closed(&daemon).await;
    assert!(open_files(&daemon) <= before, "{} files were open, {} are", before, open_files(&daemon));
    assert_eq!(daemon.client().await.call(&StatusRequest {}).await.unwrap().functions, 3);
    let status = daemon.cli(&["status"]).await;
    assert_eq!(status.code, Some(0), "{status:?}");
    daemon.kill().await;
}

/// A recursive reader of payloads would overflow the stack and crash the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn payloads_nested_without_end_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let daemon = start(data.path()).await;
    let mut wire = Wire::connect(&daemon.socket());
    for depth in [100, 130, 1_000, 1_030, 20_000, repetitions(1_000_000, 5_000_000)] {
        for field in ["later", "headers", "body", "tags", "settings", "function_id"] {
            for payload in noise::nested(field, depth) {
                for command in [wire::INVOKE, wire::DEPLOY_FUNCTION, wire::REGISTER_FUNCTION, wire::UPDATE_FUNCTION] {
                    if depth > 20_000 && command != wire::INVOKE {
                        continue;
                    }
                    wire.send(&frame(1, command, &payload));
                    let answer = wire.receive();
                    let answer = answer.unwrap_or_else(|| panic!("{field} {depth}: {}", daemon.stderr()));
                    assert_eq!(answer.code(), "INVALID_REQUEST", "{field} {depth}");
                }
            }
        }
    }
    serves(&daemon).await;
    daemon.kill().await;
}

/// A client that does not read makes the daemon hold a bounded amount, whatever it requests, and others are served.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_cut_off() {
    let data = tempfile::tempdir().unwrap();
    let daemon = start(data.path()).await;
    let request = Language::MessagePack.write(&json!({ "function_id": "big" }));
    let mut streams: Vec<UnixStream> = Vec::new();
    for _ in 0..3 {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_nonblocking(true).unwrap();
        for id in 0..20_000 {
            // The socket is full: the daemon stops reading, as it should.
            if stream.write_all(&frame(id, wire::INVOKE, &request)).is_err() {
                break;
            }
        }
        streams.push(stream);
    }
    let mut most = 0;
    for _ in 0..50 {
        serves(&daemon).await;
        most = most.max(resident_mb(&daemon));
    }
    until_nothing_runs(&daemon).await;
    most = most.max(resident_mb(&daemon));
    // Each client may make the daemon hold four frames of 16 MiB.
    assert!(most < 3 * 64 + 150, "the daemon has {most} MiB");
    drop(streams);
    until_all_are_closed(&daemon).await;
    serves(&daemon).await;
    daemon.kill().await;
}

/// Each client stays far below its own limit; together they are far above the common limit, and a reading client goes
/// on.
#[tokio::test(flavor = "multi_thread")]
async fn many_clients_that_never_read_make_the_daemon_hold_a_bounded_amount() {
    const CLIENTS: usize = 60;
    const ANSWERS: u64 = 6;
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("LEVAIN_LIMITS_BACKLOG_BYTES_MAX", (32 << 20).to_string());
    let daemon = with_functions(DaemonProcess::spawn(command, data.path()).await).await;
    let request = Language::MessagePack.write(&json!({ "function_id": "big" }));
    let big = InvokeRequest { function_id: "big".into(), ..InvokeRequest::default() };
    let reader = daemon.client().await;
    let (mut streams, mut most) = (Vec::new(), 0);
    for _ in 0..CLIENTS {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        for id in 0..ANSWERS {
            stream.write_all(&frame(id, wire::INVOKE, &request)).unwrap();
        }
        streams.push(stream);
        let answer = reader.call(&big).await.unwrap();
        assert_eq!(answer.body.0.len(), 1 << 20, "{answer:?}");
        most = most.max(resident_mb(&daemon));
    }
    until_nothing_runs(&daemon).await;
    most = most.max(resident_mb(&daemon));
    // Without the limit, the daemon would hold 60 x 6 answers of more than 1 MiB.
    assert!(most < 32 + 150, "the daemon has {most} MiB");
    assert!(connections(&daemon) < CLIENTS, "nobody was cut off");
    serves(&daemon).await;
    drop((streams, reader));
    until_all_are_closed(&daemon).await;
    daemon.kill().await;
}

/// Streams wait for their reader: the daemon buffers little, and the worker is free again when the reader has gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_in_the_middle_of_a_stream_frees_the_worker() {
    let data = tempfile::tempdir().unwrap();
    let daemon = start(data.path()).await;
    until_nothing_runs(&daemon).await;
    for round in 0..4_u64 {
        let mut readers: Vec<Wire> = (0..4).map(|_| Wire::connect(&daemon.socket())).collect();
        for wire in &mut readers {
            wire.send(&frame(round, wire::INVOKE, br#"{"function_id": "endless", "stream": true}"#));
        }
        for wire in &mut readers {
            for _ in 0..20 {
                let part = wire.answer();
                assert_eq!((part.id, part.status), (round, wire::PARTIAL));
            }
        }
        serves(&daemon).await;
        let memory = resident_mb(&daemon);
        assert!(memory < 200, "the daemon has {memory} MiB");
        drop(readers);
        until_nothing_runs(&daemon).await;
    }
    serves(&daemon).await;
    until_all_are_closed(&daemon).await;
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_of_a_frame_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let daemon = start(data.path()).await;
    serves(&daemon).await;
    let whole = frame(1, wire::INVOKE, br#"{"function_id": "hello"}"#);
    for length in (0..whole.len()).chain(0..whole.len()) {
        UnixStream::connect(daemon.socket()).unwrap().write_all(&whole[..length]).unwrap();
    }
    // Clients that follow logs and clients with queued invocations disconnect likewise.
    for (command, request) in [
        (wire::GET_LOGS, r#"{"function_id": "hello", "follow": true}"#),
        (wire::INVOKE, r#"{"function_id": "endless", "stream": true}"#),
    ] {
        for _ in 0..20 {
            UnixStream::connect(daemon.socket()).unwrap().write_all(&frame(1, command, request.as_bytes())).unwrap();
        }
    }
    until_nothing_runs(&daemon).await;
    until_all_are_closed(&daemon).await;
    serves(&daemon).await;
    daemon.kill().await;
}
