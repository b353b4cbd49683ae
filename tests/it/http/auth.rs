//! Tokens, as seen by callers over HTTP.

use super::{Shown, curl, daemon};
use crate::harness::{TestDaemon, until};
use levain::{
    error::ErrorCode,
    model::{Auth, Scope, SettingsPatch},
    protocol::message::{
        CreateEnvironmentRequest, CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, SetEnvironmentRequest,
        TokenInfo,
    },
};
use std::fs;

const CODE: &str = "export default (req) => Response.json([...req.headers.keys()]);";

/// Starts a daemon with the public function `open`, and `f` and `g`, which require a token.
async fn with_functions() -> TestDaemon {
    let daemon = daemon().await;
    let token = SettingsPatch { auth: Some(Auth::Token), ..SettingsPatch::default() };
    for name in ["open", "f", "g"] {
        daemon.deploy_text(name, CODE).await;
    }
    for name in ["f", "g"] {
        daemon.update(name, token).await.unwrap();
    }
    daemon
}

async fn token(daemon: &TestDaemon, name: &str, scope: Scope, function: Option<&str>) -> String {
    token_for(daemon, name, scope, function, None).await
}

async fn token_for(
    daemon: &TestDaemon,
    name: &str,
    scope: Scope,
    function: Option<&str>,
    span: Option<&str>,
) -> String {
    let request = CreateTokenRequest {
        name: name.into(),
        scopes: vec![scope],
        function_id: function.map(str::to_owned),
        expires_in: span.map(str::to_owned),
        expires_at: None,
    };
    daemon.call(&request).await.unwrap().token.reveal().to_owned()
}

async fn with(daemon: &TestDaemon, token: &str, path: &str) -> Shown {
    curl(daemon, &["-H", &format!("Authorization: Bearer {token}")], path).await
}

fn code(shown: &Shown) -> (u16, Option<String>) {
    (shown.status(), shown.json()["code"].as_str().map(str::to_owned))
}

fn refusal(code: ErrorCode) -> (u16, Option<String>) {
    (code.http_status(), Some(code.as_str().to_owned()))
}

