//! `/metrics`: its contents, and who may read them.

use super::{curl, curl_with, daemon, daemon_with, exposition::Page};
use crate::harness::{TestDaemon, until};
use levain::{
    model::Scope,
    protocol::message::{CreateTokenRequest, DeleteRequest},
};
use std::{collections::BTreeSet, fs, path::Path};

const CODE: &str = r#"
export default async (req) => {
    const url = new URL(req.url);
    if (url.pathname === "/throw") throw new Error("no");
    if (url.pathname === "/large") return new Response("x".repeat(3_000_000));
    while (url.pathname === "/wait" && !req.signal.aborted) await Bun.sleep(5);
    return new Response("ok " + (await req.text()).length);
};"#;

async fn scrape(daemon: &TestDaemon) -> Page {
    let shown = curl(daemon, &[], "/metrics").await;
    assert_eq!((shown.status(), shown.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    Page::parse(shown.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_move_as_calls_are_made() {
    let daemon = daemon().await;
    daemon.deploy_text("f", CODE).await;
    let before = scrape(&daemon).await;
    assert_eq!(before.find("levain_invocations_total", &[("function", "f"), ("version", "v1"), ("code", "OK")]), None);
    let own = |page: &Page, name: &str, more: &[(&str, &str)]| {
        page.value(name, &[&[("function", "f"), ("version", "v1")], more].concat())
    };
    for _ in 0..3 {
        assert_eq!(curl_with(&daemon, &["--data-binary", "@-"], "/functions/f", b"12345").await.text(), "ok 5");
    }
    assert_eq!(curl(&daemon, &[], "/functions/f/throw").await.status(), 502);
    assert_eq!(curl(&daemon, &[], "/functions/nope").await.status(), 404);
    // An answer with a known length, sent in several parts.
    assert_eq!(curl(&daemon, &[], "/functions/f/large").await.body.len(), 3_000_000);
    let after = scrape(&daemon).await;
    let code = |code| own(&after, "levain_invocations_total", &[("code", code)]);
    assert_eq!((code("OK"), code("HANDLER_ERROR")), (4.0, 1.0));
    let kind = |kind| own(&after, "levain_invocation_starts_total", &[("kind", kind)]);
    assert_eq!(kind("warm") + kind("prewarmed") + kind("spawned"), 5.0);
    for (name, count) in [("duration", 5.0), ("queue", 5.0), ("start", kind("prewarmed") + kind("spawned"))] {
        assert_eq!(own(&after, &format!("levain_invocation_{name}_seconds_count"), &[]), count, "{name}");
    }
    let sum = own(&after, "levain_invocation_duration_seconds_sum", &[]);
    assert!(sum > 0.0 && sum < 60.0, "in seconds: {sum}");
    let rise = |name: &str, labels: &[(&str, &str)]| after.value(name, labels) - before.value(name, labels);
    assert_eq!(rise("levain_http_request_body_bytes_total", &[]), 15.0);
    assert!(rise("levain_http_response_body_bytes_total", &[]) > 3_000_000.0);
    let classes =
        ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].map(|it| rise("levain_http_responses_total", &[("class", it)]));
    assert_eq!(classes, [0.0, 0.0, 5.0, 0.0, 1.0, 1.0], "the counts include the previous scrape");
    assert!(rise("levain_http_connections_total", &[]) >= 6.0);
    assert_eq!((after.value("levain_http_requests_running", &[]), after.value("levain_ready", &[])), (1.0, 1.0));
    // Metrics of the process.
    assert!(after.value("process_resident_memory_bytes", &[]) > 1e6 && after.value("process_open_fds", &[]) > 5.0);
    assert!(rise("process_cpu_seconds_total", &[]) > 0.0 && rise("process_start_time_seconds", &[]) == 0.0);
    assert!(
        after.value("process_start_time_seconds", &[]) > 1.7e9
            && after.value("levain_disk_bytes", &[("kind", "store")]) > 4_096.0
    );
    // Counters have not fallen.
    for (name, family) in &before.0 {
        for (sample, labels, value) in family.samples.iter().filter(|_| family.kind != "gauge") {
            let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert!(after.find(sample, &labels).is_some_and(|now| now >= *value), "{name} {labels:?}");
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_waits_are_shown() {
    let daemon = daemon().await;
    daemon.deploy_text("f", CODE).await;
    let call = daemon.get_beside("f", "/wait").await;
    let labels = [("function", "f"), ("version", "v1"), ("environment", "production")];
    let daemon_ref = &daemon;
    until("a call runs", || async move {
        (scrape(daemon_ref).await.find("levain_invocations_running", &labels) == Some(1.0)).then_some(())
    })
    .await;
    let page = scrape(&daemon).await;
    let of = |state| page.value("levain_workers", &[&labels[..], &[("state", state)]].concat());
    assert_eq!(["starting", "idle", "busy", "retiring", "stopping"].map(of), [0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!((page.value("levain_node_workers", &[]), page.value("levain_invocations_queued", &labels)), (1.0, 0.0));
    assert!(page.value("levain_workers_memory_limit_bytes", &[]) > 1e6);
    call.abort();
    daemon.until_pool("f", "the call has ended", |pool| pool.busy == 0).await;
    daemon.stop().await;
}

/// The documentation lists every family, and only these.
#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_has_every_family() {
    let daemon = daemon().await;
    let page = scrape(&daemon).await;
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let table = text.split("<!-- families -->").nth(1).unwrap().split("<!-- /families -->").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].trim_matches('`'), cells[1], cells[3])
    });
    let told = page.0.iter().map(|(name, family)| (name.as_str(), family.kind.as_str(), family.help.as_str()));
    assert_eq!(told.collect::<BTreeSet<_>>(), rows.collect());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_goes_and_the_rest_is_bounded() {
    let daemon = daemon_with(|config| config.http.metrics_versions_max = 2).await;
    for name in ["a", "b", "c"] {
        daemon.deploy_text(name, CODE).await;
        daemon.invoke(name).await.unwrap();
    }
    daemon.invoke("b").await.unwrap();
    daemon.invoke("c").await.unwrap();
    let calls = |page: &Page, name: &str| {
        page.find("levain_invocations_total", &[("function", name), ("version", "v1"), ("code", "OK")])
    };
    let page = scrape(&daemon).await;
    assert_eq!(["a", "b", "c"].map(|it| calls(&page, it)), [None, Some(2.0), Some(2.0)]);
    assert_eq!(page.value("levain_metrics_versions_omitted", &[]), 1.0);
    daemon.call(&DeleteRequest { function_id: "b".into() }).await.unwrap();
    let page = scrape(&daemon).await;
    assert_eq!(["a", "b", "c"].map(|it| calls(&page, it)), [Some(1.0), None, Some(2.0)]);
    assert_eq!((page.value("levain_functions", &[]), page.value("levain_metrics_versions_omitted", &[])), (2.0, 0.0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_scrape_is_configured() {
    let daemon = daemon_with(|config| config.http.metrics = levain::config::Metrics::Off).await;
    assert_eq!(curl(&daemon, &[], "/metrics").await.status(), 404);
    daemon.stop().await;
    // On a loopback address, programs of this machine may read the metrics.
    let daemon = super::daemon().await;
    for arguments in [&[][..], &["-H", "Host: localhost"], &["-H", "Host: [::1]:1"], &["--http2-prior-knowledge"]] {
        assert_eq!(curl(&daemon, arguments, "/metrics").await.status(), 200, "{arguments:?}");
    }
    for header in ["Host: a.example", "X-Forwarded-For: ::1", "Forwarded: for=x", "X-Real-IP: 127.0.0.1", "Via: 1.1 a"]
    {
        assert_eq!(curl(&daemon, &["-H", header], "/metrics").await.status(), 401, "{header}");
    }
    daemon.stop().await;
    // On a public address, the default requires a token.
    let daemon = daemon_with(|config| config.http.address = "0.0.0.0:0".into()).await;
    assert_eq!(curl(&daemon, &[], "/metrics").await.status(), 401);
    for (scope, status) in [(Scope::Read, 200), (Scope::Invoke, 403), (Scope::Admin, 200)] {
        let request = CreateTokenRequest {
            name: format!("for-{}", scope.name()),
            scopes: vec![scope],
            ..CreateTokenRequest::default()
        };
        let token = daemon.call(&request).await.unwrap().token;
        let header = format!("Authorization: Bearer {}", token.reveal());
        assert_eq!(curl(&daemon, &["-H", &header], "/metrics").await.status(), status, "{scope:?}");
    }
    daemon.stop().await;
}
