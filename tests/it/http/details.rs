//! Details of a failure, depending on the caller.

use super::{Shown, curl, daemon, daemon_with};
use crate::harness::TestDaemon;
use levain::{
    config::{ErrorDetails, SandboxMode},
    model::{Auth, Scope, SettingsPatch},
    protocol::message::{CreateTokenRequest, SetAliasRequest, VersionRef},
};
use serde_json::Value;

/// Fails in every way that has details, and sends requests to the daemon on demand.
const CODE: &str = r#"
export default async (req) => {
    const url = new URL(req.url);
    switch (url.pathname) {
        case "/login": console.error("login of alice, session 4711"); return new Response("ok");
        case "/throw": throw new Error("duplicate key 4711");
        case "/exit": console.log("session 4712"); process.exit(3);
        case "/begin": return new Response(new ReadableStream({ async start(to) { to.enqueue("begun"); await Bun.sleep(20); process.exit(4); } }));
        case "/none": return 4711;
        case "/ask": {
            const answer = await fetch(url.searchParams.get("url"));
            return new Response(await answer.text(), { status: answer.status });
        }
    }
    return new Response("ok");
};"#;

async fn with_function(change: impl FnOnce(&mut levain::config::Config)) -> TestDaemon {
    let daemon = daemon_with(change).await;
    daemon.deploy_text("f", CODE).await;
    daemon
}

/// Whether an answer is limited to the fields that strangers may see.
fn is_bare(shown: &Shown) -> bool {
    let told = shown.json();
    let names: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
    let has_secret = ["4711", "4712", "alice", "/bundle", "index", "code 3", "v1", "LIVE"];
    names == ["code", "error", "invocation_id"]
        && told["error"].as_str().is_some_and(|it| it.len() > 10)
        && !has_secret
            .iter()
            .any(|secret| shown.text().replace(told["invocation_id"].as_str().unwrap(), "").contains(secret))
}

fn has_details(shown: &Shown) -> bool {
    shown.json()["details"].is_object()
}