async fn info(daemon: &TestDaemon, name: &str) -> TokenInfo {
    let tokens = daemon.call(&ListTokensRequest { all: true, ..ListTokensRequest::default() }).await.unwrap().tokens;
    tokens.into_iter().find(|it| it.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_with_auth_wants_a_token_that_may_call_it() {
    let mut daemon = with_functions().await;
    assert_eq!(curl(&daemon, &[], "/functions/open").await.status(), 200);
    assert_eq!(with(&daemon, "lvn_wrong", "/functions/open").await.status(), 200, "a token is not needed");
    let missing = curl(&daemon, &["-d", "a body"], "/functions/f").await;
    assert_eq!((code(&missing), missing.header("www-authenticate")), (refusal(ErrorCode::Unauthorized), "Bearer"));
    assert!(missing.json()["error"].as_str().unwrap().contains("Authorization: Bearer"), "{missing:?}");
    let all = token(&daemon, "all", Scope::Invoke, None).await;
    let own = token(&daemon, "own", Scope::Invoke, Some("f")).await;
    let reader = token(&daemon, "reader", Scope::Read, None).await;
    let admin = fs::read_to_string(daemon.data_dir().join("admin.token")).unwrap().trim().to_owned();
    for restart in [false, true] {
        if restart {
            daemon.restart().await;
        }
        for token in [&all, &own, &admin] {
            assert_eq!(with(&daemon, token, "/functions/f").await.status(), 200);
        }
        for path in ["/functions/g", "/functions/g:v1/deep", "/functions/g%3ALIVE"] {
            assert_eq!(with(&daemon, &all, path).await.status(), 200, "{path}");
            assert_eq!(code(&with(&daemon, &own, path).await), refusal(ErrorCode::Forbidden), "{path}");
        }
        let host = format!("http://g.localhost:{}/", daemon.http().port());
        assert_eq!(code(&with(&daemon, &own, &host).await), refusal(ErrorCode::Forbidden));
        let shown = with(&daemon, &reader, "/functions/f").await;
        assert_eq!(code(&shown), refusal(ErrorCode::Forbidden));
        assert!(shown.json()["error"].as_str().unwrap().contains("`invoke`"), "{shown:?}");
        for wrong in [&all[..all.len() - 1], &all[4..], "", "lvn_"] {
            let shown = with(&daemon, wrong, "/functions/f").await;
            assert_eq!((code(&shown), shown.header("www-authenticate")), (refusal(ErrorCode::Unauthorized), "Bearer"));
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_does_not_see_the_token_and_sees_what_else_it_is_sent() {
    let daemon = with_functions().await;
    let token = token(&daemon, "t", Scope::Invoke, None).await;
    let seen = with(&daemon, &token, "/functions/f").await.json();
    assert!(!seen.as_array().unwrap().contains(&"authorization".into()), "{seen}");
    let seen = with(&daemon, "the function's own", "/functions/open").await.json();
    assert!(seen.as_array().unwrap().contains(&"authorization".into()), "{seen}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_and_expiry_count_at_once_and_look_the_same() {
    let daemon = with_functions().await;
    let revoked = token(&daemon, "revoked", Scope::Invoke, None).await;
    let expired = token_for(&daemon, "expired", Scope::Invoke, None, Some("3s")).await;
    for token in [&revoked, &expired] {
        assert_eq!(with(&daemon, token, "/functions/f").await.status(), 200);
    }
    daemon.call(&RevokeTokenRequest { token_id: "revoked".into() }).await.unwrap();
    let message = |shown: &Shown| shown.json()["error"].as_str().unwrap().to_owned();
    let first = with(&daemon, &revoked, "/functions/f").await;
    assert_eq!(code(&first), refusal(ErrorCode::Unauthorized));
    until("the other one expires", || async {
        let info = info(&daemon, "expired").await;
        (info.status == levain::model::token::TokenStatus::Expired).then_some(())
    })
    .await;
    let second = with(&daemon, &expired, "/functions/f").await;
    let third = with(&daemon, "lvn_nobody", "/functions/f").await;
    assert_eq!((code(&second), code(&third)), (code(&first), code(&first)));
    assert_eq!((message(&first), message(&first)), (message(&second), message(&third)));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_known_at_once_and_after_a_restart() {
    let mut daemon = with_functions().await;
    let token = token(&daemon, "t", Scope::Invoke, None).await;
    assert_eq!(info(&daemon, "t").await.last_used_at, None);
    assert_eq!(with(&daemon, &token, "/functions/f").await.status(), 200);
    let used = info(&daemon, "t").await.last_used_at;
    assert!(used.is_some());
    daemon.restart().await;
    assert_eq!(info(&daemon, "t").await.last_used_at, used);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_wrong_tokens_are_put_off_and_a_valid_one_is_not() {
    let daemon = with_functions().await;
    let token = token(&daemon, "t", Scope::Invoke, None).await;
    for _ in 0..10 {
        assert_eq!(code(&with(&daemon, "lvn_guess", "/functions/f").await), refusal(ErrorCode::Unauthorized));
    }
    let shown = with(&daemon, "lvn_guess", "/functions/g").await;
    assert_eq!(code(&shown), refusal(ErrorCode::Overloaded));
    let wait: u64 = shown.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait) && shown.json()["details"]["retry_after_ms"].as_u64().unwrap() <= 60_000);
    assert_eq!(with(&daemon, &token, "/functions/f").await.status(), 200);
    assert_eq!(
        code(&curl(&daemon, &[], "/functions/f").await),
        refusal(ErrorCode::Unauthorized),
        "a request without a token does not count as an attempt"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_deploys_changes_no_variable_that_a_protected_environment_finds() {
    let daemon = with_functions().await;
    for (name, parent, protected) in [("base", None, false), ("vault", Some("base"), true)] {
        let (name, parent) = (name.to_owned(), parent.map(str::to_owned));
        daemon.call(&CreateEnvironmentRequest { name, parent, protected, allow: false }).await.unwrap();
    }
    let deployer = token(&daemon, "deployer", Scope::Deploy, None).await;
    let own = token(&daemon, "own", Scope::Deploy, Some("f")).await;
    let admin = token(&daemon, "boss", Scope::Admin, None).await;
    let set = async |token: &str, place: &str, value: &str| {
        let body = format!("{{\"key\": \"K\", \"value\": \"{value}\", \"is_secret\": true{place}}}");
        let header = format!("Authorization: Bearer {token}");
        curl(&daemon, &["-H", &header, "-d", &body], "/api/functions/f/env").await
    };
    let delete = async |token: &str, query: &str| {
        let header = format!("Authorization: Bearer {token}");
        curl(&daemon, &["-H", &header, "-X", "DELETE"], &format!("/api/functions/f/env/K{query}")).await
    };
    // The protected environment itself, the parent that it takes variables from, and the variables of all environments.
    let guarded = [
        (", \"environment\": \"vault\"", "?environment=vault"),
        (", \"environment\": \"base\"", "?environment=base"),
        ("", ""),
    ];
    for (place, query) in guarded {
        for token in [&deployer, &own] {
            let shown = set(token, place, "of-the-deployer").await;
            assert_eq!(code(&shown), refusal(ErrorCode::Forbidden), "{place}: {shown:?}");
            let (error, details) = (shown.json()["error"].clone(), shown.json()["details"].clone());
            assert!(error.as_str().unwrap().contains("vault is protected"), "{error}");
            assert_eq!((&details["needed"], &details["environment"]), (&"admin".into(), &"vault".into()));
        }
        let shown = set(&admin, place, "of-the-boss").await;
        assert_eq!(shown.status(), 200, "{shown:?}");
        assert_eq!(code(&delete(&deployer, query).await), refusal(ErrorCode::Forbidden), "{query}");
    }
    // Other environments are open, and so are all once the protection is lifted.
    let staging = (", \"environment\": \"staging\"", "?environment=staging");
    assert_eq!(set(&own, staging.0, "of-the-deployer").await.status(), 200);
    assert_eq!(delete(&own, staging.1).await.status(), 200);
    let end =
        SetEnvironmentRequest { name: "vault".into(), protected: Some(false), ..SetEnvironmentRequest::default() };
    daemon.call(&end).await.unwrap();
    for (place, query) in guarded {
        assert_eq!(set(&deployer, place, "of-the-deployer").await.status(), 200, "{place}");
        assert_eq!(delete(&deployer, query).await.status(), 200, "{query}");
    }
    daemon.stop().await;
}
