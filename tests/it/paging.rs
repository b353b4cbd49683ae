//! Paged lists: each row appears once, whatever is added meanwhile, and every page fits into a frame.

use crate::harness::{DaemonProcess, TestDaemon, get, is_refused};
use levain::{
    config::Verify,
    error::{Error, ErrorCode},
    protocol::{
        field::Body,
        ipc::CommandRequest,
        message::{
            AliasesRequest, ControlRolloutRequest, CreateEnvironmentRequest, CreateTokenRequest, DecideRequest,
            DeployRequest, DeploymentsRequest, EnvironmentsRequest, ListRequest, ListTokensRequest, LogsRequest,
            PreviewsRequest, RolloutAction, RolloutsRequest, SetAliasRequest, SetEnvironmentRequest,
            StartRolloutRequest, VersionsRequest,
        },
        page::{Page, Paged},
    },
};

/// Reads all pages of a list, with this many rows each.
async fn pages<R: Paged>(daemon: &TestDaemon, mut request: R, limit: u32) -> Vec<R::Response> {
    let (mut pages, mut cursor) = (Vec::new(), None);
    loop {
        request.ask(limit, cursor);
        let mut page = daemon.call(&request).await.unwrap();
        assert!(page.rows() <= limit as usize);
        cursor = page.next();
        pages.push(page);
        if cursor.is_none() {
            return pages;
        }
    }
}

fn code(word: &str) -> String {
    format!("export default () => new Response('{word}')")
}

/// Points an alias of `f` at its first version.
fn alias(name: &str) -> SetAliasRequest {
    SetAliasRequest {
        function_id: "f".into(),
        name: name.into(),
        version: "v1".into(),
        environment: None,
        description: None,
        reason: None,
        dry_run: false,
    }
}

