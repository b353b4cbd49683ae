//! Dry runs: they predict the real act, and change nothing.

use crate::harness::{TestDaemon, is_refused, until};
use levain::{
    config::{Bytecode, Switch},
    error::{Error, ErrorCode},
    protocol::{
        field::Body,
        message::{
            AliasesRequest, DeployRequest, DeployResponse, GetRequest, ListRequest, PlanAction, PlanStep,
            RollbackRequest, SetAliasRequest, SetEnvironmentRequest, VersionRef,
        },
    },
};
use rusqlite::{Connection, OpenFlags, types::Value};
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

fn says(word: &str) -> String {
    format!("export default () => new Response({word:?});")
}

/// A request that has a dry run.
#[derive(Debug, Clone)]
enum Act {
    Deploy(Box<DeployRequest>),
    Set(SetAliasRequest),
    Rollback(RollbackRequest),
}

impl Act {
    async fn perform(&self, daemon: &TestDaemon, dry_run: bool) -> Result<DeployResponse, Error> {
        match self.clone() {
            Self::Deploy(request) => daemon.call(&DeployRequest { dry_run, ..*request }).await,
            Self::Set(request) => daemon.call(&SetAliasRequest { dry_run, ..request }).await,
            Self::Rollback(request) => daemon.call(&RollbackRequest { dry_run, ..request }).await,
        }
    }

    fn description(&self) -> Option<&str> {
        match self {
            Self::Set(request) => request.description.as_deref(),
            _ => None,
        }
    }
}

fn deploy() -> DeployRequest {
    DeployRequest { function_id: "f".into(), create: true, ..DeployRequest::default() }
}

fn code(word: &str) -> DeployRequest {
    DeployRequest { bundle: Some(Body::from(says(word).into_bytes())), ..deploy() }
}

fn label(version: &str) -> DeployRequest {
    DeployRequest { version: Some(version.into()), ..deploy() }
}

fn share(percent: u32, request: DeployRequest) -> Act {
    Act::Deploy(Box::new(DeployRequest { weight: Some(percent), ..request }))
}

fn set(alias: &str, version: u32) -> SetAliasRequest {
    SetAliasRequest {
        function_id: "f".into(),
        name: alias.into(),
        version: VersionRef::Number(version),
        environment: None,
        description: None,
        reason: None,
        dry_run: false,
    }
}

fn rollback(version: Option<u32>) -> Act {
    let version = version.map(VersionRef::Number);
    Act::Rollback(RollbackRequest { function_id: "f".into(), version, ..RollbackRequest::default() })
}

/// Everything that a daemon keeps: every row of the store, every file of code, the router's table, and the workers.
#[derive(Debug, PartialEq)]
struct State {
    rows: BTreeMap<String, Vec<String>>,
    files: BTreeMap<String, (u32, Vec<u8>)>,
    router: Vec<String>,
    workers: usize,
}

async fn state(daemon: &TestDaemon) -> State {
    let mut files = BTreeMap::new();
    for folder in ["bundles", "bytecode"] {
        walk(&daemon.data_dir().join(folder), &mut files);
    }
    let mut router = vec![json(&daemon.call(&ListRequest::default()).await.unwrap())];
    if let Ok(mut function) = daemon.call(&GetRequest { function_id: "f".into() }).await {
        let aliases =
            daemon.call(&AliasesRequest { function_id: "f".into(), ..AliasesRequest::default() }).await.unwrap();
        function.pools.retain(|pool| pool.idle + pool.busy > 0);
        router.extend([json(&function), json(&aliases), json(&daemon.versions("f").await)]);
    }
    State { rows: rows(daemon), files, router, workers: daemon.worker_pids().len() }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

fn walk(path: &Path, files: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let content = if metadata.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    files.insert(path.display().to_string(), (metadata.permissions().mode(), content));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        walk(&entry.path(), files);
    }
}

