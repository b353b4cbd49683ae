//! Processes that outlive a killed daemon, and how the next daemon of that data directory ends them.

use super::{begin, deploy, register, until_busy};
use crate::harness::{DaemonProcess, get, text, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, net::SocketAddr, path::Path, process::Command};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The levels of the sandbox, including none.
const LEVELS: [&str; 5] = ["privileged", "user-namespace", "shared-proc", "landlock", "off"];

async fn serve_at(level: &str, data_dir: &Path) -> Command {
    let mut command = DaemonProcess::serve(data_dir).await;
    match level {
        "off" => command.env("LEVAIN_SANDBOX_MODE", "off"),
        _ => command.env("LEVAIN_SANDBOX_MODE", "strict").env("LEVAIN_SANDBOX_LEVEL", level),
    };
    command
}

/// Starts a daemon at this level, or returns `None` if the machine does not support it.
async fn start_at(level: &str, data_dir: &Path) -> Option<DaemonProcess> {
    match DaemonProcess::try_spawn(serve_at(level, data_dir).await, data_dir).await {
        Ok(daemon) => Some(daemon),
        Err(reason) if reason.contains("functions cannot be isolated") => {
            eprintln!("skipped: {level}: {reason}");
            None
        }
        Err(reason) => panic!("{level}: {reason}"),
    }
}

/// Whether a process runs. A zombie, which only its parent can reap, has no command line any more.
fn runs(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|it| !it.is_empty())
}

/// A process that is killed with the test, however the test ends.
struct Child(i32);

impl Drop for Child {
    fn drop(&mut self) {
        if runs(self.0) {
            let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
        }
    }
}

/// At each level, the kernel ends a worker with its daemon, even one that never looks at its pipes.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_a_loop_ends_with_a_daemon_that_is_killed_at_every_level() {
    for level in LEVELS {
        let data = tempfile::tempdir().unwrap();
        let Some(daemon) = start_at(level, data.path()).await else { continue };
        let client = daemon.client().await;
        register(&client, "loops").await;
        deploy(&client, "loops", "v1", "export default () => { for (;;); };").await.unwrap();
        let running = begin(&client, "loops");
        until_busy(&daemon, 1).await;
        assert!(!crate::harness::workers_of(data.path()).is_empty(), "{level}");
        daemon.kill().await;
        assert!(running.await.unwrap().is_err(), "{level}");
    }
}

/// Code that starts a process which waits for a free port and then holds it. The process has none of the worker's
/// environment, and leaves its session where that is allowed.
fn port_holder(detached: bool) -> String {
    let holder = "const [port] = process.argv.slice(-1);
        for (;;) {
            try {
                Bun.serve({ hostname: '127.0.0.1', port, fetch: () => new Response('held') });
                break;
            } catch {
                await Bun.sleep(2);
            }
        }";
    format!(
        "export default async (request) => {{
            const port = new URL(request.url).searchParams.get('port');
            const command = [process.execPath, '-e', {holder:?}, port];
            const child = Bun.spawn(command, {{ detached: {detached}, env: {{}}, stdio: ['ignore', 'ignore', 'ignore'] }});
            child.unref();
            return new Response(String(child.pid));
        }};"
    )
}

async fn is_held(address: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.ends_with("held").then_some(())
}

/// A process that takes the address of a killed daemon does not prevent the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_holds_the_port_is_ended_before_the_next_daemon_binds_it() {
    for level in ["landlock", "off"] {
        let data = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut command = serve_at(level, data.path()).await;
        command.env("LEVAIN_HTTP_ADDRESS", address.to_string());
        let daemon = match DaemonProcess::try_spawn(command, data.path()).await {
            Ok(daemon) => daemon,
            Err(reason) if reason.contains("functions cannot be isolated") => continue,
            Err(reason) => panic!("{level}: {reason}"),
        };
        let client = daemon.client().await;
        register(&client, "holder").await;
        deploy(&client, "holder", "v1", &port_holder(level == "off")).await.unwrap();
        let answer = client.call(&get("holder", &format!("/?port={}", address.port()))).await.unwrap();
        let child = Child(text(&answer).parse().unwrap_or_else(|_| panic!("{level}: {answer:?}")));
        daemon.signal(Signal::SIGKILL);
        drop(daemon);
        until("the process holds the port", || is_held(address)).await;

        let mut command = serve_at(level, data.path()).await;
        command.env("LEVAIN_HTTP_ADDRESS", address.to_string());
        let next = DaemonProcess::try_spawn(command, data.path()).await.unwrap_or_else(|it| panic!("{level}: {it}"));
        assert!(!runs(child.0), "{level}: it has ended");
        assert_eq!(next.http().await, address, "{level}");
        next.kill().await;
    }
}

