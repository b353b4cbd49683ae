//! CREATE_TOKEN, LIST_TOKENS and REVOKE_TOKEN; the token made by the first start; and the secrecy of tokens.

use crate::harness::{DaemonProcess, TestDaemon, is_refused};
use levain::{
    error::{Error, ErrorCode},
    model::{Auth, Scope, SettingsPatch, Timestamp, TokenSecret, token::TokenStatus},
    protocol::message::{
        CreateTokenRequest, CreateTokenResponse, DeleteRequest, ListTokensRequest, RevokeTokenRequest, TokenInfo,
    },
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn request(name: &str, scopes: &[Scope]) -> CreateTokenRequest {
    CreateTokenRequest { name: name.into(), scopes: scopes.to_vec(), ..CreateTokenRequest::default() }
}

async fn create(daemon: &TestDaemon, name: &str) -> CreateTokenResponse {
    daemon.call(&request(name, &[Scope::Read])).await.unwrap()
}

async fn revoke(daemon: &TestDaemon, token: &str) -> Result<TokenInfo, Error> {
    daemon.call(&RevokeTokenRequest { token_id: token.into() }).await
}

/// Tokens except the one made by the first start.
async fn list(daemon: &TestDaemon, all: bool) -> Vec<TokenInfo> {
    let response = daemon.call(&ListTokensRequest { all, ..ListTokensRequest::default() }).await.unwrap();
    response.tokens.into_iter().filter(|it| !it.name.starts_with("admin")).collect()
}

async fn admins(daemon: &TestDaemon) -> Vec<TokenInfo> {
    let request = ListTokensRequest { all: true, ..ListTokensRequest::default() };
    let tokens = daemon.call(&request).await.unwrap().tokens;
    tokens.into_iter().filter(|it| it.name.starts_with("admin")).collect()
}

fn names(tokens: &[TokenInfo]) -> Vec<&str> {
    tokens.iter().map(|it| it.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_listed_and_revoked() {
    let mut daemon = TestDaemon::start().await;
    daemon.register("hello").await;
    let before = Timestamp::now();
    let request = CreateTokenRequest {
        function_id: Some("hello".into()),
        expires_in: Some("30d".into()),
        ..request("ci", &[Scope::Read, Scope::Deploy, Scope::Read])
    };
    let made = daemon.call(&request).await.unwrap();
    let info = &made.info;
    assert!(
        TokenSecret::parse(made.token.reveal()).is_some() && info.token_id.to_string().starts_with("token-"),
        "{info:?}"
    );
    assert_eq!((&info.scopes[..], info.function.as_deref()), (&[Scope::Deploy, Scope::Read][..], Some("hello")));
    let days = (info.expires_at.unwrap().as_millis() - before.as_millis()) / 86_400_000;
    assert_eq!((days, info.status), (30, TokenStatus::Valid));
    assert_eq!(info.actor, format!("uid:{}", nix::unistd::getuid()));
    assert_ne!(create(&daemon, "other").await.token, made.token);
    daemon.restart().await;
    let listed = list(&daemon, false).await;
    assert_eq!((names(&listed), &listed[0]), (vec!["ci", "other"], info));
    let revoked = revoke(&daemon, "ci").await.unwrap();
    assert!(revoked.status == TokenStatus::Revoked && revoked.revoked_at >= Some(before), "{revoked:?}");
    assert_eq!(names(&list(&daemon, false).await), ["other"]);
    daemon.restart().await;
    let all = list(&daemon, true).await;
    assert_eq!((names(&all), &all[0]), (vec!["ci", "other"], &revoked));
    // The name is free again; the revoked token is still found by its id, and does not change.
    let again = create(&daemon, "ci").await;
    assert_eq!(revoke(&daemon, &revoked.token_id.to_string()).await.unwrap(), revoked);
    assert_eq!(revoke(&daemon, "ci").await.unwrap().token_id, again.info.token_id);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_named_by_its_name_its_id_or_the_beginning_of_that() {
    let daemon = TestDaemon::start().await;
    let id = |it: &TokenInfo| it.token_id.to_string();
    let (one, two) = (id(&create(&daemon, "one").await.info), id(&create(&daemon, "two").await.info));
    assert!(is_refused(&revoke(&daemon, "token-").await, ErrorCode::Conflict));
    for unknown in ["", "on", "token-0000", "One", "lvn_"] {
        assert!(is_refused(&revoke(&daemon, unknown).await, ErrorCode::TokenNotFound), "{unknown}");
    }
    let admin = id(&admins(&daemon).await[0]);
    let common = |a: &str, b: &str| {
        let pairs = a.bytes().zip(b.bytes());
        pairs.take_while(|(a, b)| a == b).count()
    };
    // The first start's token may share as long a prefix as these two do.
    let shared = common(&one, &two).max(common(&one, &admin));
    assert!(is_refused(&revoke(&daemon, &one[..shared]).await, ErrorCode::Conflict));
    assert_eq!(revoke(&daemon, &one[..=shared]).await.unwrap().name, "one");
    // A revoked token is still found.
    let shared = common(&two, &one).max(common(&two, &admin));
    assert_eq!(revoke(&daemon, &two["token-".len()..=shared]).await.unwrap().name, "two");
    assert!(list(&daemon, false).await.is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused() {
    let daemon = TestDaemon::start().await;
    create(&daemon, "taken").await;
    let span = |span: &str| CreateTokenRequest { expires_in: Some(span.into()), ..request("a", &[Scope::Read]) };
    let past = Some(Timestamp::from_millis(1));
    let cases = [
        (request("taken", &[Scope::Read]), ErrorCode::Conflict),
        (request("a", &[]), ErrorCode::InvalidRequest),
        (request("a b", &[Scope::Read]), ErrorCode::InvalidRequest),
        (request("token-0190c1d2-aaaa-7bbb-8ccc-0123456789ab", &[Scope::Read]), ErrorCode::InvalidRequest),
        (span("soon"), ErrorCode::InvalidRequest),
        (span("0d"), ErrorCode::InvalidRequest),
        (CreateTokenRequest { expires_at: past, ..request("a", &[Scope::Read]) }, ErrorCode::InvalidRequest),
        (CreateTokenRequest { expires_at: past, ..span("1d") }, ErrorCode::InvalidRequest),
        (
            CreateTokenRequest { function_id: Some("none".into()), ..request("a", &[Scope::Read]) },
            ErrorCode::FunctionNotFound,
        ),
    ];
    for (request, code) in cases {
        assert!(is_refused(&daemon.call(&request).await, code), "{request:?}");
    }
    assert_eq!(names(&list(&daemon, true).await), ["taken"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_deleted_function_stays_for_audit() {
    let daemon = TestDaemon::start().await;
    daemon.register("hello").await;
    let request = CreateTokenRequest { function_id: Some("hello".into()), ..request("ci", &[Scope::Invoke]) };
    let made = daemon.call(&request).await.unwrap().info;
    daemon.call(&DeleteRequest { function_id: "hello".into() }).await.unwrap();
    daemon.register("hello").await;
    let listed = &list(&daemon, false).await[0];
    assert_eq!((&listed.function_id, &listed.function), (&made.function_id, &None));
    daemon.stop().await;
}

fn admin_file(daemon: &TestDaemon) -> PathBuf {
    daemon.data_dir().join("admin.token")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_an_admin_token_and_a_later_one_only_when_it_is_gone() {
    let mut daemon = TestDaemon::start().await;
    let file = admin_file(&daemon);
    let first = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(first.ends_with('\n') && TokenSecret::parse(first.trim()).is_some());
    let token = &admins(&daemon).await[0];
    assert_eq!(
        (&token.scopes[..], token.actor.as_str(), token.name.as_str()),
        (&[Scope::Admin][..], "daemon", "admin")
    );

    // The token is valid, with or without its file.
    daemon.restart().await;
    daemon.restart_with(|_| fs::remove_file(&file).unwrap()).await;
    assert!(admins(&daemon).await.len() == 1 && !file.exists());

    // A revoked token whose file remains was revoked on purpose.
    fs::write(&file, &first).unwrap();
    revoke(&daemon, "admin").await.unwrap();
    daemon.restart().await;
    assert_eq!(admins(&daemon).await.len(), 1);

    daemon.restart_with(|_| fs::remove_file(&file).unwrap()).await;
    let second = fs::read_to_string(&file).unwrap();
    let status: Vec<TokenStatus> = admins(&daemon).await.iter().map(|it| it.status).collect();
    assert_eq!(status, [TokenStatus::Revoked, TokenStatus::Valid]);
    assert_ne!(first, second);
    daemon.stop().await;
}

/// Daemons that are killed at their first start, before the row is written and after.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_was_interrupted_is_finished_by_the_next() {
    for step in ["store.before_commit", "store.committed"] {
        let data = tempfile::tempdir().unwrap();
        let mut command = DaemonProcess::serve(data.path()).await;
        command.env("LEVAIN_CRASH_AT", step);
        assert!(DaemonProcess::try_spawn(command, data.path()).await.is_err(), "{step}");
        let file = data.path().join("admin.token");
        let secret = fs::read_to_string(&file).unwrap();
        let daemon = DaemonProcess::start(data.path()).await;
        assert_eq!(fs::read_to_string(&file).unwrap(), secret, "{step}");
        let tokens = daemon.cli(&["--json", "token", "list", "--all"]).await.json();
        assert_eq!((&tokens["total"], &tokens["tokens"][0]["status"]), (&1.into(), &"valid".into()), "{step}");
        daemon.kill().await;
    }
}

/// Every file below a folder that contains a text.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if kind.is_file() && fs::read(&path).unwrap().windows(text.len()).any(|it| it == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

/// Lists all tokens over HTTP with this token, and returns the answer.
async fn ask(daemon: &DaemonProcess, token: &str) -> String {
    let log = daemon.stderr();
    let begin = log.find("127.0.0.1:").expect("the daemon says where it listens");
    let is_address = |it: &char| it.is_ascii_digit() || ".:".contains(*it);
    let address: String = log[begin..].chars().take_while(is_address).collect();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head =
        format!("GET /api/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_its_one_answer_and_nowhere_else() {
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("LEVAIN_DAEMON_LOG_LEVEL", "trace").env("LEVAIN_HTTP_ADDRESS", "127.0.0.1:0");
    let daemon = DaemonProcess::spawn(command, data.path()).await;
    let made =
        daemon.cli(&["--json", "token", "create", "ci", "--scope", "read,invoke", "--expires", "1h"]).await.json();
    let secret = made["token"].as_str().unwrap().to_owned();
    let shown = daemon.cli(&["token", "create", "two", "--scope", "read"]).await.ok();
    let second = shown.split_whitespace().nth(1).unwrap().to_owned();
    assert!(TokenSecret::parse(&secret).is_some() && TokenSecret::parse(&second).is_some(), "{shown}");
    let mut told = String::new();
    let wrong = TokenSecret::new([9; 32]).reveal().to_owned();
    for (token, status) in [(&secret, "403"), (&second, "403"), (&wrong, "401")] {
        let answer = ask(&daemon, token).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        told += &answer;
    }
    for arguments in [
        &["token", "list", "--all"][..],
        &["--json", "token", "list", "--all"],
        &["token", "create", "ci", "--scope", "read"],
        &["token", "revoke", "ci"],
        &["token", "revoke", "ci", "--yes"],
        &["token", "revoke", &made["token_id"].as_str().unwrap()[..20], "--yes"],
        &["status"],
    ] {
        let output = daemon.cli(arguments).await;
        told += &format!("{}{}", output.stdout, output.stderr);
    }
    assert!(told.contains("revoked") && told.contains("two"), "{told}");
    told += &daemon.stderr();
    let admin = fs::read_to_string(data.path().join("admin.token")).unwrap().trim().to_owned();
    assert!(told.contains("a token is refused"), "{told}");
    for secret in [&secret, &second, &admin, &wrong] {
        // The token appears neither whole nor without its common prefix.
        assert!(!told.contains(&secret[4..]), "{told}");
        let expected = if *secret == admin { vec![data.path().join("admin.token")] } else { Vec::new() };
        assert_eq!(files_with(data.path(), &secret[4..]), expected);
    }
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setting_auth_is_kept_and_means_nothing_on_the_command_socket() {
    let mut daemon = TestDaemon::start_with(|config| config.functions.auth = levain::model::Auth::Token).await;
    daemon.deploy_text("f", "export default () => new Response('open');").await;
    assert_eq!(daemon.info("f").await.settings.auth, Auth::Token);
    daemon.restart().await;
    assert_eq!(daemon.info("f").await.settings.auth, Auth::Token);
    assert_eq!(daemon.invoke("f").await.unwrap().status, 200);
    let public = SettingsPatch { auth: Some(Auth::Public), ..SettingsPatch::default() };
    assert_eq!(daemon.update("f", public).await.unwrap().settings.auth, Auth::Public);
    assert_eq!(
        daemon.versions("f").await[0].settings.auth,
        Auth::Token,
        "the version keeps the setting of its publication"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_tells_of_tokens_and_of_auth() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    daemon.cli(&["register", "hello", "--auth", "token"]).await.ok();
    assert!(daemon.cli(&["config-of", "hello"]).await.ok().contains("auth                       token"));
    daemon.cli(&["config-of", "hello", "auth=public"]).await.ok();
    let made = daemon.cli(&["token", "create", "ci", "--scope", "invoke", "--function", "hello"]).await.ok();
    assert!(made.contains("function  hello") && made.contains("cannot be shown again"), "{made}");
    let list = daemon.cli(&["token", "list"]).await.ok();
    assert!(list.contains("admin") && list.contains("ci") && list.contains("never"), "{list}");
    let unsure = daemon.cli(&["token", "revoke", "ci"]).await;
    assert!(unsure.code == Some(2) && unsure.stderr.contains("--yes"), "{unsure:?}");
    assert_eq!(daemon.cli(&["token", "revoke", "nobody", "--yes"]).await.code, Some(3));
    assert!(daemon.cli(&["token", "revoke", "ci", "--yes"]).await.ok().contains("ci revoked"));
    daemon.kill().await;
}