const FAILURES: [(&str, u16); 5] = [
    ("/functions/f/throw", 502),
    ("/functions/f/exit", 502),
    ("/functions/f/none", 502),
    ("/functions/f:v9", 404),
    ("/functions/f:NOPE", 404),
];

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_from_elsewhere_gets_the_code_and_a_sentence() {
    let daemon = with_function(|_| {}).await;
    let elsewhere: [&[&str]; 9] = [
        &["-H", "X-Forwarded-For: 192.0.2.1"],
        &["-H", "x-forwarded-host: shop.example.com"],
        &["-H", "Forwarded: for=192.0.2.1"],
        &["-H", "X-Real-IP: 192.0.2.1"],
        &["-H", "Via: 1.1 proxy"],
        &["-H", "Host: shop.example.com"],
        // A host of another domain that begins with `localhost`.
        &["-H", "Host: localhost.example.com"],
        &["--http1.0"],
        &["--http2-prior-knowledge", "-H", "Via: 2 proxy"],
    ];
    for (path, status) in FAILURES {
        for arguments in elsewhere {
            assert_eq!(curl(&daemon, &[], "/functions/f/login").await.status(), 200);
            let shown = curl(&daemon, arguments, path).await;
            assert!(shown.status() == status && is_bare(&shown), "{arguments:?} {path}: {shown:?}");
        }
        for arguments in [&[][..], &["--http2-prior-knowledge"], &["-H", "Host: LocalHost.:1"]] {
            let shown = curl(&daemon, arguments, path).await;
            assert!(shown.status() == status && has_details(&shown), "{arguments:?} {path}: {shown:?}");
        }
    }
    // The log has all details.
    daemon.until_logged("f", "duplicate key 4711").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_over_http_are_of_the_callers_own_invocation() {
    let daemon = with_function(|_| {}).await;
    assert_eq!(curl(&daemon, &[], "/functions/f/login").await.text(), "ok");
    let shown = curl(&daemon, &[], "/functions/f/exit").await;
    assert_eq!(shown.json()["details"]["last_words"], serde_json::json!(["session 4712"]), "{shown:?}");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let shown = curl(&daemon, &[version], "/functions/f/begin").await;
        assert!(!shown.is_complete && shown.text() == "begun", "{shown:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_or_the_environment_for_development_brings_the_details_back() {
    let daemon = with_function(|_| {}).await;
    daemon.deploy_text("other", CODE).await;
    let token = |name: &'static str, scope, function: Option<&'static str>| {
        let request = CreateTokenRequest {
            name: name.into(),
            scopes: vec![scope],
            function_id: function.map(Into::into),
            ..CreateTokenRequest::default()
        };
        let daemon = &daemon;
        async move { format!("Authorization: Bearer {}", daemon.call(&request).await.unwrap().token.reveal()) }
    };
    let cases = [
        (token("caller", Scope::Invoke, None).await, true),
        (token("reader", Scope::Read, None).await, true),
        (token("own", Scope::Invoke, Some("f")).await, true),
        (token("others", Scope::Invoke, Some("other")).await, false),
        ("Authorization: Bearer lvn_wrong".to_owned(), false),
    ];
    let via = "Via: 1.1 proxy";
    for auth in [Auth::Public, Auth::Token] {
        daemon.update("f", SettingsPatch { auth: Some(auth), ..SettingsPatch::default() }).await.unwrap();
        for (header, sees_all) in &cases {
            let shown = curl(&daemon, &["-H", header, "-H", via], "/functions/f/throw").await;
            match (auth, sees_all) {
                // A token with the scope `read` must not call the function.
                (Auth::Token, true) if shown.status() == 403 => assert!(shown.text().contains("`reader`"), "{shown:?}"),
                (_, true) => assert!(has_details(&shown) && shown.status() == 502, "{header}: {shown:?}"),
                (Auth::Public, false) => assert!(is_bare(&shown) && shown.status() == 502, "{header}: {shown:?}"),
                (Auth::Token, false) => assert!([401, 403].contains(&shown.status()), "{header}: {shown:?}"),
            }
        }
    }
    daemon.update("f", SettingsPatch { auth: Some(Auth::Public), ..SettingsPatch::default() }).await.unwrap();
    let request = SetAliasRequest {
        function_id: "f".into(),
        name: "DEV".into(),
        version: VersionRef::Number(1),
        environment: None,
        description: None,
        reason: None,
        dry_run: false,
    };
    daemon.call(&request).await.unwrap();
    assert!(has_details(&curl(&daemon, &["-H", via], "/functions/f:DEV/throw").await));
    assert!(is_bare(&curl(&daemon, &["-H", via], "/functions/f:LIVE/throw").await));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setting_opens_or_closes_it_for_all() {
    for (setting, arguments, sees_all) in
        [(ErrorDetails::Full, &["-H", "Via: 1.1 proxy"][..], true), (ErrorDetails::None, &[], false)]
    {
        let daemon = with_function(|config| config.http.error_details = setting).await;
        let shown = curl(&daemon, arguments, "/functions/f/throw").await;
        assert!(has_details(&shown) == sees_all && is_bare(&shown) != sees_all, "{setting:?}: {shown:?}");
        // Management requires a token, and shows all details.
        let admin = std::fs::read_to_string(daemon.data_dir().join("admin.token")).unwrap();
        let header = format!("Authorization: Bearer {}", admin.trim());
        let arguments = ["-H", &header, "-H", "Via: 1.1 proxy", "-d", r#"{"path": "/throw"}"#];
        let shown = curl(&daemon, &arguments, "/api/functions/f/invoke").await;
        assert!(shown.text().contains("duplicate key 4711"), "{shown:?}");
        daemon.stop().await;
    }
}

/// Has the function request a path of the daemon by a loopback address, and returns the answer.
async fn asked_by_a_function(daemon: &TestDaemon, path: &str) -> (u16, Value) {
    let url = format!("http://127.0.0.1:{}{path}", daemon.http().port());
    let answer = daemon.get("f", &format!("/ask?url={url}")).await;
    (answer.status, serde_json::from_slice(&answer.body.0).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_no_caller_from_this_machine() {
    for mode in [SandboxMode::Auto, SandboxMode::Off] {
        let daemon = with_function(|config| config.sandbox.mode = mode).await;
        let (status, told) = asked_by_a_function(&daemon, "/functions/f/throw").await;
        assert_eq!(
            (status, &told["details"], told["code"].as_str()),
            (502, &Value::Null, Some("HANDLER_ERROR")),
            "{mode:?}"
        );
        let (status, _) = asked_by_a_function(&daemon, "/metrics").await;
        assert_eq!(status, 401, "{mode:?}");
        assert_eq!(curl(&daemon, &[], "/metrics").await.status(), 200, "{mode:?}");
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_for_a_public_function_is_no_attempt() {
    let daemon = daemon().await;
    daemon.deploy_text("f", CODE).await;
    for _ in 0..12 {
        let shown =
            curl(&daemon, &["-H", "Authorization: Bearer its-own", "-H", "Via: 1.1 proxy"], "/functions/f/throw").await;
        assert_eq!(shown.status(), 502);
    }
    let shown = curl(&daemon, &["-H", "Authorization: Bearer lvn_wrong"], "/api/status").await;
    assert_eq!(shown.status(), 401, "{shown:?}");
    daemon.stop().await;
}
