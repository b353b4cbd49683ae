//! CREATE_ENVIRONMENT, SET_ENVIRONMENT, GET_ENVIRONMENT, LIST_ENVIRONMENTS, DELETE_ENVIRONMENT and COMPARE_ENVIRONMENTS.

use crate::harness::{Load, TestDaemon, is_refused, json, text};
use levain::{
    error::{Error, ErrorCode},
    model::{SecretAction, SettingsPatch},
    protocol::{
        field::Body,
        message::{
            CompareEnvironmentsRequest, ComparedFunction, ComparedState, CreateEnvironmentRequest, DecideRequest,
            DeleteAliasRequest, DeleteEnvironmentRequest, DeleteRequest, DeployRequest, EnvironmentInfo,
            EnvironmentRequest, EnvironmentsRequest, SecretAuditRequest, SetAliasRequest, SetEnvironmentRequest,
            SetTrafficRequest, SetVariablesRequest, VersionRef,
        },
    },
};
use std::collections::HashSet;

async fn protect(daemon: &TestDaemon, name: &str, protected: bool) -> EnvironmentInfo {
    daemon
        .call(&SetEnvironmentRequest {
            name: name.into(),
            protected: Some(protected),
            ..SetEnvironmentRequest::default()
        })
        .await
        .expect("the environment is there")
}

async fn environments(daemon: &TestDaemon) -> Vec<(String, bool, u32)> {
    let environments = daemon.call(&EnvironmentsRequest::default()).await.unwrap().environments;
    environments.into_iter().map(|it| (it.name.to_string(), it.protected, it.aliases)).collect()
}

