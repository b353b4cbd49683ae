//! Secrets beside plain variables: how each command treats them, who has changed them, and who sees them.

use super::{READER, delete, set, strings};
use crate::harness::{DaemonProcess, TestDaemon, is_refused};
use levain::{
    error::ErrorCode,
    model::{SecretAction, SecretText},
    protocol::message::{
        DeleteRequest, DeleteVariablesRequest, ListVariablesRequest, SecretAuditRequest, SetVariablesRequest,
    },
};

/// Deploys `f` with the secret `KEY` and the plain variable `WORD`.
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
    assert!(warning.starts_with("KEY, TOO: visible in every environment"), "{warning}");
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
        assert!(outcome.unwrap_err().message.contains("empty"));
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
    let rows =
        daemon.call(&SecretAuditRequest { function_id: Some(id.to_string()), limit: None }).await.unwrap().entries;
    let first = &rows[0];
    assert_eq!(
        (first.action, first.key.as_ref().map(ToString::to_string).as_deref()),
        (SecretAction::Delete, Some("KEY")),
        "{rows:?}"
    );
    assert_eq!(first.actor, format!("uid:{}", nix::unistd::getuid()));
    assert!(rows.iter().all(|it| it.function_id == Some(id.to_string())) && rows.len() > 1, "{rows:?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_about_secrets_leaves_plain_variables_alone() {
    let daemon = start().await;
    let rotate =
        SetVariablesRequest { only_existing: true, ..secret(&[("KEY", "another2another2"), ("WORD", "secret")]) };
    let outcome = daemon.call(&rotate).await;
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    assert!(outcome.unwrap_err().message.contains("WORD is a plain variable"));
    let both = DeleteVariablesRequest { only_secrets: true, ..delete(Some("f"), None, &["KEY", "WORD"]) };
    let outcome = daemon.call(&both).await;
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    assert!(outcome.unwrap_err().message.contains("WORD is a plain variable"));
    let listed = ListVariablesRequest { function_id: Some("f".into()), ..ListVariablesRequest::default() };
    let listed = daemon.call(&listed).await.unwrap().variables;
    assert_eq!((listed[0].generation, listed[1].value.as_deref()), (Some(1), Some("plain")), "{listed:?}");
    // On request, a plain variable becomes a secret, and stays one.
    daemon.call(&secret(&[("WORD", "secret2secret2")])).await.unwrap();
    assert_eq!(daemon.call(&both).await.unwrap().deleted, strings(&["KEY", "WORD"]));
    let plain = SetVariablesRequest { is_secret: Some(false), ..set(Some("f"), None, &[("KEY", "x")]) };
    daemon.call(&secret(&[("KEY", "hunter2hunter2")])).await.unwrap();
    let message = daemon.call(&plain).await.unwrap_err().message;
    assert_eq!(message, "KEY is a secret, and stays one when it is set: delete it first to make it a plain variable");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_variables_and_too_many_of_them_are_told_so() {
    let daemon = TestDaemon::start_with(|config| config.variables.count_max = 2).await;
    daemon.register("f").await;
    let empty = SetVariablesRequest {
        function_id: Some("f".into()),
        dotenv: Some(SecretText::from("# nothing\n\n".to_owned())),
        ..SetVariablesRequest::default()
    };
    let message = daemon.call(&empty).await.unwrap_err().message;
    assert_eq!(message, "nothing is set: the .env text has no variable");
    let message = daemon.call(&set(Some("f"), None, &[("A", ""), ("B", ""), ("C", "")])).await.unwrap_err().message;
    assert!(message.contains("variables.count_max") && message.contains("variables.total_bytes_max"), "{message}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_takes_secrets_for_secrets() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    daemon.cli(&["register", "f"]).await.ok();
    daemon.cli(&["env", "set", "f", "WORD=plain"]).await.ok();
    let refused = daemon.cli(&["secret", "delete", "f", "WORD", "--yes"]).await;
    assert!(refused.code != Some(0) && refused.stderr.contains("WORD is a plain variable"), "{refused:?}");
    let refused = daemon.cli(&["secret", "set", "f", "KEY", "hunter2value"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("value is not an argument") && !refused.stderr.contains("hunter2"), "{refused:?}");
    daemon.kill().await;
}