/// A function without a sandbox that changes everything it can about itself is recognised at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hides_is_found_by_the_next_daemon() {
    let hides = "import { dlopen } from 'bun:ffi';
        import { renameSync, writeFileSync } from 'node:fs';
        const { symbols } = dlopen('libc.so.6', {
            prctl: { args: ['i32', 'u64', 'u64', 'u64', 'u64'], returns: 'i32' },
            setrlimit: { args: ['i32', 'ptr'], returns: 'i32' },
        });
        const [SET_PARENT_DEATH_SIGNAL, RESIDENT, LOCKS] = [1, 5, 10];
        export default (request) => {
            symbols.prctl(SET_PARENT_DEATH_SIGNAL, 0n, 0n, 0n, 0n);
            for (const resource of [RESIDENT, LOCKS]) symbols.setrlimit(resource, new BigUint64Array([1000n, 1000n]));
            process.chdir('/');
            const loop = 'for (;;);';
            const child = Bun.spawn([process.execPath, '-e', loop], { detached: true, env: {}, stdio: ['ignore', 'ignore', 'ignore'] });
            const file = new URL(request.url).searchParams.get('file');
            writeFileSync(file + '.new', JSON.stringify([process.pid, child.pid]));
            renameSync(file + '.new', file);
            for (;;);
        };";
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start_unconfined(data.path()).await;
    let client = daemon.client().await;
    register(&client, "hides").await;
    deploy(&client, "hides", "v1", hides).await.unwrap();
    let (file, caller) = (data.path().join("processes"), client.clone());
    let request = get("hides", &format!("/?file={}", file.display()));
    let running = tokio::spawn(async move { caller.call(&request).await });
    let said = until("it has hidden", || async { fs::read(&file).ok() }).await;
    let [worker, child]: [i32; 2] = serde_json::from_slice(&said).unwrap();
    let children = [Child(worker), Child(child)];
    // A process has no command line for a moment while it becomes another program.
    until("both processes run", || async { children.iter().all(|it| runs(it.0)).then_some(()) }).await;
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    assert!(running.await.unwrap().is_err());
    assert!(children.iter().all(|it| runs(it.0)), "both processes must outlive the daemon, or the test proves nothing");
    let next = DaemonProcess::start(data.path()).await;
    assert!(children.iter().all(|it| !runs(it.0)), "{}", next.stderr());
    next.kill().await;
}

/// A process that has left its worker's session and group is still not accepted as a client.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_starts_in_a_session_of_its_own_is_refused_at_the_command_socket() {
    let asks = "const [unix] = process.argv.slice(-1);
        const socket = { data: (_, bytes) => { console.log(bytes.toString()); process.exit(); } };
        for (;;) {
            // Bun ignores a connection that is closed at once, so the script tries again.
            await Bun.connect({ unix, socket }).catch(() => {});
            await Bun.sleep(2);
        }";
    let code = format!(
        "export default async (request) => {{
            const path = new URL(request.url).searchParams.get('socket');
            const command = [process.execPath, '-e', {asks:?}, path];
            const child = Bun.spawn(command, {{ detached: true, env: {{}}, stdio: ['ignore', 'pipe', 'ignore'] }});
            return new Response(await new Response(child.stdout).text());
        }};"
    );
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start_unconfined(data.path()).await;
    let client = daemon.client().await;
    register(&client, "asks").await;
    deploy(&client, "asks", "v1", &code).await.unwrap();
    let answer = client.call(&get("asks", &format!("/?socket={}", daemon.socket().display()))).await.unwrap();
    assert!(text(&answer).contains("functions may not use this socket"), "{answer:?}");
    daemon.kill().await;
}
