//! The access log: one line for each request, and its destination.

use super::{curl, curl_with, daemon_with};
use crate::harness::{DaemonProcess, TestDaemon, get, until};
use levain::{
    config::Switch,
    model::Scope,
    protocol::{
        field::Fields,
        message::{CreateTokenRequest, InvokeRequest},
    },
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{fs, path::Path};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CODE: &str = r#"
export default async (req) => {
    const url = new URL(req.url);
    if (url.pathname === "/headers") return Response.json([...req.headers]);
    if (url.pathname === "/throw") throw new Error("no");
    if (url.pathname === "/stream") return new Response(new ReadableStream({
        async start(controller) {
            for (;;) { controller.enqueue("x".repeat(100)); await Bun.sleep(5); if (req.signal.aborted) return; }
        },
    }));
    return new Response("ok " + (await req.text()).length);
};"#;

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

async fn until_lines(path: &Path, count: usize) -> Vec<Value> {
    until("the lines are written", || async { Some(lines(path)).filter(|it| it.len() >= count) }).await
}

async fn logging(path: &Path, with_query: Switch) -> TestDaemon {
    let daemon = daemon_with(|config| {
        config.http.access_log = path.display().to_string();
        config.http.access_log_query = with_query;
        config.functions.auth = levain::model::Auth::Public;
    })
    .await;
    daemon.deploy_text("f", CODE).await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let daemon = logging(&path, Switch::Off).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let arguments = ["-A", "agent \"7\"", "-H", &format!("traceparent: {trace}"), "--data-binary", "@-"];
    let shown = curl_with(&daemon, &arguments, "/functions/f/a%20b?secret=1", b"12345").await;
    assert_eq!(shown.text(), "ok 5");
    let id = shown.header("x-levain-invocation-id").to_owned();
    curl(&daemon, &["--http2-prior-knowledge"], "/functions/f/throw").await;
    curl(&daemon, &["--head"], "/nothing").await;
    let request = CreateTokenRequest { name: "ci".into(), scopes: vec![Scope::Read], ..CreateTokenRequest::default() };
    let token = daemon.call(&request).await.unwrap().token.reveal().to_owned();
    curl(&daemon, &["-H", &format!("Authorization: Bearer {token}")], "/api/functions").await;
    // The client of this request disconnects in the middle of the answer.
    let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
    stream.write_all(b"GET /functions/f/stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0; 600]).await.unwrap();
    drop(stream);
    let lines = until_lines(&path, 5).await;
    let first = &lines[0];
    let fields = |line: &Value| {
        ["method", "path", "protocol", "status", "complete", "bytes_in", "bytes_out", "function", "version", "token"]
            .map(|it| line[it].clone())
    };
    let expected: [Value; 10] = [
        "POST".into(),
        "/functions/f/a%20b".into(),
        "HTTP/1.1".into(),
        200.into(),
        true.into(),
        5.into(),
        4.into(),
        "f".into(),
        "v1".into(),
        Value::Null,
    ];
    assert_eq!(fields(first), expected, "{first}");
    assert_eq!(
        (first["invocation_id"].as_str(), first["user_agent"].as_str()),
        (Some(id.as_str()), Some("agent \"7\""))
    );
    assert_eq!((first["traceparent"].as_str(), first.get("query")), (Some(trace), None));
    assert!(first["duration_ms"].as_f64().unwrap() > 0.0 && first["time"].as_str().unwrap().ends_with('Z'));
    assert!(first["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let told = |line: &Value| (line["protocol"].to_string(), line["status"].as_u64(), line["complete"].as_bool());
    assert_eq!(told(&lines[1]), ("\"HTTP/2\"".into(), Some(502), Some(true)), "{}", lines[1]);
    assert_eq!(told(&lines[2]), ("\"HTTP/1.1\"".into(), Some(404), Some(true)), "{}", lines[2]);
    assert_eq!((lines[2]["method"].as_str(), lines[2].get("function")), (Some("HEAD"), None));
    assert_eq!((lines[3]["token"].as_str(), lines[3]["status"].as_u64()), (Some("ci"), Some(200)));
    assert_eq!(told(&lines[4]), ("\"HTTP/1.1\"".into(), Some(200), Some(false)), "{}", lines[4]);
    assert!(lines[4]["bytes_out"].as_u64().unwrap() >= 300, "{}", lines[4]);
    daemon.stop().await;
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&token) && !text.contains("secret"), "{text}");
}

/// W3C Trace Context reaches the function unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_call_passes_through() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let daemon = logging(&path, Switch::On).await;
    let (parent, state) = ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=1,b=t61rcWkgMzE");
    let headers = [format!("traceparent: {parent}"), format!("tracestate: {state}")];
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let arguments = [version, "-H", &headers[0], "-H", &headers[1]];
        let seen = curl(&daemon, &arguments, "/functions/f/headers?q=1").await.json();
        for header in [["traceparent", parent], ["tracestate", state]] {
            let values: Vec<_> = seen.as_array().unwrap().iter().filter(|it| it[0] == header[0]).collect();
            assert_eq!(values.len(), 1, "{seen}");
            assert_eq!(values[0][1], header[1]);
        }
    }
    // The command socket passes on the same headers.
    let given = Fields(vec![("traceparent".into(), parent.into()), ("tracestate".into(), state.into())]);
    let seen = daemon.invoke_with(InvokeRequest { headers: Some(given), ..get("f", "/headers") }).await.unwrap();
    let seen: Vec<(String, String)> = serde_json::from_slice(&seen.body.0).unwrap();
    for (name, value) in [("traceparent", parent), ("tracestate", state)] {
        assert_eq!(seen.iter().filter(|it| it.0 == name).map(|it| it.1.as_str()).collect::<Vec<_>>(), [value]);
    }
    daemon.stop().await;
    let lines = lines(&path);
    assert_eq!(lines.len(), 2, "a stop writes the waiting lines");
    assert!(lines.iter().all(|line| line["traceparent"] == parent && line["query"] == "q=1"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_moved_away_is_made_anew_at_a_reload() {
    let data = tempfile::tempdir().unwrap();
    let [log, moved] = ["access.log", "access.log.1"].map(|it| data.path().join(it));
    fs::write(data.path().join("config.toml"), format!("[http]\naccess_log = {log:?}\n")).unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("LEVAIN_HTTP_ADDRESS", "127.0.0.1:0");
    let daemon = DaemonProcess::spawn(command, data.path()).await;
    let address = daemon.http().await;
    let ask = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        super::exchange(address, request.as_bytes()).await
    };
    ask("/one").await;
    until_lines(&log, 1).await;
    fs::rename(&log, &moved).unwrap();
    daemon.signal(Signal::SIGHUP);
    until("it is there again", || async { log.exists().then_some(()) }).await;
    ask("/two").await;
    assert_eq!(until_lines(&log, 1).await[0]["path"], "/two");
    assert_eq!(lines(&moved)[0]["path"], "/one");
    // The log's destination can change as well.
    fs::write(data.path().join("config.toml"), "[http]\naccess_log = \"stderr\"\n").unwrap();
    until("it goes elsewhere", || async {
        ask("/three").await;
        daemon.stderr().contains(r#""path":"/three""#).then_some(())
    })
    .await;
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_stops_the_start() {
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("LEVAIN_HTTP_ADDRESS", "127.0.0.1:0").env("LEVAIN_HTTP_ACCESS_LOG", "/no/such/folder/log");
    let output = DaemonProcess::output(command).await;
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("/no/such/folder/log") && output.stderr.contains("http.access_log"), "{output:?}");
}