fn to(alias: &str, environment: Option<&str>) -> SetAliasRequest {
    SetAliasRequest {
        function_id: "f".into(),
        name: alias.into(),
        version: VersionRef::Number(1),
        environment: environment.map(Into::into),
        description: None,
        reason: None,
        dry_run: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_are_listed_and_their_protection_survives_a_restart() {
    let mut daemon = TestDaemon::start().await;
    daemon.deploy_text("f", "export default () => new Response('a');").await;
    daemon.call(&to("canary", None)).await.unwrap();
    let changed = protect(&daemon, "production", true).await;
    assert_eq!((changed.name.as_str(), changed.protected, changed.aliases), ("production", true, 2));
    assert_eq!(changed.parent, None);
    daemon.restart().await;
    let expected = [("dev", false, 0), ("preview", false, 0), ("production", true, 2), ("staging", false, 0)];
    let expected = expected.map(|(name, protected, aliases)| (name.to_owned(), protected, aliases));
    assert_eq!(environments(&daemon).await, expected);
    assert!(!protect(&daemon, "production", false).await.protected);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_is_not_there_is_answered_with_those_that_are() {
    let daemon = TestDaemon::start().await;
    let before = environments(&daemon).await;
    let outcome = daemon
        .call(&SetEnvironmentRequest { name: "moon".into(), protected: Some(true), ..SetEnvironmentRequest::default() })
        .await;
    assert!(is_refused(&outcome, ErrorCode::EnvironmentNotFound), "{outcome:?}");
    assert!(outcome.unwrap_err().details.unwrap().to_string().contains("staging"));
    let outcome = daemon
        .call(&SetEnvironmentRequest { name: "a b".into(), protected: Some(true), ..SetEnvironmentRequest::default() })
        .await;
    assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{outcome:?}");
    assert_eq!(environments(&daemon).await, before);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_out_of_a_protected_environment() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", "export default () => new Response('a');").await;
    daemon.call(&to("canary", None)).await.unwrap();
    protect(&daemon, "production", true).await;
    let delete_alias = DeleteAliasRequest { function_id: "f".into(), name: "canary".into() };
    let delete = DeleteRequest { function_id: "f".into() };
    let outcomes = [
        daemon.call(&to("canary", Some("dev"))).await.map(drop),
        daemon.call(&SetAliasRequest { dry_run: true, ..to("canary", Some("dev")) }).await.map(drop),
        daemon.call(&delete_alias).await.map(drop),
        daemon.call(&delete).await.map(drop),
    ];
    for outcome in outcomes {
        assert!(is_refused(&outcome, ErrorCode::ApprovalRequired), "{outcome:?}");
        assert!(outcome.unwrap_err().message.contains("levain environments unprotect production"));
    }
    assert!(daemon.invoke("f:canary").await.is_ok() && daemon.invoke("f").await.is_ok());
    protect(&daemon, "production", false).await;
    assert_eq!(daemon.call(&to("canary", Some("dev"))).await.unwrap().environment, "dev");
    daemon.call(&delete_alias).await.unwrap();
    daemon.call(&delete).await.unwrap();
    daemon.stop().await;
}

fn named(name: &str) -> CreateEnvironmentRequest {
    CreateEnvironmentRequest { name: name.into(), ..CreateEnvironmentRequest::default() }
}

async fn set_parent(daemon: &TestDaemon, name: &str, parent: &str, allow: bool) -> Result<Option<String>, Error> {
    let (name, parent) = (name.into(), Some(parent.into()));
    let request = SetEnvironmentRequest { name, parent, allow, protected: None };
    daemon.call(&request).await.map(|it| it.parent)
}

async fn delete(daemon: &TestDaemon, name: &str) -> Result<EnvironmentInfo, Error> {
    daemon.call(&DeleteEnvironmentRequest { name: name.into() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_made_used_and_deleted_when_nothing_uses_it() {
    let mut daemon = TestDaemon::start().await;
    daemon.deploy_text("f", "export default (req, ctx) => new Response(ctx.environment);").await;
    let parent = Some("staging".to_owned());
    let made = daemon.call(&CreateEnvironmentRequest { parent: parent.clone(), ..named("qa") }).await.unwrap();
    assert_eq!((made.name.as_str(), &made.parent, made.protected, made.aliases), ("qa", &parent, false, 0));
    daemon.call(&CreateEnvironmentRequest { parent: Some("qa".into()), ..named("qa-eu") }).await.unwrap();
    daemon.call(&to("tester", Some("qa"))).await.unwrap();
    assert_eq!(text(&daemon.invoke("f:tester").await.unwrap()), "qa");
    daemon.restart().await;
    assert_eq!(text(&daemon.invoke("f:tester").await.unwrap()), "qa");

    let shown = daemon.call(&EnvironmentRequest { name: "qa".into() }).await.unwrap();
    assert_eq!((&shown.info.parent, shown.info.aliases), (&parent, 1));
    assert_eq!((shown.ancestors, shown.children), (vec!["staging".to_owned()], vec!["qa-eu".to_owned()]));
    let runs: Vec<_> = shown.runs.iter().map(|it| (it.function.as_str(), it.alias.as_str(), it.number)).collect();
    assert_eq!(runs, [("f", "tester", 1)]);
    let shown = daemon.call(&EnvironmentRequest { name: "qa-eu".into() }).await.unwrap();
    assert_eq!(shown.ancestors, ["qa", "staging"]);

    let outcome = delete(&daemon, "qa").await;
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    let message = outcome.unwrap_err().message;
    assert!(message.contains("alias f:tester") && message.contains("child qa-eu"), "{message}");
    set_parent(&daemon, "qa-eu", "", false).await.unwrap();
    daemon.call(&to("tester", Some("dev"))).await.unwrap();
    assert_eq!(delete(&daemon, "qa").await.unwrap().name, "qa");
    daemon.restart().await;
    let names: Vec<_> = environments(&daemon).await.into_iter().map(|it| it.0).collect();
    assert_eq!(names, ["dev", "preview", "production", "qa-eu", "staging"]);
    let outcomes = [delete(&daemon, "qa").await.map(drop), daemon.call(&to("tester", Some("qa"))).await.map(drop)];
    for outcome in outcomes {
        assert!(is_refused(&outcome, ErrorCode::EnvironmentNotFound), "{outcome:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_environment_may_not_be_is_refused_and_changes_nothing() {
    let daemon = TestDaemon::start().await;
    for name in ["production", "Staging", "rollback", "all"] {
        let outcome = daemon.call(&named(name)).await;
        assert!(is_refused(&outcome, ErrorCode::Conflict), "{name}: {outcome:?}");
    }
    for name in ["", "a b", "a/b", &"x".repeat(65)] {
        assert!(is_refused(&daemon.call(&named(name)).await, ErrorCode::InvalidRequest), "{name}");
    }
    let orphan = CreateEnvironmentRequest { parent: Some("moon".into()), ..named("qa") };
    assert!(is_refused(&daemon.call(&orphan).await, ErrorCode::EnvironmentNotFound));
    for name in ["production", "staging", "dev", "preview"] {
        assert!(is_refused(&delete(&daemon, name).await, ErrorCode::Conflict), "{name} stays");
    }
    let nothing = SetEnvironmentRequest { name: "dev".into(), ..SetEnvironmentRequest::default() };
    assert!(is_refused(&daemon.call(&nothing).await, ErrorCode::InvalidRequest));
    assert!(is_refused(&set_parent(&daemon, "dev", "dev", true).await, ErrorCode::Conflict));
    assert_eq!(set_parent(&daemon, "dev", "staging", false).await, Ok(Some("staging".into())));
    assert!(is_refused(&set_parent(&daemon, "staging", "dev", true).await, ErrorCode::Conflict), "a circle");
    let names: Vec<_> = environments(&daemon).await.into_iter().map(|it| it.0).collect();
    assert_eq!(names, ["dev", "preview", "production", "staging"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn previews_see_nothing_of_production_unless_somebody_allows_it() {
    let daemon = TestDaemon::start().await;
    for (environment, parent) in [("preview", "production"), ("staging", "production")] {
        let outcome = set_parent(&daemon, environment, parent, false).await;
        assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
        let message = outcome.unwrap_err().message;
        assert!(message.contains(environment) && message.contains(parent) && message.contains("--allow"), "{message}");
    }
    // A parent is checked through intermediate environments too.
    daemon.call(&CreateEnvironmentRequest { protected: true, ..named("vault") }).await.unwrap();
    daemon.call(&CreateEnvironmentRequest { parent: Some("staging".into()), ..named("between") }).await.unwrap();
    set_parent(&daemon, "preview", "between", false).await.unwrap();
    for parent in ["production", "vault"] {
        assert!(is_refused(&set_parent(&daemon, "between", parent, false).await, ErrorCode::Conflict), "{parent}");
    }
    assert_eq!(set_parent(&daemon, "preview", "vault", true).await, Ok(Some("vault".into())));
    assert_eq!(set_parent(&daemon, "preview", "", false).await, Ok(None));
    daemon.stop().await;
}

/// Counts its own invocations and names its worker: module state is not shared between workers.
const COUNTS: &str = "const worker = crypto.randomUUID(); let calls = 0; globalThis.seen ??= new Set(); \
     export default (req, ctx) => { calls += 1; globalThis.seen.add(ctx.environment); \
     return Response.json({ worker, calls, environment: ctx.environment, seen: [...globalThis.seen] }); };";

#[tokio::test(flavor = "multi_thread")]
async fn a_version_in_two_environments_shares_no_worker_and_no_state() {
    let daemon = TestDaemon::start().await;
    let settings = SettingsPatch { max_concurrent_executions: Some(2), ..SettingsPatch::default() };
    daemon.register_with("f", settings).await;
    daemon.redeploy_text("f", None, COUNTS).await.unwrap();
    daemon.call(&to("STAGING", None)).await.unwrap();
    daemon.call(&to("DEV", None)).await.unwrap();
    let mut loads = Vec::new();
    for name in ["f", "f:STAGING", "f:DEV", "f:v1"] {
        loads.push(Load::start(&daemon, name, "/", 2).await);
    }
    for load in &loads {
        load.until_answered(50).await;
    }
    let mut workers: Vec<HashSet<String>> = Vec::new();
    for (load, environment) in loads.into_iter().zip(["production", "staging", "dev", "production"]) {
        let mut own = HashSet::new();
        for answer in load.stop().await {
            let answer = json(&answer);
            assert_eq!(
                (answer["environment"].as_str(), answer["seen"].to_string()),
                (Some(environment), format!("[{environment:?}]"))
            );
            own.insert(answer["worker"].as_str().unwrap().to_owned());
        }
        workers.push(own);
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2), (3, 1), (3, 2)] {
        assert!(workers[one].is_disjoint(&workers[other]), "a worker has run in two environments");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_is_made_anew_has_no_worker_of_the_one_before() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", COUNTS).await;
    let mut workers = HashSet::new();
    for round in 0..3 {
        daemon.call(&named("qa")).await.unwrap();
        daemon.call(&to("tester", Some("qa"))).await.unwrap();
        let answer = json(&daemon.invoke("f:tester").await.unwrap());
        assert_eq!((answer["environment"].as_str(), answer["calls"].as_u64()), (Some("qa"), Some(1)), "{round}");
        assert!(workers.insert(answer["worker"].to_string()), "{round}: the worker existed before");
        let alias = DeleteAliasRequest { function_id: "f".into(), name: "tester".into() };
        daemon.call(&alias).await.unwrap();
        delete(&daemon, "qa").await.unwrap();
    }
    daemon.stop().await;
}

async fn compare(daemon: &TestDaemon, function: Option<&str>) -> Vec<ComparedFunction> {
    let function_id = function.map(Into::into);
    let request = CompareEnvironmentsRequest { from: "staging".into(), to: "production".into(), function_id };
    daemon.call(&request).await.unwrap().functions
}

async fn deploy(daemon: &TestDaemon, function: &str, alias: &str, word: &str) {
    let bundle = Some(Body::from(format!("export default () => new Response({word:?});").into_bytes()));
    let (function_id, alias) = (function.to_owned(), Some(alias.to_owned()));
    let request = DeployRequest { function_id, bundle, alias, create: true, ..DeployRequest::default() };
    daemon.call(&request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_environments_are_compared_function_by_function() {
    let daemon = TestDaemon::start().await;
    assert!(compare(&daemon, None).await.is_empty());
    for (function, alias, word) in [
        ("ahead", "LIVE", "1"),
        ("ahead", "STAGING", "2"),
        ("behind", "STAGING", "1"),
        ("behind", "LIVE", "2"),
        ("elsewhere", "DEV", "1"),
        ("first", "STAGING", "1"),
        ("same", "LIVE", "1"),
        ("same", "STAGING", "1"),
        ("second", "LIVE", "1"),
        ("split", "LIVE", "1"),
        ("split", "STAGING", "1"),
    ] {
        deploy(&daemon, function, alias, word).await;
    }
    let states = |compared: &[ComparedFunction]| -> Vec<_> {
        compared.iter().map(|it| (it.function.clone(), it.state)).collect()
    };
    let expected = [
        ("ahead", ComparedState::Ahead),
        ("behind", ComparedState::Behind),
        ("first", ComparedState::OnlyFrom),
        ("same", ComparedState::InSync),
        ("second", ComparedState::OnlyTo),
        ("split", ComparedState::InSync),
    ];
    let compared = compare(&daemon, None).await;
    assert_eq!(states(&compared), expected.map(|(function, state)| (function.to_owned(), state)));
    let (first, second) = (compared[0].from.as_ref().unwrap(), compared[0].to.as_ref().unwrap());
    assert_eq!((first.alias.as_str(), first.version.as_str(), first.number), ("STAGING", "v2", 2));
    assert_eq!((second.alias.as_str(), second.version.as_str(), second.number), ("LIVE", "v1", 1));
    assert_eq!(first.digest, daemon.versions("ahead").await[0].digest);

    // A split differs from a whole version, and several aliases without a main one cannot be compared.
    let share = SetTrafficRequest {
        function_id: "ahead".into(),
        alias: Some("LIVE".into()),
        version: Some("v2".into()),
        weight: Some(10),
        ..SetTrafficRequest::default()
    };
    daemon.call(&share).await.unwrap();
    let ahead = compare(&daemon, Some("ahead")).await.remove(0);
    assert_eq!(ahead.to.unwrap().split.map(|it| (it.version, it.weight)), Some(("v2".parse().unwrap(), 10)));
    for alias in ["one", "two"] {
        let request = SetAliasRequest { function_id: "second".into(), ..to(alias, Some("staging")) };
        daemon.call(&request).await.unwrap();
    }
    let unclear = compare(&daemon, Some("second")).await.remove(0);
    assert_eq!((unclear.state, unclear.from.is_none()), (ComparedState::Unclear, true));
    assert!(unclear.note.unwrap().contains("one, two"));
    assert_eq!(compare(&daemon, Some("elsewhere")).await.len(), 1, "a function that is asked for by name is listed");
    let request = CompareEnvironmentsRequest { from: "moon".into(), to: "dev".into(), function_id: None };
    assert!(is_refused(&daemon.call(&request).await, ErrorCode::EnvironmentNotFound));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_approved_for_an_environment_is_not_for_a_later_one_of_its_name() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", "export default () => new Response('a');").await;
    let guarded = || CreateEnvironmentRequest { protected: true, ..named("qa") };
    for round in 1..=2 {
        daemon.call(&guarded()).await.unwrap();
        let asked = daemon.call(&to("QA", Some("qa"))).await.unwrap();
        assert_eq!(asked.status.name(), "pending_approval", "round {round}");
        let decision = DecideRequest { deployment_id: asked.deployment_id, approve: true, reason: None };
        assert_eq!(daemon.call(&decision).await.unwrap().status.name(), "deployed");
        // Within one environment the approval stays.
        protect(&daemon, "qa", false).await;
        let delete_alias = DeleteAliasRequest { function_id: "f".into(), name: "QA".into() };
        daemon.call(&delete_alias).await.unwrap();
        protect(&daemon, "qa", true).await;
        assert_eq!(daemon.call(&to("QA", Some("qa"))).await.unwrap().status.name(), "deployed", "round {round}");
        protect(&daemon, "qa", false).await;
        daemon.call(&delete_alias).await.unwrap();
        delete(&daemon, "qa").await.unwrap();
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_end_a_protection_that_hides_variables_has_to_be_allowed_and_is_noted() {
    let daemon = TestDaemon::start().await;
    let parent = Some("production".to_owned());
    daemon.call(&CreateEnvironmentRequest { parent, protected: true, ..named("guarded") }).await.unwrap();
    let unprotect =
        SetEnvironmentRequest { name: "guarded".into(), protected: Some(false), ..SetEnvironmentRequest::default() };
    let outcome = daemon.call(&unprotect).await;
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    assert!(outcome.unwrap_err().message.contains("--allow"));
    assert!(daemon.call(&EnvironmentRequest { name: "guarded".into() }).await.unwrap().info.protected);
    let allowed = SetEnvironmentRequest { allow: true, ..unprotect };
    assert!(!daemon.call(&allowed).await.unwrap().protected);
    // A repeated request adds no row, and enabling protection is always allowed.
    daemon.call(&allowed).await.unwrap();
    protect(&daemon, "guarded", true).await;
    assert_eq!(set_parent(&daemon, "guarded", "", false).await, Ok(None));
    let rows = daemon.call(&SecretAuditRequest { function_id: None, limit: None }).await.unwrap().entries;
    let rows: Vec<_> = rows.iter().filter(|it| it.action == SecretAction::ChangeEnvironment).collect();
    let told: Vec<_> = rows.iter().rev().map(|it| it.detail.as_deref().unwrap()).collect();
    let expected = [
        "protected, takes variables from production",
        "no longer protected",
        "protected",
        "takes variables from no other environment",
    ];
    assert_eq!(told, expected);
    let actor = format!("uid:{}", nix::unistd::getuid());
    assert!(
        rows.iter()
            .all(|it| it.environment.as_ref().map(ToString::to_string).as_deref() == Some("guarded")
                && it.actor == actor),
        "{rows:?}"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_protect_an_environment_tells_of_secrets_that_others_see_all_the_same() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    assert!(protect(&daemon, "production", true).await.warnings.is_empty());
    for (environment, key) in [(None, "EVERYWHERE"), (None, "TOO"), (Some("staging"), "THERE")] {
        let request = SetVariablesRequest {
            function_id: Some("f".into()),
            environment: environment.map(str::to_owned),
            key: Some(key.into()),
            value: Some("hunter2hunter2".into()),
            is_secret: Some(true),
            ..SetVariablesRequest::default()
        };
        daemon.call(&request).await.unwrap();
    }
    let warnings = protect(&daemon, "production", true).await.warnings;
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("2 secrets are visible in every environment"),
        "{warnings:?}"
    );
    assert!(protect(&daemon, "production", false).await.warnings.is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_environment_is_called_as_an_option() {
    let daemon = TestDaemon::start().await;
    for name in ["-x", "--all", "-"] {
        let outcome = daemon.call(&named(name)).await;
        assert!(is_refused(&outcome, ErrorCode::Conflict), "{name}: {outcome:?}");
        assert!(outcome.unwrap_err().message.contains("begins with `-`"));
    }
    daemon.call(&named("a-b")).await.unwrap();
    daemon.stop().await;
}