fn database(daemon: &TestDaemon) -> Connection {
    Connection::open_with_flags(daemon.data_dir().join("levain.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

fn query(database: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = database.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|it| row.get(it)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

fn rows(daemon: &TestDaemon) -> BTreeMap<String, Vec<String>> {
    let database = database(daemon);
    let tables = query(&database, "SELECT name FROM sqlite_schema WHERE type = 'table'");
    let tables = tables.into_iter().map(|row| text(&row[0]));
    let rows = |table: &str| query(&database, &format!("SELECT * FROM {table}"));
    tables.map(|it| (it.clone(), rows(&it).into_iter().map(|row| format!("{row:?}")).collect())).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        other => panic!("{other:?} is neither text nor number"),
    }
}

fn text_or_none(value: &Value) -> Option<String> {
    (*value != Value::Null).then(|| text(value))
}

/// An alias as stored in its row.
#[derive(Debug, Clone, PartialEq)]
struct Pointer {
    environment: String,
    version: String,
    second: Option<(String, String)>,
}

/// Where an alias of `f` points, read from the database.
fn pointer(daemon: &TestDaemon, alias: &str) -> Option<Pointer> {
    let sql = format!(
        "SELECT environment, first.version, second.version, second_weight FROM aliases \
         JOIN function_versions AS first ON first.id = version_id \
         LEFT JOIN function_versions AS second ON second.id = second_version_id WHERE name = '{alias}'"
    );
    let row = query(&database(daemon), &sql).pop()?;
    let second = text_or_none(&row[2]).zip(text_or_none(&row[3]));
    Some(Pointer { environment: text(&row[0]), version: text(&row[1]), second })
}

/// The versions that an alias sends invocations to.
fn called(pointer: Option<&Pointer>) -> Vec<&str> {
    let Some(pointer) = pointer else { return Vec::new() };
    let second = pointer.second.iter().filter(|it| it.1 != "0").map(|it| it.0.as_str());
    [pointer.version.as_str()].into_iter().chain(second).collect()
}

/// Returns the plan that would have been right, given the alias before and after: each step with the words that must
/// appear in it.
fn happened(
    act: &Act,
    answer: &DeployResponse,
    (before, after): (Option<&Pointer>, Option<&Pointer>),
    was_there: bool,
    is_recorded: bool,
) -> Vec<(PlanAction, Vec<String>)> {
    let DeployResponse { alias, version, number, size, digest, .. } = answer;
    let words = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let mut steps = Vec::new();
    if !was_there {
        steps.push((PlanAction::Register, words(&["`f`"])));
    }
    let (number, size, digest) = (number.to_string(), size.to_string(), digest.to_string());
    steps.push(match answer.published {
        true => (PlanAction::Publish, words(&[version.as_str(), &number, &size, &digest])),
        false => (PlanAction::Reuse, words(&[version.as_str(), &number])),
    });
    let is_pending = answer.status.name() == "pending_approval";
    // An act that writes a row has loaded the version before.
    if is_recorded {
        steps.push((PlanAction::Load, words(&[version.as_str()])));
    }
    let described = act.description().map(|it| (PlanAction::Describe, words(&[it])));
    match (before, after) {
        _ if is_pending => steps.push((PlanAction::WaitForApproval, words(&["production", version.as_str()]))),
        (None, Some(after)) => {
            steps.push((PlanAction::Make, words(&[alias.as_str(), &after.version, &after.environment])));
            steps.extend(described);
        }
        (Some(before), Some(after)) if before != after => {
            if let Some((second, weight)) = before.second.as_ref().filter(|_| after.second.is_none()) {
                steps.push((PlanAction::EndSplit, words(&[second, weight])));
            }
            if (&before.version, &before.environment) != (&after.version, &after.environment) {
                steps.push((PlanAction::Move, words(&[&before.version, &after.version, &after.environment])));
            }
            if let Some((second, weight)) = after.second.as_ref().filter(|it| before.second.as_ref() != Some(*it)) {
                steps.push((PlanAction::Share, words(&[second, weight, &after.version])));
            }
            steps.extend(described);
            if alias == "LIVE" && before.version != after.version {
                steps.push((PlanAction::Follow, words(&["ROLLBACK", &before.version])));
            }
        }
        _ => {
            steps.push((PlanAction::Stay, words(&[alias.as_str()])));
            steps.extend(described);
        }
    }
    // Versions are listed from the newest on.
    let (old, new) = (called(before), called(after));
    let mut kept: Vec<_> = old.into_iter().filter(|it| !new.contains(it)).collect();
    kept.sort_by(|a, b| b.cmp(a));
    steps.extend(kept.into_iter().map(|it| (PlanAction::KeepWarm, words(&[it, "600 s"]))));
    steps
}

/// Checks that a dry run changes nothing, and that the act itself then does what the dry run predicted.
async fn check(daemon: &TestDaemon, what: &str, act: Act) -> Vec<PlanStep> {
    let present = pointer(daemon, "LIVE");
    let before = state(daemon).await;
    let planned = act.perform(daemon, true).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!((planned.status.name(), planned.deployment_id.as_str()), ("checked", ""), "{what}");
    // Workers that only tried the version end in the background.
    until("the workers of the dry run end", || async { (daemon.worker_pids().len() == before.workers).then_some(()) })
        .await;
    assert_eq!(state(daemon).await, before, "{what}");

    let alias = planned.alias.as_str();
    let was_there = daemon.call(&GetRequest { function_id: "f".into() }).await.is_ok();
    let from = if alias == "LIVE" { present } else { pointer(daemon, alias) };
    let recorded = rows(daemon)["function_deployments"].len();
    let answer = act.perform(daemon, false).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(answer.plan.is_empty(), "{what}: the dry run changed the state");
    let to = pointer(daemon, alias);
    let is_recorded = rows(daemon)["function_deployments"].len() > recorded;
    let expected = happened(&act, &answer, (from.as_ref(), to.as_ref()), was_there, is_recorded);
    let actions: Vec<_> = planned.plan.iter().map(|it| it.action).collect();
    assert_eq!(actions, expected.iter().map(|it| it.0).collect::<Vec<_>>(), "{what}: {:#?}", planned.plan);
    for (step, (_, words)) in planned.plan.iter().zip(&expected) {
        assert!(words.iter().all(|it| step.detail.contains(it)), "{what}: {step:?} lacks one of {words:?}");
    }
    let same = |it: &DeployResponse| {
        let place = (it.alias.clone(), it.environment.clone(), it.previous_version.clone());
        (it.version.clone(), it.number, it.digest, it.size, it.weight, place)
    };
    let (planned_facts, facts) = (same(&planned), same(&answer));
    // An answer without a change describes the deployment that made the present state.
    if to != from {
        assert_eq!(planned_facts, facts, "{what}");
    }
    if alias == "LIVE" && to != from && answer.status.name() == "deployed" {
        let rollback = daemon
            .call(&AliasesRequest { function_id: "f".into(), ..AliasesRequest::default() })
            .await
            .unwrap()
            .aliases;
        let rollback = rollback.into_iter().find(|it| it.name == "ROLLBACK").map(|it| it.version);
        let follows = planned.plan.iter().find(|it| it.action == PlanAction::Follow);
        assert!(
            follows.is_none_or(|it| rollback.is_some_and(|version| it.detail.ends_with(version.as_str()))),
            "{what}"
        );
    }
    planned.plan
}

fn details(plan: &[PlanStep]) -> Vec<&str> {
    plan.iter().map(|it| it.detail.as_str()).collect()
}

async fn daemon() -> TestDaemon {
    TestDaemon::start_with(|config| {
        // Compilation would run in the background at an unpredictable time.
        config.versioning.bytecode = Bytecode::Off;
        config.versioning.rollback_warm_seconds = 600;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dry_run_says_is_what_happens_then() {
    let daemon = daemon().await;
    let act = |request: DeployRequest| Act::Deploy(Box::new(request));
    check(&daemon, "a function that is new", act(code("1"))).await;
    let plan = check(&daemon, "a new version", act(code("2"))).await;
    let moved = ["LIVE moves from v1 to v2 in production", "ROLLBACK follows and points at v1"];
    assert_eq!(details(&plan)[2..4], moved);
    assert_eq!(details(&plan)[4..], ["one worker of v1 is kept warm for 600 s"]);
    check(&daemon, "the same code again", act(code("2"))).await;
    let built = DeployRequest { activate: Some(false), ..code("3") };
    check(&daemon, "a version without a move", act(built.clone())).await;
    check(&daemon, "a label without a move", act(DeployRequest { version: Some("v3".into()), ..built })).await;
    let plan = check(&daemon, "a share", share(10, label("v3"))).await;
    assert_eq!(details(&plan)[2..], ["v3 gets 10 % of the calls of LIVE, v2 keeps 90 %"]);
    let plan = check(&daemon, "a larger share", share(50, label("v3"))).await;
    assert_eq!(details(&plan)[2..], ["v3 gets 50 % of the calls of LIVE instead of 10 %, v2 keeps 50 %"]);
    check(&daemon, "the same share again", share(50, label("v3"))).await;
    let plan = check(&daemon, "the end of the split", Act::Set(set("LIVE", 2))).await;
    assert_eq!(
        details(&plan)[2..],
        ["the split of LIVE with v3 (50 %) ends", "one worker of v3 is kept warm for 600 s"]
    );
    check(&daemon, "a label", act(label("v3"))).await;
    check(&daemon, "a share of a new version", share(20, code("4"))).await;
    check(&daemon, "a way back out of a split", rollback(None)).await;
    check(&daemon, "a way back by number", rollback(Some(1))).await;
    check(&daemon, "a way back to where it is", rollback(Some(1))).await;

    let described = SetAliasRequest { description: Some("to try it".into()), ..set("STAGING", 3) };
    check(&daemon, "a new alias", Act::Set(described.clone())).await;
    let other = SetAliasRequest { description: Some("to try more".into()), ..described };
    check(&daemon, "another description", Act::Set(other)).await;
    let elsewhere = SetAliasRequest { environment: Some("dev".into()), ..set("STAGING", 3) };
    let plan = check(&daemon, "another environment", Act::Set(elsewhere)).await;
    assert_eq!(details(&plan)[2..], ["STAGING moves from staging to dev with v3"]);
    let to_staging = DeployRequest { alias: Some("STAGING".into()), ..code("5") };
    check(&daemon, "another alias", act(to_staging.clone())).await;
    check(&daemon, "the code of an older version", act(code("2"))).await;
    let to_dev = DeployRequest { alias: Some("DEV".into()), ..to_staging };
    check(&daemon, "the same code for another alias", act(to_dev.clone())).await;
    check(&daemon, "the same code under another label", act(DeployRequest { version: Some("five".into()), ..to_dev }))
        .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_wait_for_approval_is_said() {
    let daemon = daemon().await;
    let protect =
        SetEnvironmentRequest { name: "production".into(), protected: Some(true), ..SetEnvironmentRequest::default() };
    let act = |request: DeployRequest| Act::Deploy(Box::new(request));
    check(&daemon, "v1", act(code("1"))).await;
    check(&daemon, "v2", act(code("2"))).await;
    daemon.call(&protect).await.unwrap();
    let plan = check(&daemon, "a new version", act(code("3"))).await;
    let waits = "production is protected and v3 is new to LIVE there: it waits for approval; \
         LIVE stays as it is: it points at v2 in production";
    assert_eq!(details(&plan)[2..], [waits]);
    let plan = check(&daemon, "what waits already", act(code("3"))).await;
    assert!(plan[1].detail.contains("it waits already for approval"), "{plan:?}");
    check(&daemon, "a share", share(10, code("4"))).await;
    check(&daemon, "a new alias", Act::Set(set("canary", 1))).await;
    check(&daemon, "a way back", rollback(None)).await;
    check(&daemon, "the label of what was live", act(label("v2"))).await;
    let plan = check(&daemon, "an alias elsewhere", Act::Set(set("STAGING", 3))).await;
    assert!(plan.iter().any(|it| it.action == PlanAction::Make), "{plan:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_that_fails_leaves_nothing_and_records_nothing() {
    let daemon = daemon().await;
    let bad = |text: &str| DeployRequest { bundle: Some(Body::from(text.as_bytes().to_vec())), ..deploy() };
    let load_error = "throw new Error('no'); export default () => {};";
    let cases = |is_there: bool| {
        let missing = if is_there { ErrorCode::VersionNotFound } else { ErrorCode::FunctionNotFound };
        let no_calls = ErrorCode::FunctionNotDeployed;
        [
            (ErrorCode::BundleLoadError, Act::Deploy(Box::new(bad(load_error)))),
            (ErrorCode::BundleInvalid, Act::Deploy(Box::new(bad("export default = 1;")))),
            (missing, Act::Deploy(Box::new(label("v9")))),
            (if is_there { ErrorCode::Conflict } else { no_calls }, share(10, code("new"))),
        ]
    };
    for is_there in [false, true] {
        if is_there {
            for act in [Act::Deploy(Box::new(code("1"))), Act::Deploy(Box::new(code("2"))), share(5, label("v1"))] {
                act.perform(&daemon, false).await.unwrap();
            }
        }
        let before = state(&daemon).await;
        for (expected, act) in cases(is_there) {
            let outcome = act.perform(&daemon, true).await;
            assert!(is_refused(&outcome, expected), "{expected}: {outcome:?}");
            until("the workers of the dry run end", || async {
                (daemon.worker_pids().len() == before.workers).then_some(())
            })
            .await;
            assert_eq!(state(&daemon).await, before, "{act:?}");
        }
    }
    let unnamed = DeployRequest { function_id: "not a name".into(), ..code("1") };
    assert!(is_refused(&daemon.call(&unnamed).await, ErrorCode::InvalidRequest));
    let unwanted = DeployRequest { function_id: "g".into(), create: false, dry_run: true, ..code("1") };
    assert!(is_refused(&daemon.call(&unwanted).await, ErrorCode::FunctionNotFound));
    daemon.stop().await;
}

/// A cleanup after a deployment depends on where the deployment leaves the aliases.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_cleaned_up_is_said() {
    let daemon = TestDaemon::start_with(|config| {
        config.versioning.auto_cleanup = Switch::On;
        config.versioning.keep_versions = 2;
    })
    .await;
    daemon.register("f").await;
    let labels =
        || async { daemon.versions("f").await.into_iter().map(|it| it.version.to_string()).collect::<Vec<_>>() };
    let mut cleaned = 0;
    for number in 1..=5 {
        let before = labels().await;
        let request = DeployRequest { function_id: "f".into(), ..code(&number.to_string()) };
        let plan = daemon.call(&DeployRequest { dry_run: true, ..request.clone() }).await.unwrap().plan;
        assert_eq!(labels().await, before, "the cleanup is only predicted");
        let gone = plan.iter().filter(|it| it.action == PlanAction::CleanUp);
        let gone: Vec<_> = gone.map(|it| it.detail.split(' ').next().unwrap().to_owned()).collect();
        cleaned += gone.len();
        daemon.call(&request).await.unwrap();
        let kept: Vec<_> = [format!("v{number}")].into_iter().chain(before).filter(|it| !gone.contains(it)).collect();
        let (labels, kept) = (&labels, &kept);
        until("the predicted cleanup takes place", || async move { (labels().await == *kept).then_some(()) }).await;
    }
    assert_eq!(cleaned, 3, "v1 to v3; ROLLBACK holds the one before");
    daemon.stop().await;
}
