//! Secrets and plain variables beside each other: what each command takes for what, who has done it, and who sees it.

use super::{READER, delete, set, strings};
use crate::harness::{DaemonProcess, TestDaemon, is_refused};
use levain::{
    error::ErrorCode,
    model::{SecretAction, SecretText},
    protocol::message::{
        DeleteRequest, DeleteVariablesRequest, ListVariablesRequest, SecretAuditRequest, SetVariablesRequest,
    },
};

/// `f` with the secret `KEY` and the plain variable `WORD`.
async fn start() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", READER).await;
    daemon.call(&secret(&[("KEY", "hunter2hunter2")])).await.unwrap();
    daemon.call(&set(Some("f"), None, &[("WORD", "plain")])).await.unwrap();
    daemon
}

fn secret(pairs: &[(&str, &str)]) -> SetVariablesRequest {
    SetVariablesRequest { is_secret: Some(true), ..set(Some("f"), None, pairs) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_for_all_environments_is_said_to_be_seen_everywhere() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let everywhere = daemon.call(&secret(&[("KEY", "hunter2hunter2"), ("TOO", "hunter2hunter2")])).await.unwrap();
    let [warning] = everywhere.warnings.as_slice() else { panic!("{everywhere:?}") };
    assert!(warning.starts_with("KEY, TOO: every environment sees"), "{warning}");
    assert!(warning.contains("previews") && warning.contains("-e production"), "{warning}");
    let here = set(Some("f"), Some("production"), &[("KEY", "hunter2hunter2")]);
    let here = daemon.call(&SetVariablesRequest { is_secret: Some(true), ..here }).await.unwrap();
    assert!(here.warnings.is_empty(), "{here:?}");
    let plain = daemon.call(&set(Some("f"), None, &[("WORD", "plain")])).await.unwrap();
    assert!(plain.warnings.is_empty(), "{plain:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_never_empty() {
    let daemon = start().await;
    for request in [set(Some("f"), None, &[("KEY", "")]), secret(&[("KEY", "")]), secret(&[("NEW", "")])] {
        let outcome = daemon.call(&request).await;
        assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{outcome:?}");
        assert!(outcome.unwrap_err().message.contains("is not empty"));
    }
    daemon.call(&set(Some("f"), None, &[("WORD", "")])).await.unwrap();
    let listed = ListVariablesRequest { function_id: Some("f".into()), ..ListVariablesRequest::default() };
    let listed = daemon.call(&listed).await.unwrap().variables;
    assert_eq!((listed.len(), listed[0].generation), (2, Some(1)), "{listed:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_of_a_deleted_function_says_who_deleted_it() {
    let daemon = start().await;
    let id = daemon.call(&DeleteRequest { function_id: "f".into() }).await.unwrap().function_id;
    let rows = daemon.call(&SecretAuditRequest { function_id: Some(id.clone()), limit: None }).await.unwrap().entries;
    let first = &rows[0];
    assert_eq!((first.action, first.key.as_deref()), (SecretAction::Delete, Some("KEY")), "{rows:?}");
    assert_eq!(first.actor, format!("uid:{}", nix::unistd::getuid()));
    assert!(rows.iter().all(|it| it.function_id.as_ref() == Some(&id)) && rows.len() > 1, "{rows:?}");
    for unknown in ["f", "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab"] {
        let request = SecretAuditRequest { function_id: Some(unknown.into()), limit: None };
        assert!(is_refused(&daemon.call(&request).await, ErrorCode::FunctionNotFound), "{unknown}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_is_not_there_has_no_list() {
    let daemon = start().await;
    for (function, resolved) in [(Some("f"), false), (Some("f"), true), (None, false)] {
        let request = ListVariablesRequest {
            function_id: function.map(str::to_owned),
            environment: Some("prodution".into()),
            resolved,
            reveal: false,
        };
        let outcome = daemon.call(&request).await;
        assert!(is_refused(&outcome, ErrorCode::EnvironmentNotFound), "{outcome:?}");
        assert!(outcome.unwrap_err().details.unwrap().to_string().contains("production"));
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_has_a_limit_like_every_list() {
    let daemon = start().await;
    for (limit, is_right) in [(0, false), (1, true), (1_000, true), (1_001, false), (99_999_999, false)] {
        let outcome = daemon.call(&SecretAuditRequest { function_id: None, limit: Some(limit) }).await;
        assert_eq!(outcome.is_ok(), is_right, "{limit}: {outcome:?}");
        assert!(is_right || is_refused(&outcome, ErrorCode::InvalidRequest));
    }
    daemon.stop().await;
}
