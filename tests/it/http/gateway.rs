//! Invocations of functions over HTTP.

use super::{curl, curl_with, daemon, daemon_with, exchange};
use crate::harness::TestDaemon;
use levain::{
    error::ErrorCode,
    model::SettingsPatch,
    protocol::message::{SetTrafficRequest, VersionRef},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Describes its request; streams, counts, fails and waits on demand.
const CODE: &str = r#"
export default async (req) => {
    const url = new URL(req.url);
    switch (url.pathname) {
        case "/stream": {
            const ms = Number(url.searchParams.get("ms") ?? 1), parts = Number(url.searchParams.get("parts") ?? 3);
            const body = new ReadableStream({
                async start(controller) {
                    for (let part = 0; part < parts; part++) {
                        controller.enqueue(new TextEncoder().encode(`data: ${part}\n\n`));
                        await Bun.sleep(ms);
                    }
                    if (url.searchParams.has("break")) controller.error(new Error("broken"));
                    else controller.close();
                },
            });
            return new Response(body, { headers: { "content-type": "text/event-stream" } });
        }
        case "/count": {
            let bytes = 0, parts = 0;
            for await (const part of req.body ?? []) { bytes += part.length; parts++; }
            return Response.json({ bytes, parts });
        }
        case "/echo": return new Response(req.body);
        case "/throw": throw new Error("not today");
        case "/status": return new Response(null, { status: Number(url.searchParams.get("of")) });
        case "/wait": {
            await new Promise((resolve) => { req.signal.addEventListener("abort", () => { console.log("left " + url.search); resolve(); }); setTimeout(resolve, 20_000); console.log("waits " + url.search); });
            return new Response("late");
        }
    }
    return Response.json(
        { method: req.method, path: url.pathname + url.search, headers: [...req.headers], body: await req.text() },
        { headers: [["set-cookie", "a=1"], ["set-cookie", "b=2"], ["x-own", "yes"], ["server-timing", "db;dur=7"]] },
    );
};"#;

async fn with_function() -> TestDaemon {
    let daemon = daemon().await;
    daemon.deploy_text("f", CODE).await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_its_answer_pass_whole() {
    let daemon = with_function().await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let shown = curl(&daemon, &["-X", method], "/functions/f/a/b%20c?x=1&x=2&y=%C3%A9").await;
        assert_eq!(shown.status(), 200, "{shown:?}");
        assert_eq!(shown.json()["method"], method);
        assert_eq!(shown.json()["path"], "/a/b%20c?x=1&x=2&y=%C3%A9");
    }
    let arguments =
        ["-d", "two words", "-H", "X-One: 1", "-H", "x-two: 2", "-H", "Connection: x-hop", "-H", "X-Hop: 1"];
    let shown = curl(&daemon, &arguments, "/functions/f").await;
    let seen = shown.json();
    assert_eq!((seen["path"].as_str(), seen["body"].as_str()), (Some("/"), Some("two words")));
    let headers = seen["headers"].as_array().unwrap();
    let has = |name: &str| headers.iter().any(|it| it[0] == name);
    assert!(has("x-one") && has("x-two") && !has("x-hop") && !has("connection"), "{headers:?}");
    assert_eq!((shown.all("set-cookie"), shown.header("x-own")), (vec!["a=1", "b=2"], "yes"));
    assert!(shown.header("x-levain-invocation-id").starts_with("exec-"));
    assert_eq!(shown.header("x-levain-version"), "v1");
    // The function's own entries come first.
    let timing = shown.all("server-timing").join(", ");
    let timing: Vec<_> = timing.split(", ").map(|it| it.split_once(";dur=").unwrap()).collect();
    let names: Vec<_> = timing.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["db", "queue", "start", "run"], "{shown:?}");
    assert!(timing.iter().all(|(_, ms)| ms.parse::<f64>().is_ok()), "{shown:?}");
    let head = curl(&daemon, &["--head"], "/functions/f").await;
    assert_eq!((head.status(), head.body.len()), (200, 0));
    assert!(head.header("content-length").parse::<u32>().unwrap() > 10);
    for status in ["201", "204", "301", "404", "503"] {
        let shown = curl(&daemon, &[], &format!("/functions/f/status?of={status}")).await;
        assert_eq!(shown.status().to_string(), status);
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_found_by_its_path_or_its_host() {
    let daemon = with_function().await;
    daemon.redeploy_text("f", None, &CODE.replace(r#"["x-own", "yes"]"#, r#"["x-own", "two"]"#)).await.unwrap();
    let own = |shown: &super::Shown| shown.header("x-own").to_owned();
    assert_eq!(own(&curl(&daemon, &[], "/functions/f").await), "two");
    assert_eq!(own(&curl(&daemon, &[], "/functions/f:v1/deep?q").await), "yes");
    assert_eq!(own(&curl(&daemon, &[], "/functions/f%3A1").await), "yes");
    assert_eq!(own(&curl(&daemon, &[], "/functions/%66%3av%31?q").await), "yes");
    for path in ["/functions/%", "/functions/%zz", "/functions/%ff", "/functions/f%2F"] {
        assert_eq!(curl(&daemon, &[], path).await.status(), 404, "{path}");
    }
    let port = daemon.http().port();
    let shown = curl(&daemon, &[], &format!("http://f.localhost:{port}/functions/x?y")).await;
    assert_eq!((shown.json()["path"].as_str(), own(&shown).as_str()), (Some("/functions/x?y"), "two"));
    // Case, a trailing dot and a port do not change which function a host names.
    for host in ["F.LocalHost", "f.localhost.", "v1--f.localhost.:80"] {
        let shown = curl(&daemon, &["-H", &format!("Host: {host}")], "/x").await;
        assert_eq!((shown.status(), shown.json()["path"].as_str()), (200, Some("/x")), "{host}");
    }
    let shown = curl(&daemon, &["--http2-prior-knowledge"], &format!("http://f.localhost:{port}/")).await;
    assert_eq!((shown.status(), shown.head[0].starts_with("HTTP/2")), (200, true));
    // The header of the daemon chooses one of two versions.
    let request = SetTrafficRequest {
        function_id: "f".into(),
        version: Some(VersionRef::Number(1)),
        weight: Some(0),
        ..SetTrafficRequest::default()
    };
    daemon.call(&request).await.unwrap();
    let pinned = curl(&daemon, &["-H", "X-Levain-Version: v1"], "/functions/f").await;
    assert_eq!((own(&pinned).as_str(), pinned.header("x-levain-version")), ("yes", "v1"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_what_was_wrong() {
    let daemon = with_function().await;
    let settings = SettingsPatch { timeout_seconds: Some(1), ..SettingsPatch::default() };
    daemon.update("f", settings).await.unwrap();
    let cases = [
        ("/functions/nope", 404, ErrorCode::FunctionNotFound),
        ("/functions/f:NOPE", 404, ErrorCode::AliasNotFound),
        ("/functions/f:v9", 404, ErrorCode::VersionNotFound),
        ("/functions/f/throw", 502, ErrorCode::HandlerError),
        ("/functions/f/wait", 504, ErrorCode::Timeout),
        ("/nothing", 404, ErrorCode::InvalidRequest),
    ];
    for (path, status, code) in cases {
        let shown = curl(&daemon, &[], path).await;
        assert_eq!((shown.status(), shown.json()["code"].as_str()), (status, Some(code.as_str())), "{path}: {shown:?}");
        assert!(shown.json()["error"].as_str().unwrap().len() > 10);
        let id = shown.json()["invocation_id"].clone();
        assert_eq!(id.as_str(), shown.all("x-levain-invocation-id").first().copied(), "{path}");
    }
    let id = curl(&daemon, &[], "/functions/f/throw").await.json()["invocation_id"].as_str().unwrap().to_owned();
    let line = daemon.until_logged("f", "not today").await;
    assert!(line.execution_id.is_some() && id.starts_with("exec-"), "{line:?}");
    let shown = curl(&daemon, &["-X", "TRACE"], "/functions/f").await;
    assert_eq!(shown.status(), 400, "{shown:?}");
    let long = format!("x-long: {}", "x".repeat(20_000));
    let shown = curl(&daemon, &["-H", &long], "/functions/f").await;
    assert_eq!((shown.status(), shown.json()["code"].as_str()), (413, Some("PAYLOAD_TOO_LARGE")));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_in_both_directions() {
    let daemon = with_function().await;
    let large: Vec<u8> = (0..6_000_000_u32).map(|it| (it % 251) as u8).collect();
    for how in [["-T", "-"], ["--data-binary", "@-"]] {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let arguments = [how[0], how[1], version, "-X", "POST"];
            let shown = curl_with(&daemon, &arguments, "/functions/f/echo", &large).await;
            assert!(shown.status() == 200 && shown.body == large, "{how:?} {version}: {:?}", shown.head);
        }
    }
    let shown = curl_with(&daemon, &["-T", "-", "-X", "POST"], "/functions/f/count", &large).await;
    assert_eq!(shown.json()["bytes"], large.len());
    // The function sees the first part of the body before the rest is sent.
    let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
    stream
        .write_all(b"POST /functions/f/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .await
        .unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("first") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
    }
    stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
    while !String::from_utf8_lossy(&seen).ends_with("0\r\n\r\n") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
    }
    assert!(String::from_utf8_lossy(&seen).contains("6\r\nsecond\r\n"), "{}", String::from_utf8_lossy(&seen));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_makes_progress_outlives_the_timeout() {
    let daemon = daemon_with(|config| config.http.body_timeout_ms = 1_000).await;
    daemon.deploy_text("f", CODE).await;
    let settings = SettingsPatch { timeout_seconds: Some(1), ..SettingsPatch::default() };
    daemon.update("f", settings).await.unwrap();
    let shown = curl(&daemon, &["-N"], "/functions/f/stream?ms=50&parts=30").await;
    assert!(shown.is_complete && shown.text().ends_with("data: 29\n\n"), "{shown:?}");
    assert_eq!(shown.header("content-type"), "text/event-stream");
    let stalled = curl(&daemon, &["-N"], "/functions/f/stream?ms=5000&parts=2").await;
    assert!(!stalled.is_complete && stalled.text() == "data: 0\n\n", "the stalled answer breaks off: {stalled:?}");
    let broken = curl(&daemon, &["-N"], "/functions/f/stream?break").await;
    assert!(!broken.is_complete && broken.text().ends_with("data: 2\n\n"), "the broken answer breaks off: {broken:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_invocation_with_it() {
    let daemon = with_function().await;
    for (number, request) in [
        "GET /functions/f/wait?0 HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /functions/f/wait?1 HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nbegun",
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        daemon.until_logged("f", &format!("waits ?{number}")).await;
        drop(stream);
        daemon.until_logged("f", &format!("left ?{number}")).await;
        daemon.until_pool("f", "its worker is free again", |pool| pool.busy == 0).await;
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_one_request_after_the_other() {
    let daemon = with_function().await;
    let one = "GET /functions/f/status?of=202 HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /functions/f/status?of=203 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    // Requests sent at once are answered in order.
    let answers = exchange(daemon.http(), format!("{one}{one}{last}").as_bytes()).await;
    let statuses: Vec<_> = answers.lines().filter(|it| it.starts_with("HTTP/1.1")).map(|it| &it[9..12]).collect();
    assert_eq!(statuses, ["202", "202", "203"], "{answers}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_another_origin_may_call_if_they_are_let() {
    let daemon = with_function().await;
    let ask = ["-X", "OPTIONS", "-H", "Origin: https://a.example", "-H", "Access-Control-Request-Method: PUT"];
    let shown = curl(&daemon, &ask, "/functions/f").await;
    assert!(
        shown.status() == 200 && shown.all("access-control-allow-origin").is_empty(),
        "the function answers itself"
    );
    daemon.stop().await;
    let daemon = daemon_with(|config| config.http.cors_origin = "https://a.example".into()).await;
    daemon.deploy_text("f", CODE).await;
    let shown = curl(&daemon, &ask, "/functions/f").await;
    let allowed = (shown.header("access-control-allow-origin"), shown.header("access-control-allow-methods"));
    assert_eq!((shown.status(), allowed), (204, ("https://a.example", "PUT")));
    let shown = curl(&daemon, &[], "/functions/f").await;
    assert_eq!(shown.header("access-control-allow-origin"), "https://a.example");
    let exposed = "x-levain-invocation-id, x-levain-version, x-invocation-id, server-timing";
    assert_eq!((shown.all("access-control-expose-headers"), shown.header("vary")), (vec![exposed], "Origin"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_own_id_comes_back() {
    let daemon = with_function().await;
    for path in ["/functions/f", "/functions/nope"] {
        let shown = curl(&daemon, &["-H", "X-Invocation-Id: mine-7"], path).await;
        assert_eq!(shown.header("x-invocation-id"), "mine-7");
    }
    assert_eq!(curl(&daemon, &[], "/health").await.status(), 200);
    assert_eq!(curl(&daemon, &[], "/ready").await.text(), "ok\n");
    daemon.stop().await;
}

/// A stop lets running invocations finish, and refuses new ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_what_runs_finish() {
    let daemon = with_function().await;
    let address = daemon.http();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /functions/f/stream?ms=100&parts=5 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    daemon.until_pool("f", "it runs", |pool| pool.busy == 1).await;
    let reading = tokio::spawn(async move {
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).await.unwrap();
        String::from_utf8(seen).unwrap()
    });
    tokio::time::timeout(Duration::from_secs(20), daemon.stop()).await.expect("it stops");
    let seen = reading.await.unwrap();
    assert!(seen.contains("data: 4") && seen.ends_with("0\r\n\r\n"), "{seen}");
    assert!(TcpStream::connect(address).await.is_err(), "the address is closed");
}
