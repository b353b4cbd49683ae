//! The store on a real disk: writes read back, refusals change nothing, and a crash at each step is harmless.

mod plans;
mod properties;
mod retention;
mod rollouts;
mod running;

use super::*;
use crate::crash_point::CRASH_AT_VARIABLE;
use crate::model::{
    AliasName, Decision, Deployment, DeploymentId, DeploymentKind, DeploymentStatus, Digest, EnvironmentName, Function,
    FunctionId, FunctionStatus, Percent, Policy, Rollout, Scope, Settings, Sticky, Timestamp, Token, TokenId, Version,
    VersionId, VersionSource,
};
use std::collections::{HashMap, HashSet};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// Folder in which the child of a crash test works.
const FILE_VARIABLE: &str = "LEVAIN_TEST_STORE";

struct Scratch {
    store: Store,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for Scratch {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("levain.db");
    Scratch { store: Store::open(&path).expect("opens"), path, _folder: folder }
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millis(milliseconds)
}

fn function(name: &str) -> Function {
    Function {
        id: FunctionId::new(),
        name: name.parse().expect("a name"),
        runtime: "bun".into(),
        handler: "default".into(),
        status: FunctionStatus::Registered,
        settings: Settings { warm_workers: 2, ..Settings::default() },
        created_at: at(1_000),
        updated_at: at(1_000),
    }
}

fn version(function: &Function, number: u32) -> Version {
    Version {
        id: VersionId::new(),
        function_id: function.id,
        label: format!("v{number}").parse().expect("a label"),
        number,
        digest: Digest([u8::try_from(number % 256).expect("a byte"); 32]),
        size: 42,
        entry: "bundle.js".into(),
        source: VersionSource::Upload,
        git_commit: Some("0123abcd".into()),
        git_branch: None,
        description: Some("a “description”".into()),
        tags: vec!["a".into(), "b,c".into()],
        bun_version: "1.3.0".into(),
        settings: function.settings,
        created_at: at(2_000),
    }
}

fn deployment(version: &Version, alias: &str, status: DeploymentStatus) -> Deployment {
    Deployment {
        id: DeploymentId::new(),
        function_id: version.function_id,
        label: version.label.clone(),
        number: Some(version.number),
        alias: alias.parse().expect("an alias"),
        environment: "production".parse().expect("an environment"),
        kind: DeploymentKind::Deploy,
        status,
        weight: None,
        previous: None,
        actor: "uid:0".into(),
        reason: None,
        build_log: Some("fine".into()),
        created_at: at(3_000),
        finished_at: at(3_500),
        decision: None,
    }
}

fn protection(protected: bool) -> EnvironmentChange {
    EnvironmentChange { protected: Some(protected), ..EnvironmentChange::default() }
}

fn gone(milliseconds: i64) -> Removal {
    Removal { actor: "uid:0".into(), reason: None, at: at(milliseconds) }
}

fn publish(store: &Store, function: &Function, number: u32, alias: &str) -> Version {
    let version = version(function, number);
    let deployment = deployment(&version, alias, DeploymentStatus::Active);
    store
        .commit_deployment(&DeploymentCommit { target: Target::New(&version), deployment: &deployment })
        .expect("commits");
    version
}

fn redeploy(store: &Store, version: &Version, alias: &str) -> Result<DeploymentStatus, StoreError> {
    let deployment = deployment(version, alias, DeploymentStatus::Active);
    store.commit_deployment(&DeploymentCommit { target: Target::Existing(version.id), deployment: &deployment })
}

fn registered(store: &Store, name: &str) -> Function {
    let function = function(name);
    store.insert_function(&function).expect("inserts");
    function
}

fn alias(record: &FunctionRecord, name: &str) -> Option<(VersionId, Option<VersionId>)> {
    record.aliases.iter().find(|it| it.name.as_str() == name).map(|it| (it.version_id, it.previous))
}

fn statuses(store: &Store, id: FunctionId) -> Vec<(u32, DeploymentStatus)> {
    let rows = store.deployments(id, 100, 0).expect("reads");
    rows.into_iter().map(|it| (it.number.unwrap_or(0), it.status)).collect()
}

fn execute(store: &Store, sql: &str) -> Result<usize, rusqlite::Error> {
    store.connection.lock().execute(sql, [])
}

#[test]
fn everything_reads_back_as_it_was_written_also_after_a_restart() {
    let scratch = scratch();
    let function = registered(&scratch, "hello");
    let version = version(&function, 1);
    let deployment = Deployment {
        kind: DeploymentKind::Rollback,
        previous: Some("v0".parse().expect("a label")),
        reason: Some("because".into()),
        ..deployment(&version, "LIVE", DeploymentStatus::Active)
    };
    let commit = DeploymentCommit { target: Target::New(&version), deployment: &deployment };
    scratch.commit_deployment(&commit).expect("commits");

    let reopened = Store::open(&scratch.path).expect("opens a second time");
    for store in [&scratch.store, &reopened] {
        let deployed = Function { status: FunctionStatus::Deployed, updated_at: at(3_500), ..function.clone() };
        let alias = AliasRecord {
            name: AliasName::live(),
            environment: deployment.environment.clone(),
            version_id: version.id,
            split: None,
            sticky: None,
            policy: None,
            went_back_at: None,
            rollout: None,
            previous: None,
            description: None,
            expires_at: None,
            updated_at: at(3_500),
        };
        let record = FunctionRecord {
            function: deployed,
            versions: vec![version.clone()],
            aliases: vec![alias],
            approved: None,
        };
        assert_eq!(store.record(function.id).expect("reads"), record);
        assert_eq!(store.catalogue().expect("reads"), [record]);
        assert_eq!(store.deployments(function.id, 10, 0).expect("reads"), std::slice::from_ref(&deployment));
    }
}

#[test]
fn a_name_is_taken_until_its_function_is_deleted() {
    let store = scratch();
    let first = registered(&store, "hello");
    let error = store.insert_function(&function("hello")).expect_err("the name is taken");
    assert!(matches!(&error, StoreError::NameTaken(name) if name.as_str() == "hello"), "{error}");
    store.delete_function(first.id, &"uid:0".into(), at(9)).expect("deletes");
    let second = registered(&store, "hello");
    assert_eq!(store.functions().expect("reads"), [second]);
}

#[test]
fn functions_come_by_name() {
    let store = scratch();
    for name in ["b", "a", "c"] {
        registered(&store, name);
    }
    let names: Vec<_> = store.functions().expect("reads").into_iter().map(|it| it.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn settings_are_replaced_and_a_version_keeps_those_of_its_day() {
    let store = scratch();
    let function = registered(&store, "hello");
    let published = publish(&store, &function, 1, "LIVE");
    let settings = Settings { memory_mb: 512, warm_workers: 0, ..function.settings };
    store.update_settings(function.id, &settings, at(8)).expect("updates");
    let record = store.record(function.id).expect("reads");
    assert_eq!((record.function.settings, record.function.updated_at), (settings, at(8)));
    assert_eq!(record.versions, [published]);
}

#[test]
fn a_deployment_moves_its_alias_and_supersedes_the_one_before() {
    let store = scratch();
    let function = registered(&store, "hello");
    let v1 = publish(&store, &function, 1, "LIVE");
    let staged = publish(&store, &function, 2, "STAGING");
    let v3 = publish(&store, &function, 3, "LIVE");
    let record = store.record(function.id).expect("reads");
    assert_eq!(alias(&record, "LIVE"), Some((v3.id, Some(v1.id))));
    assert_eq!(alias(&record, "STAGING"), Some((staged.id, None)));
    assert_eq!(record.versions.iter().map(|it| it.number).collect::<Vec<_>>(), [3, 2, 1]);
    let expected = [(3, DeploymentStatus::Active), (2, DeploymentStatus::Active), (1, DeploymentStatus::Superseded)];
    assert_eq!(statuses(&store, function.id), expected);
}

#[test]
fn previous_is_what_the_alias_pointed_at_before() {
    let store = scratch();
    let function = registered(&store, "hello");
    let previous = || store.previous_target(function.id, &AliasName::live()).expect("reads");
    assert_eq!(previous(), None, "no alias");
    let v1 = publish(&store, &function, 1, "LIVE");
    assert_eq!(previous(), None, "the first target has no predecessor");
    let v2 = publish(&store, &function, 2, "LIVE");
    publish(&store, &function, 3, "STAGING");
    redeploy(&store, &v2, "LIVE").expect("commits");
    assert_eq!(previous(), Some(v1.id), "a repeated target is not its own predecessor");
    redeploy(&store, &v1, "LIVE").expect("commits");
    assert_eq!(previous(), Some(v2.id), "after a rollback, the predecessor is the version rolled back");
    store.insert_failed_deployment(&deployment(&v2, "LIVE", DeploymentStatus::Failed)).expect("records");
    let v4 = publish(&store, &function, 4, "LIVE");
    assert_eq!(previous(), Some(v1.id));
    store.delete_version(function.id, v1.id, at(9)).expect("deletes");
    assert_eq!(previous(), Some(v2.id), "deleted versions are skipped");
    store.delete_version(function.id, v2.id, at(9)).expect("deletes");
    assert_eq!(previous(), None);
    assert_eq!(alias(&store.record(function.id).expect("reads"), "LIVE"), Some((v4.id, None)));
}

#[test]
fn a_version_can_be_published_without_an_alias() {
    let store = scratch();
    let function = registered(&store, "hello");
    let built = version(&function, 1);
    let deployment = deployment(&built, "LIVE", DeploymentStatus::Built);
    let commit = DeploymentCommit { target: Target::New(&built), deployment: &deployment };
    store.commit_deployment(&commit).expect("commits");
    let record = store.record(function.id).expect("reads");
    assert_eq!((record.function.status, record.aliases.len()), (FunctionStatus::Built, 0));
    redeploy(&store, &built, "DEV").expect("commits");
    assert_eq!(store.function(function.id).expect("reads").status, FunctionStatus::Built, "LIVE points nowhere yet");
    redeploy(&store, &built, "LIVE").expect("commits");
    assert_eq!(store.function(function.id).expect("reads").status, FunctionStatus::Deployed);
}

#[test]
fn what_is_taken_or_unknown_is_refused_and_changes_nothing() {
    let store = scratch();
    let (function, other) = (registered(&store, "hello"), registered(&store, "other"));
    let v1 = publish(&store, &function, 1, "LIVE");
    let foreign = publish(&store, &other, 1, "LIVE");
    let before = (store.catalogue().expect("reads"), statuses(&store, function.id));

    let commit = |version: &Version, is_new: bool, environment: &str| {
        let mut deployment = deployment(version, "LIVE", DeploymentStatus::Active);
        (deployment.function_id, deployment.environment) = (function.id, environment.parse().expect("a name"));
        let target = if is_new { Target::New(version) } else { Target::Existing(version.id) };
        store.commit_deployment(&DeploymentCommit { target, deployment: &deployment }).expect_err("it is refused")
    };
    let same_label = Version { label: v1.label.clone(), ..version(&function, 2) };
    assert!(matches!(commit(&same_label, true, "production"), StoreError::LabelTaken(label) if label == v1.label));
    let same_number = Version { number: 1, ..version(&function, 2) };
    assert!(matches!(commit(&same_number, true, "production"), StoreError::NumberTaken(1)));
    assert!(matches!(commit(&foreign, false, "production"), StoreError::VersionNotFound(id) if id == foreign.id));
    assert!(matches!(commit(&version(&function, 2), true, "nowhere"), StoreError::EnvironmentNotFound(_)));
    assert_eq!((store.catalogue().expect("reads"), statuses(&store, function.id)), before);
    assert_eq!(store.next_number(function.id).expect("reads"), 2);
}

#[test]
fn a_version_in_use_is_not_deleted_and_says_by_whom() {
    let store = scratch();
    let function = registered(&store, "hello");
    let v1 = publish(&store, &function, 1, "LIVE");
    redeploy(&store, &v1, "STAGING").expect("commits");
    let error = store.delete_version(function.id, v1.id, at(9)).expect_err("it is in use");
    let message = "version `v1` is in use by LIVE, STAGING: point them at another version first";
    assert_eq!(error.to_string(), message);
    assert!(matches!(error, StoreError::VersionInUse { .. }));
}

#[test]
fn deleting_a_version_keeps_its_number_used_and_its_deployments_readable() {
    let store = scratch();
    let function = registered(&store, "hello");
    publish(&store, &function, 1, "LIVE");
    let v2 = publish(&store, &function, 2, "LIVE");
    publish(&store, &function, 3, "LIVE");
    store.delete_version(function.id, v2.id, at(9)).expect("deletes");
    assert_eq!(store.versions(function.id).expect("reads").iter().map(|it| it.number).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(statuses(&store, function.id).iter().map(|it| it.0).collect::<Vec<_>>(), [3, 2, 1]);
    let error = store.delete_version(function.id, v2.id, at(9)).expect_err("it is gone");
    assert!(matches!(error, StoreError::VersionNotFound(_)), "{error}");

    let built = version(&function, 4);
    let deployment = deployment(&built, "LIVE", DeploymentStatus::Built);
    let commit = DeploymentCommit { target: Target::New(&built), deployment: &deployment };
    store.commit_deployment(&commit).expect("commits");
    store.delete_version(function.id, built.id, at(9)).expect("deletes");
    assert_eq!(store.next_number(function.id).expect("reads"), 5, "4 is used");
}

#[test]
fn a_function_without_its_last_version_is_registered_again() {
    let store = scratch();
    let function = registered(&store, "hello");
    let built = version(&function, 1);
    let deployment = deployment(&built, "LIVE", DeploymentStatus::Built);
    let commit = DeploymentCommit { target: Target::New(&built), deployment: &deployment };
    store.commit_deployment(&commit).expect("commits");
    store.delete_version(function.id, built.id, at(9)).expect("deletes");
    let registered = Function { updated_at: at(9), ..function };
    assert_eq!(store.function(registered.id).expect("reads"), registered);
}

#[test]
fn a_deleted_function_is_gone_for_commands_and_kept_for_audit() {
    let store = scratch();
    let (function, other) = (registered(&store, "hello"), registered(&store, "other"));
    let v1 = publish(&store, &function, 1, "LIVE");
    store.delete_function(function.id, &"uid:0".into(), at(9)).expect("deletes");
    let settings = function.settings;
    let outcomes = [
        store.function(function.id).map(drop),
        store.record(function.id).map(drop),
        store.next_number(function.id).map(drop),
        store.update_settings(function.id, &settings, at(9)),
        store.delete_function(function.id, &"uid:0".into(), at(9)),
        store.delete_version(function.id, v1.id, at(9)),
        redeploy(&store, &v1, "LIVE").map(drop),
    ];
    for outcome in outcomes {
        assert!(matches!(outcome, Err(StoreError::FunctionNotFound(id)) if id == function.id), "{outcome:?}");
    }
    assert_eq!(store.versions(function.id).expect("reads"), std::slice::from_ref(&v1));
    assert_eq!(statuses(&store, function.id), [(1, DeploymentStatus::Superseded)]);
    let published = HashMap::from([(function.id, HashSet::from([v1.label])), (other.id, HashSet::new())]);
    assert_eq!(store.published().expect("reads"), published);
}

#[test]
fn a_failed_deployment_is_recorded_and_changes_nothing_else() {
    let store = scratch();
    let function = registered(&store, "hello");
    let v1 = publish(&store, &function, 1, "LIVE");
    let before = store.catalogue().expect("reads");
    let unpublished = Deployment {
        number: None,
        label: "v2".parse().expect("a label"),
        build_log: Some("SyntaxError".into()),
        ..deployment(&v1, "LIVE", DeploymentStatus::Failed)
    };
    store.insert_failed_deployment(&unpublished).expect("records");
    store.insert_failed_deployment(&deployment(&v1, "LIVE", DeploymentStatus::Failed)).expect("records");
    assert_eq!(store.catalogue().expect("reads"), before);
    assert_eq!(store.deployments(function.id, 1, 1).expect("reads"), [unpublished]);
}

fn protect(store: &Store, protected: bool) {
    let outcome =
        store.change_environment(&EnvironmentName::production(), &protection(protected), &"uid:0".into(), at(9));
    outcome.expect("it is there");
}

fn decision(by: &str) -> Decision {
    Decision { by: by.into(), reason: Some("because".into()), at: at(7_000) }
}

#[test]
fn what_is_new_to_a_protected_environment_waits_and_counts_from_its_approval_on() {
    let store = scratch();
    let function = registered(&store, "hello");
    let v1 = publish(&store, &function, 1, "LIVE");
    protect(&store, true);
    let v2 = publish(&store, &function, 2, "LIVE");
    let v3 = publish(&store, &function, 3, "LIVE");
    let live = || alias(&store.record(function.id).expect("reads"), "LIVE");
    assert_eq!(live(), Some((v1.id, None)), "it stays");
    let waiting = store.waiting().expect("reads");
    assert_eq!(waiting.iter().map(|it| it.number).collect::<Vec<_>>(), [Some(3), Some(2)]);

    store.approve(waiting[0].id, &decision("uid:1"), Some(&v1.label)).expect("it waits");
    assert_eq!(live(), Some((v3.id, Some(v1.id))));
    let second = store.approve(waiting[1].id, &decision("uid:1"), Some(&v3.label)).expect("it waits");
    assert_eq!(live(), Some((v2.id, Some(v3.id))), "the order of approval counts, not that of the requests");
    assert_eq!(second.previous, Some(v3.label.clone()));
    use DeploymentStatus::{Active, Superseded};
    assert_eq!(statuses(&store, function.id), [(2, Active), (3, Superseded), (1, Superseded)]);
    // Each of the three has taken calls of LIVE in production, but not of another alias.
    assert_eq!(redeploy(&store, &v3, "LIVE").expect("commits"), Active);
    assert_eq!(redeploy(&store, &v3, "canary").expect("commits"), DeploymentStatus::PendingApproval);
}

#[test]
fn what_waits_changes_the_alias_as_it_was_asked_for() {
    let store = scratch();
    let function = registered(&store, "hello");
    publish(&store, &function, 1, "LIVE");
    protect(&store, true);
    let sticky: Sticky = "header:x-user".parse().expect("a header");
    let v2 = version(&function, 2);
    let row = Deployment { weight: Percent::try_from(10).ok(), ..deployment(&v2, "LIVE", DeploymentStatus::Applied) };
    let change = AliasChange {
        description: Some("careful".into()),
        sticky: Some(Some(sticky.clone())),
        rollout: None,
        lifetime: None,
    };
    let commit = DeploymentCommit { target: Target::New(&v2), deployment: &row };
    assert_eq!(store.commit_with(&commit, &change).expect("commits"), DeploymentStatus::PendingApproval);
    let live = || store.record(function.id).expect("reads").aliases.remove(0);
    assert_eq!((live().split, live().sticky, live().description), (None, None, None));
    store.approve(row.id, &decision("uid:1"), None).expect("it waits");
    assert_eq!(live().split.map(|it| (it.version_id, it.weight.get())), Some((v2.id, 10)));
    assert_eq!((live().sticky, live().description.as_deref()), (Some(sticky), Some("careful")));
    assert_eq!(live().updated_at, at(7_000), "it moved when it was approved");
}

#[test]
fn a_version_that_waits_is_not_deleted_and_says_for_which_deployment() {
    let store = scratch();
    let function = registered(&store, "hello");
    publish(&store, &function, 1, "LIVE");
    protect(&store, true);
    let v2 = publish(&store, &function, 2, "LIVE");
    let waiting = store.waiting().expect("reads").remove(0).id;
    let error = store.delete_version(function.id, v2.id, at(9)).expect_err("it waits");
    let message = error.to_string();
    assert!(message.starts_with(&format!("version `v2` is in use by approval of {waiting}: ")), "{message}");
    store.reject(waiting, &decision("uid:1")).expect("it waits");
    let error = store.approve(waiting, &decision("uid:2"), None).expect_err("it is decided").to_string();
    assert_eq!(error, format!("{waiting} does not wait for approval: it is rejected, decided by uid:1: because"));
    store.delete_version(function.id, v2.id, at(9)).expect("nothing holds it");
    let unknown = store.approve(DeploymentId::new(), &decision("uid:1"), None).expect_err("it is not there");
    assert!(matches!(unknown, StoreError::DeploymentNotFound(_)), "{unknown}");
}

#[test]
fn nothing_is_taken_out_of_a_protected_environment() {
    let store = scratch();
    let function = registered(&store, "hello");
    let v1 = publish(&store, &function, 1, "canary");
    protect(&store, true);
    let before = store.catalogue().expect("reads");
    let elsewhere = Deployment {
        environment: "staging".parse().expect("a name"),
        ..deployment(&v1, "canary", DeploymentStatus::Active)
    };
    let commit = DeploymentCommit { target: Target::Existing(v1.id), deployment: &elsewhere };
    let canary = "canary".parse().expect("an alias");
    for outcome in [
        store.commit_deployment(&commit).map(drop),
        store.delete_alias(function.id, &canary, &gone(9)).map(drop),
        store.delete_function(function.id, &"uid:0".into(), at(9)),
        store.may_move(function.id, &canary, &elsewhere.environment),
    ] {
        assert!(matches!(outcome, Err(StoreError::EnvironmentProtected { .. })), "{outcome:?}");
    }
    assert_eq!(store.catalogue().expect("reads"), before);
    protect(&store, false);
    store.commit_deployment(&commit).expect("it is free to move");
    store.delete_function(function.id, &"uid:0".into(), at(9)).expect("it is free to go");
}

#[test]
fn environments_say_how_many_aliases_run_in_them() {
    let store = scratch();
    let function = registered(&store, "hello");
    publish(&store, &function, 1, "LIVE");
    publish(&store, &function, 2, "canary");
    protect(&store, true);
    let shown: Vec<_> = store.environments().expect("reads");
    let shown: Vec<_> = shown.iter().map(|it| (it.name.as_str(), it.aliases, it.protected)).collect();
    let expected = [("dev", 0, false), ("preview", 0, false), ("production", 2, true), ("staging", 0, false)];
    assert_eq!(shown, expected);
    let nowhere =
        store.change_environment(&"nowhere".parse().expect("a name"), &protection(true), &"uid:0".into(), at(9));
    assert!(matches!(nowhere, Err(StoreError::EnvironmentNotFound(_))), "{nowhere:?}");
}

#[test]
fn the_schema_itself_refuses_what_no_program_may_do() {
    let store = scratch();
    let (function, other) = (registered(&store, "hello"), registered(&store, "other"));
    let v1 = publish(&store, &function, 1, "LIVE");
    publish(&store, &other, 1, "LIVE");
    let (function, other, v1) = (function.id, other.id, v1.id);
    for sql in [
        "UPDATE function_versions SET size = size + 1".to_owned(),
        "DELETE FROM functions".to_owned(),
        "DELETE FROM function_deployments".to_owned(),
        "UPDATE function_deployments SET actor = 'nobody'".to_owned(),
        format!("DELETE FROM function_versions WHERE id = '{v1}'"),
        format!("UPDATE aliases SET version_id = '{v1}' WHERE function_id = '{other}'"),
        format!("UPDATE functions SET active_version_id = '{v1}' WHERE id = '{other}'"),
        format!("UPDATE functions SET active_version_id = NULL WHERE id = '{function}'"),
        format!("UPDATE functions SET memory_mb = 'much' WHERE id = '{function}'"),
    ] {
        assert!(execute(&store, &sql).is_err(), "{sql}");
    }
}

#[test]
fn deployments_stay_when_there_are_new_words_for_them() {
    const BEFORE: usize = 10;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("levain.db");
    let connection = sqlite::open(&path, Durability::Full, &MIGRATIONS[..BEFORE]).expect("opens");
    let old = Store {
        connection: Mutex::new(connection),
        path: path.clone(),
        is_marked: AtomicBool::new(false),
        is_damaged: AtomicBool::new(false),
    };
    let function = registered(&old, "hello");
    publish(&old, &function, 1, "LIVE");
    publish(&old, &function, 2, "LIVE");
    let rows = old.deployments(function.id, 10, 0).expect("reads");
    drop(old);
    let store = Store::open(&path).expect("opens");
    assert_eq!((rows.len(), store.deployments(function.id, 10, 0).expect("reads")), (2, rows));
    assert!(execute(&store, "UPDATE function_deployments SET actor = 'nobody'").is_err());
    let policy = crate::model::policy::PolicyLimits { crashes_max: Some(0), ..Default::default() };
    let policy: Policy = policy.try_into().expect("a policy");
    store.set_policy(function.id, &AliasName::live(), Some(&policy), "uid:0", at(6)).expect("sets");
}

#[test]
fn a_token_reads_back_and_can_only_be_used_and_revoked() {
    let store = scratch();
    let function = registered(&store, "hello");
    let token = |name: &str, hash: u8| Token {
        id: TokenId::new(),
        name: name.parse().expect("a name"),
        hash: [hash; 32],
        scopes: vec![Scope::Deploy, Scope::Read],
        function: Some(function.id),
        actor: "uid:0".into(),
        created_at: at(1),
        expires_at: Some(at(9)),
        last_used_at: None,
        revoked_at: None,
    };
    let (ci, other) = (token("ci", 1), Token { function: None, expires_at: None, ..token("other", 2) });
    store.insert_token(&ci).expect("inserts");
    store.insert_token(&other).expect("inserts");
    assert_eq!(store.tokens().expect("reads"), [ci.clone(), other.clone()]);
    assert!(matches!(store.insert_token(&token("ci", 3)), Err(StoreError::TokenNameTaken(_))));
    assert!(matches!(store.revoke_token(TokenId::new(), "uid:1", at(5)), Err(StoreError::TokenNotFound(_))));
    store.note_token_uses(&[(ci.id, at(4)), (ci.id, at(3))]).expect("writes");
    store.revoke_token(ci.id, "uid:1", at(5)).expect("revokes");
    store.revoke_token(ci.id, "uid:2", at(6)).expect("it is revoked already");
    let used = Token { last_used_at: Some(at(4)), revoked_at: Some(at(5)), ..ci.clone() };
    assert_eq!(store.tokens().expect("reads"), [used, other]);
    store.insert_token(&token("ci", 3)).expect("the name is free again");
    for sql in [
        "DELETE FROM tokens",
        "UPDATE tokens SET scopes = '[\"admin\"]'",
        "UPDATE tokens SET function_id = NULL",
        "UPDATE tokens SET expires_at = NULL",
        "UPDATE tokens SET revoked_at = NULL, revoked_by = NULL",
    ] {
        assert!(execute(&store, sql).is_err(), "{sql}");
    }
}

#[test]
fn a_row_that_is_not_readable_is_named() {
    let store = scratch();
    let function = registered(&store, "hello");
    execute(&store, "UPDATE functions SET name = 'not a name'").expect("the schema does not know names");
    let error = store.function(function.id).expect_err("no name").to_string();
    assert!(error.contains(&format!("functions ({}) is not readable: name: ", function.id)), "{error}");
    assert!(error.contains("`not a name`"), "{error}");
}

#[test]
fn the_environments_are_there_from_the_start() {
    let store = scratch();
    let connection = store.connection.lock();
    let mut statement = connection.prepare("SELECT name FROM environments ORDER BY name").expect("prepares");
    let names = statement.query_map([], |row| row.get::<_, String>(0)).expect("reads");
    assert_eq!(names.map(|it| it.expect("a row")).collect::<Vec<_>>(), ["dev", "preview", "production", "staging"]);
}

/// The test is its own child: with the variable set it deploys v2, and dies at the given step.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "release builds have no crash points")]
fn a_kill_leaves_the_old_state_or_the_new_one() {
    if let Some(path) = std::env::var_os(FILE_VARIABLE) {
        let store = Store::open(Path::new(&path)).expect("opens");
        let function = store.functions().expect("reads").remove(0);
        publish(&store, &function, 2, "LIVE");
        return;
    }
    let this = format!("{}::a_kill_leaves_the_old_state_or_the_new_one", module_path!());
    let (_, this) = this.split_once("::").expect("a crate and a path in it");
    for (step, survives) in [("store.before_commit", false), ("store.committed", true)] {
        let scratch = scratch();
        let function = registered(&scratch, "hello");
        publish(&scratch, &function, 1, "LIVE");
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", this])
            .envs([(FILE_VARIABLE, scratch.path.as_os_str()), (CRASH_AT_VARIABLE, step.as_ref())])
            .output()
            .expect("the child runs")
            .status;
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{step} is passed");

        let store = Store::open(&scratch.path).expect("opens after the crash");
        let record = store.record(function.id).expect("reads");
        let live = alias(&record, "LIVE").expect("LIVE stays").0;
        assert_eq!(record.versions.len(), if survives { 2 } else { 1 }, "{step}");
        assert_eq!(live, record.versions[0].id, "{step}");
        let active = statuses(&store, function.id).into_iter().filter(|it| it.1 == DeploymentStatus::Active);
        assert_eq!(active.map(|it| it.0).collect::<Vec<_>>(), [record.versions[0].number], "{step}");
    }
}

#[test]
fn a_store_that_has_met_damage_is_not_marked_as_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, mark) = (folder.path().join("levain.db"), folder.path().join("levain.db-closed"));
    let close = |work: &dyn Fn(&Store)| {
        let store = Store::open(&path).expect("opens");
        work(&store);
        store.mark_when_closed();
        drop(store);
        mark.exists()
    };
    assert!(close(&|store| drop(registered(store, "hello"))));
    // A refusal is no damage, an unreadable row is.
    assert!(close(&|store| {
        let function = store.functions().expect("reads").remove(0);
        assert!(matches!(store.insert_function(&function), Err(StoreError::NameTaken(_))));
    }));
    assert!(!close(&|store| {
        let connection = store.connection.lock();
        connection.execute("UPDATE functions SET id = 'nonsense'", []).expect("writes");
        drop(connection);
        assert!(matches!(store.functions(), Err(StoreError::Corrupt { .. })));
    }));
}