async fn deploy_many(daemon: &TestDaemon, words: &[&str]) {
    daemon.register("f").await;
    for word in words {
        daemon.redeploy_text("f", None, &code(word)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_and_tokens_come_once_each() {
    let daemon = TestDaemon::start().await;
    for name in ["a", "b", "d", "e", "f"] {
        daemon.register(name).await;
    }
    let mut request = ListRequest { limit: Some(2), ..ListRequest::default() };
    let first = daemon.call(&request).await.unwrap();
    // A row added before the cursor does not push another onto the next page, and a row added after it appears.
    daemon.register("aa").await;
    daemon.register("c").await;
    request.cursor = first.next_cursor;
    let second = daemon.call(&request).await.unwrap();
    let names = |it: &levain::protocol::message::ListResponse| {
        it.functions.iter().map(|it| it.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!((names(&second), second.total), ("c d".into(), 7));
    request.cursor = second.next_cursor;
    let last = daemon.call(&request).await.unwrap();
    assert_eq!((names(&last), last.next_cursor), ("e f".into(), None));

    for name in ["one", "two", "three"] {
        let scopes = vec![levain::model::Scope::Read];
        let request = CreateTokenRequest { name: name.into(), scopes, ..CreateTokenRequest::default() };
        daemon.call(&request).await.unwrap();
    }
    let pages = pages(&daemon, ListTokensRequest::default(), 3).await;
    let names: Vec<_> = pages.iter().flat_map(|it| &it.tokens).map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["admin", "one", "two", "three"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_environments_and_previews_come_once_each() {
    let daemon = TestDaemon::start_with(|config| config.versioning.verify = Verify::Syntax).await;
    deploy_many(&daemon, &["one"]).await;
    for name in ["b", "d", "f"] {
        daemon.call(&alias(name)).await.unwrap();
    }
    let mut request = AliasesRequest { function_id: "f".into(), limit: Some(3), ..AliasesRequest::default() };
    let first = daemon.call(&request).await.unwrap();
    for name in ["a", "e"] {
        daemon.call(&alias(name)).await.unwrap();
    }
    request.cursor = first.next_cursor;
    let rest = daemon.call(&request).await.unwrap();
    let names = [first.aliases, rest.aliases].map(|it| it.into_iter().map(|it| it.name).collect::<Vec<_>>().join(" "));
    assert_eq!((names, rest.next_cursor), (["LIVE b d".into(), "e f".into()], None));

    daemon.call(&CreateEnvironmentRequest { name: "qa".into(), ..CreateEnvironmentRequest::default() }).await.unwrap();
    let found = pages(&daemon, EnvironmentsRequest::default(), 2).await;
    let names: Vec<_> = found.iter().flat_map(|it| &it.environments).map(|it| it.name.as_str()).collect();
    assert_eq!((found.len(), names), (3, vec!["dev", "preview", "production", "qa", "staging"]));

    for (function, preview) in [("g", "x"), ("f", "y"), ("f", "x")] {
        let request = DeployRequest {
            function_id: function.into(),
            bundle: Some(Body::from(code("preview").into_bytes())),
            preview: Some(preview.into()),
            create: true,
            ..DeployRequest::default()
        };
        daemon.call(&request).await.unwrap();
    }
    let found = pages(&daemon, PreviewsRequest::default(), 1).await;
    let names = found.iter().flat_map(|it| &it.previews).map(|it| (it.function.as_str(), it.name.as_str()));
    assert_eq!(names.collect::<Vec<_>>(), [("f", "x"), ("f", "y"), ("g", "x")]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_deployments_come_once_each_whatever_is_deployed_meanwhile() {
    let daemon = TestDaemon::start().await;
    deploy_many(&daemon, &["one", "two", "three"]).await;
    let mut versions = VersionsRequest { function_id: "f".into(), limit: Some(2), cursor: None };
    let mut deployments =
        DeploymentsRequest { function_id: "f".into(), limit: Some(2), ..DeploymentsRequest::default() };
    let (first, rows) = (daemon.call(&versions).await.unwrap(), daemon.call(&deployments).await.unwrap());
    daemon.redeploy_text("f", None, &code("four")).await.unwrap();
    versions.cursor = first.next_cursor;
    deployments.cursor = rows.next_cursor;
    let rest = daemon.call(&versions).await.unwrap();
    assert_eq!((rest.versions.len(), rest.versions[0].number, rest.next_cursor), (1, 1, None));
    let rest = daemon.call(&deployments).await.unwrap();
    assert_eq!((rest.deployments.len(), rest.deployments[0].number, rest.next_cursor), (1, Some(1), None));
    let all = pages(&daemon, DeploymentsRequest { function_id: "f".into(), ..DeploymentsRequest::default() }, 3).await;
    let numbers: Vec<_> = all.iter().flat_map(|it| &it.deployments).map(|it| it.number.unwrap()).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_between_two_pages_does_not_confuse_them() {
    let daemon = TestDaemon::start().await;
    deploy_many(&daemon, &["one", "two", "three"]).await;
    daemon
        .call(&SetEnvironmentRequest { name: "dev".into(), protected: Some(true), ..SetEnvironmentRequest::default() })
        .await
        .unwrap();
    let waiting = daemon.call(&alias("DEV")).await.unwrap();
    let mut request = DeploymentsRequest { function_id: "f".into(), limit: Some(1), ..DeploymentsRequest::default() };
    let first = daemon.call(&request).await.unwrap();
    assert_eq!(first.deployments[0].deployment_id, waiting.deployment_id);
    // The approved deployment moves to the end of the history; the cursor stays where it was.
    let approve = DecideRequest { deployment_id: waiting.deployment_id, approve: true, reason: None };
    daemon.call(&approve).await.unwrap();
    (request.limit, request.cursor) = (Some(10), first.next_cursor);
    let rest = daemon.call(&request).await.unwrap().deployments;
    assert_eq!(rest.iter().map(|it| it.number.unwrap()).collect::<Vec<_>>(), [3, 2, 1]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_lines_of_logs_follow_and_rollouts_come_once_each() {
    let daemon = TestDaemon::start().await;
    let text =
        "export default (req) => { for (let i = 0; i < 10; i++) console.log('line ' + i); return new Response(''); }";
    daemon.deploy_text("f", text).await;
    daemon.invoke_with(get("f", "/")).await.unwrap();
    daemon.until_logged("f", "line 9").await;
    let mut request = LogsRequest { function_id: "f".into(), limit: Some(4), ..LogsRequest::default() };
    let mut said = Vec::new();
    loop {
        let page = daemon.call(&request).await.unwrap();
        assert_eq!(page.total, 10);
        said.splice(0..0, page.logs.into_iter().map(|it| it.message));
        request.cursor = page.next_cursor;
        if request.cursor.is_none() {
            break;
        }
    }
    assert_eq!(said, (0..10).map(|it| format!("line {it}")).collect::<Vec<_>>());
    let both = LogsRequest { follow: true, cursor: Some("x".into()), ..request };
    assert!(is_refused(&daemon.call(&both).await, ErrorCode::InvalidRequest));

    daemon.redeploy_text("f", None, &code("two")).await.unwrap();
    for _ in 0..3 {
        let start = StartRolloutRequest {
            function_id: "f".into(),
            version: "v1".into(),
            plan: "10% 5m, 100%".into(),
            alias: None,
            reason: None,
        };
        daemon.call(&start).await.unwrap();
        let (alias, action, reason) = (None, RolloutAction::Abort, None);
        daemon.call(&ControlRolloutRequest { function_id: "f".into(), alias, action, reason }).await.unwrap();
    }
    let pages = pages(&daemon, RolloutsRequest { function_id: "f".into(), ..RolloutsRequest::default() }, 2).await;
    assert_eq!(pages.iter().map(Page::rows).collect::<Vec<_>>(), [2, 1]);
    assert!(pages[0].rollouts[1].created_at >= pages[1].rollouts[0].created_at);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_is_too_large_for_a_frame() {
    let daemon = TestDaemon::start_with(|config| {
        config.limits.frame_bytes_max = 131_072;
        config.versioning.verify = Verify::Syntax;
    })
    .await;
    daemon.register("f").await;
    for number in 0..40 {
        let request = DeployRequest {
            function_id: "f".into(),
            bundle: Some(Body::from(code(&number.to_string()).into_bytes())),
            description: Some("x".repeat(4_096)),
            activate: Some(false),
            ..DeployRequest::default()
        };
        daemon.call(&request).await.unwrap();
    }
    let request = VersionsRequest { function_id: "f".into(), ..VersionsRequest::default() };
    let first = daemon.call(&request).await.unwrap();
    assert!(first.next_cursor.is_some() && first.versions.len() < 40, "{}", first.versions.len());
    let pages = pages(&daemon, request, 1_000).await;
    let numbers: Vec<_> = pages.iter().flat_map(|it| &it.versions).map(|it| it.number).collect();
    assert_eq!(numbers, (1..=40).rev().collect::<Vec<_>>());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_cursors_that_make_no_sense_are_refused() {
    async fn refused<R: CommandRequest>(daemon: &TestDaemon, request: &R) -> String {
        match daemon.call(request).await.map(|_| ()) {
            Err(Error { code: ErrorCode::InvalidRequest, message, .. }) => message,
            other => panic!("{other:?}"),
        }
    }
    let daemon = TestDaemon::start().await;
    deploy_many(&daemon, &["one", "two"]).await;
    let versions = VersionsRequest { function_id: "f".into(), limit: Some(1), cursor: None };
    let of_versions = daemon.call(&versions).await.unwrap().next_cursor;
    for limit in [0, 1_001] {
        let message = refused(&daemon, &ListRequest { limit: Some(limit), ..ListRequest::default() }).await;
        assert!(message.contains("1 to 1000"), "{message}");
    }
    for cursor in [Some("x".into()), Some(String::new()), of_versions.clone()] {
        let message = refused(&daemon, &ListRequest { cursor, ..ListRequest::default() }).await;
        assert!(message.contains("next_cursor"), "{message}");
    }
    let both = ListTokensRequest { cursor: of_versions, offset: Some(1), ..ListTokensRequest::default() };
    assert!(refused(&daemon, &both).await.contains("not both"));
    let logs = LogsRequest { function_id: "f".into(), limit: Some(10_001), ..LogsRequest::default() };
    assert!(refused(&daemon, &logs).await.contains("10000"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_fetches_all_pages() {
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    // Two rows fill a page.
    command.env("LEVAIN_LIMITS_FRAME_BYTES_MAX", "131072").env("LEVAIN_VERSIONING_VERIFY", "syntax");
    let daemon = DaemonProcess::spawn(command, data.path()).await;
    let path = data.path().join("f.js");
    let reason = "x".repeat(4_096);
    for number in 0..20 {
        std::fs::write(&path, code(&number.to_string())).unwrap();
        daemon.cli(&["deploy", "f", path.to_str().unwrap(), "--reason", &reason]).await.ok();
    }
    let count = async |arguments: &[&str], rows: &str| {
        let shown = daemon.cli(&[arguments, &["--json"]].concat()).await.json();
        shown[rows].as_array().unwrap().len()
    };
    assert_eq!(count(&["deployments", "f", "--all"], "deployments").await, 20);
    assert_eq!(count(&["deployments", "f", "--limit", "18"], "deployments").await, 18);
    assert_eq!(count(&["versions", "f"], "versions").await, 20);
    assert_eq!(count(&["versions", "f", "--limit", "3"], "versions").await, 3);
    daemon.kill().await;
}
