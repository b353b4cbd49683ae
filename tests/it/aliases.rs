//! SET_ALIAS, LIST_ALIASES and DELETE_ALIAS.

use crate::harness::{Load, TestDaemon, is_refused, json, text};
use levain::{
    config::Verify,
    error::{Error, ErrorCode},
    model::{DeploymentKind, DeploymentStatus},
    protocol::{
        field::Body,
        ipc::Encoding,
        message::{
            AliasDetails, AliasesRequest, DeleteAliasRequest, DeleteAliasResponse, DeleteVersionRequest, DeployRequest,
            DeployResponse, DeploymentsRequest, RollbackRequest, SetAliasRequest, VersionRef,
        },
    },
};
use serde_json::json;
use std::collections::BTreeMap;

/// A function that answers with its word and the environment it runs in.
fn says(word: &str) -> String {
    format!("export default (req, ctx) => Response.json([{word:?}, ctx.environment]);")
}

fn request(alias: &str, version: &str) -> SetAliasRequest {
    SetAliasRequest {
        function_id: "f".into(),
        name: alias.into(),
        version: VersionRef::Label(version.into()),
        environment: None,
        description: None,
        reason: None,
        dry_run: false,
    }
}

async fn set(daemon: &TestDaemon, alias: &str, version: &str) -> Result<DeployResponse, Error> {
    daemon.call(&request(alias, version)).await
}

async fn delete(daemon: &TestDaemon, alias: &str) -> Result<DeleteAliasResponse, Error> {
    daemon.call(&DeleteAliasRequest { function_id: "f".into(), name: alias.into() }).await
}

async fn delete_version(daemon: &TestDaemon, version: &str) -> Result<(), Error> {
    daemon.call(&DeleteVersionRequest { function_id: "f".into(), version: version.into() }).await.map(drop)
}

async fn aliases(daemon: &TestDaemon) -> Vec<AliasDetails> {
    daemon.call(&AliasesRequest { function_id: "f".into(), ..AliasesRequest::default() }).await.unwrap().aliases
}

/// Lists the aliases as `LIVE v2, ROLLBACK v1`.
async fn shown(daemon: &TestDaemon) -> String {
    let aliases = aliases(daemon).await;
    aliases.iter().map(|it| format!("{} {}", it.name, it.version)).collect::<Vec<_>>().join(", ")
}

/// Invokes `f` with a qualifier, and returns its word and its environment.
async fn answer(daemon: &TestDaemon, function: &str) -> serde_json::Value {
    let answer = daemon.invoke(function).await.unwrap_or_else(|error| panic!("{function}: {error:?}"));
    json(&answer)
}

/// Deploys a function `f` with versions v1, v2 and so on that answer with their own label; the last is live.
async fn with_versions(count: u32) -> TestDaemon {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    for number in 1..=count {
        daemon.redeploy_text("f", None, &says(&format!("v{number}"))).await.unwrap();
    }
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_set_moved_listed_and_deleted() {
    let daemon = with_versions(2).await;
    let made = SetAliasRequest {
        description: Some("for the testers".into()),
        reason: Some("to try it".into()),
        ..request("STAGING", "v1")
    };
    let made = daemon.call(&made).await.unwrap();
    assert_eq!((made.alias.as_str(), made.environment.as_str(), made.number), ("STAGING", "staging", 1));
    assert_eq!((made.status.name(), made.published, made.previous_version), ("deployed", false, None));
    assert_eq!(answer(&daemon, "f:STAGING").await, json!(["v1", "staging"]));
    assert_eq!(answer(&daemon, "f").await, json!(["v2", "production"]), "LIVE keeps its version");

    let moved = SetAliasRequest { version: VersionRef::Number(2), ..request("STAGING", "") };
    let moved = daemon.call(&moved).await.unwrap();
    assert_eq!(
        (moved.version.as_str(), moved.previous_version.as_ref().map(ToString::to_string).as_deref()),
        ("v2", Some("v1"))
    );
    assert_eq!(answer(&daemon, "f:STAGING").await, json!(["v2", "staging"]));

    let rows = daemon.deployments("f").await;
    let (last, first) = (&rows[0], &rows[1]);
    assert_eq!((last.kind, last.status, last.is_active), (DeploymentKind::Promote, DeploymentStatus::Active, true));
    assert_eq!((last.alias.as_str(), last.environment.as_str()), ("STAGING", "staging"));
    assert_eq!(
        (last.previous_version.as_ref().map(ToString::to_string).as_deref(), last.version.as_str()),
        (Some("v1"), "v2")
    );
    assert_eq!((&last.deployment_id, first.status), (&moved.deployment_id, DeploymentStatus::Superseded));
    assert_eq!(first.reason.as_deref(), Some("to try it"));
    assert!(last.duration_ms < 20_000 && last.actor.starts_with("uid:"), "{last:?}");
    assert!(rows[2].is_active && rows[2].alias == "LIVE", "{rows:?}");

    assert_eq!(shown(&daemon).await, "LIVE v2, ROLLBACK v1, STAGING v2");
    let staging = aliases(&daemon).await.pop().unwrap();
    assert_eq!(
        (staging.number, staging.previous_version.as_ref().map(ToString::to_string).as_deref()),
        (2, Some("v1"))
    );
    assert_eq!(staging.description.as_deref(), Some("for the testers"), "the description stays when the alias moves");

    let deleted = delete(&daemon, "STAGING").await.unwrap();
    assert_eq!((deleted.name.as_str(), deleted.version.as_str()), ("STAGING", "v2"));
    assert!(is_refused(&daemon.invoke("f:STAGING").await, ErrorCode::AliasNotFound));
    assert!(is_refused(&delete(&daemon, "STAGING").await, ErrorCode::AliasNotFound));
    assert_eq!(shown(&daemon).await, "LIVE v2, ROLLBACK v1");
    assert_eq!(daemon.deployments("f").await.iter().filter(|it| it.is_active).count(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alias_runs_in_its_environment() {
    let daemon = with_versions(1).await;
    for (alias, environment) in
        [("STAGING", "staging"), ("DEV", "dev"), ("preview-42", "preview"), ("canary", "production")]
    {
        set(&daemon, alias, "v1").await.unwrap();
        assert_eq!(answer(&daemon, &format!("f:{alias}")).await, json!(["v1", environment]));
    }
    assert_eq!(answer(&daemon, "f").await, json!(["v1", "production"]));
    assert_eq!(answer(&daemon, "f:v1").await, json!(["v1", "production"]));
    // A version has a pool in each environment; aliases in the same environment share the pool.
    let mut pools: Vec<_> =
        daemon.pools("f").await.into_iter().map(|it| (it.environment.to_string(), it.idle)).collect();
    pools.sort();
    let expected = ["dev", "preview", "production", "staging"].map(|it| (it.to_owned(), 1));
    assert_eq!(pools, expected);

    let moved = SetAliasRequest { environment: Some("dev".into()), ..request("canary", "v1") };
    assert_eq!(daemon.call(&moved).await.unwrap().environment, "dev");
    assert_eq!(answer(&daemon, "f:canary").await, json!(["v1", "dev"]));
    set(&daemon, "canary", "v1").await.unwrap();
    assert_eq!(answer(&daemon, "f:canary").await, json!(["v1", "dev"]), "the alias stays in its environment");
    let unknown = SetAliasRequest { environment: Some("moon".into()), ..request("canary", "v1") };
    let outcome = daemon.call(&unknown).await;
    assert!(is_refused(&outcome, ErrorCode::EnvironmentNotFound), "{outcome:?}");
    assert!(outcome.unwrap_err().details.unwrap().to_string().contains("staging"));
    let live = SetAliasRequest { environment: Some("dev".into()), ..request("LIVE", "v1") };
    assert!(is_refused(&daemon.call(&live).await, ErrorCode::InvalidRequest));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_alias_says_which_version_is_meant() {
    let daemon = with_versions(3).await;
    set(&daemon, "STAGING", "v1").await.unwrap();
    set(&daemon, "LIVE", "STAGING").await.unwrap();
    assert_eq!(answer(&daemon, "f").await, json!(["v1", "production"]));
    set(&daemon, "STAGING", "v2").await.unwrap();
    assert_eq!(answer(&daemon, "f").await, json!(["v1", "production"]), "LIVE keeps the version that STAGING had then");
    let back = RollbackRequest {
        function_id: "f".into(),
        version: Some(VersionRef::Label("ROLLBACK".into())),
        ..RollbackRequest::default()
    };
    assert_eq!(daemon.call(&back).await.unwrap().version, "v3");
    assert!(is_refused(&set(&daemon, "LIVE", "DEV").await, ErrorCode::VersionNotFound));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_is_set_as_any_other_and_rollback_follows_it() {
    let daemon = with_versions(3).await;
    assert_eq!(answer(&daemon, "f:ROLLBACK").await, json!(["v2", "production"]));
    set(&daemon, "LIVE", "v1").await.unwrap();
    assert_eq!(answer(&daemon, "f").await, json!(["v1", "production"]));
    assert_eq!(answer(&daemon, "f:ROLLBACK").await, json!(["v3", "production"]));
    // ROLLBACK does not keep its version: when that is deleted, ROLLBACK points at the one before.
    delete_version(&daemon, "v3").await.unwrap();
    assert_eq!(shown(&daemon).await, "LIVE v1, ROLLBACK v2");
    delete_version(&daemon, "v2").await.unwrap();
    assert_eq!(shown(&daemon).await, "LIVE v1");
    assert!(is_refused(&daemon.invoke("f:ROLLBACK").await, ErrorCode::AliasNotFound));

    let deploy = DeployRequest {
        function_id: "f".into(),
        version: Some("v1".into()),
        alias: Some("ROLLBACK".into()),
        ..DeployRequest::default()
    };
    let back =
        RollbackRequest { function_id: "f".into(), alias: Some("ROLLBACK".into()), ..RollbackRequest::default() };
    let outcomes = [
        set(&daemon, "ROLLBACK", "v1").await.map(drop),
        daemon.call(&deploy).await.map(drop),
        daemon.call(&back).await.map(drop),
        delete(&daemon, "ROLLBACK").await.map(drop),
        delete(&daemon, "LIVE").await.map(drop),
    ];
    for outcome in outcomes {
        assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    }
    assert_eq!(shown(&daemon).await, "LIVE v1");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_again_changes_nothing_but_the_description() {
    let daemon = with_versions(1).await;
    let first = set(&daemon, "STAGING", "v1").await.unwrap();
    let before = daemon.deployments("f").await;
    for (description, kept) in [(None, None), (Some("a"), Some("a")), (None, Some("a")), (Some(""), None)] {
        let again = SetAliasRequest { description: description.map(Into::into), ..request("STAGING", "v1") };
        assert_eq!(daemon.call(&again).await.unwrap().deployment_id, first.deployment_id);
        assert_eq!(aliases(&daemon).await.pop().unwrap().description.as_deref(), kept);
    }
    assert_eq!(daemon.deployments("f").await, before);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_load_gets_no_alias() {
    let daemon = TestDaemon::start_with(|config| config.versioning.verify = Verify::Syntax).await;
    daemon.register("f").await;
    for code in [&says("v1"), "throw new Error('never'); export default () => {};"] {
        let built = DeployRequest {
            function_id: "f".into(),
            bundle: Some(Body::from(code.as_bytes().to_vec())),
            activate: Some(false),
            ..DeployRequest::default()
        };
        daemon.call(&built).await.unwrap();
    }
    set(&daemon, "STAGING", "v1").await.unwrap();
    for alias in ["STAGING", "DEV", "LIVE"] {
        let outcome = set(&daemon, alias, "v2").await;
        assert!(is_refused(&outcome, ErrorCode::BundleLoadError), "{outcome:?}");
    }
    assert_eq!(shown(&daemon).await, "STAGING v1");
    assert_eq!(answer(&daemon, "f:STAGING").await, json!(["v1", "staging"]));
    let failed = DeploymentsRequest {
        function_id: "f".into(),
        status: Some(DeploymentStatus::Failed),
        ..DeploymentsRequest::default()
    };
    let failed = daemon.call(&failed).await.unwrap().deployments;
    assert_eq!(failed.iter().map(|it| it.alias.as_str()).collect::<Vec<_>>(), ["LIVE", "DEV", "STAGING"]);
    assert!(failed.iter().all(|it| it.build_log.as_ref().is_some_and(|log| log.contains("never"))), "{failed:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_alias_is_refused() {
    let daemon = with_versions(1).await;
    let mut broken = request("STAGING", "v1");
    broken.function_id = "nobody".into();
    assert!(is_refused(&daemon.call(&broken).await, ErrorCode::FunctionNotFound));
    for (alias, version, code) in [
        ("STAGING", "v9", ErrorCode::VersionNotFound),
        ("STAGING", "STAGING", ErrorCode::VersionNotFound),
        ("a b", "v1", ErrorCode::InvalidRequest),
        ("", "v1", ErrorCode::InvalidRequest),
        ("1", "v1", ErrorCode::InvalidRequest),
        ("v1", "v1", ErrorCode::Conflict),
    ] {
        let outcome = set(&daemon, alias, version).await;
        assert!(is_refused(&outcome, code), "{alias} {version}: {outcome:?}");
    }
    let long = SetAliasRequest { description: Some("x".repeat(5_000)), ..request("STAGING", "v1") };
    assert!(is_refused(&daemon.call(&long).await, ErrorCode::InvalidRequest));
    let json = daemon.connect().await.with_encoding(Encoding::Json);
    let (status, payload) = json.call_raw(0x10, br#"{"function_id": "f", "name": "STAGING"}"#).await.unwrap();
    assert!(status == 1 && String::from_utf8_lossy(&payload).contains("version"), "{payload:?}");

    // A label must not be the name of an alias either; an automatic label skips the taken number.
    set(&daemon, "v2", "v1").await.unwrap();
    for label in ["v2", "LIVE", "ROLLBACK"] {
        let outcome = daemon.redeploy_text("f", Some(label), &says("other")).await;
        assert!(is_refused(&outcome, ErrorCode::Conflict), "{label}: {outcome:?}");
    }
    let next = daemon.redeploy_text("f", None, &says("two")).await.unwrap();
    assert_eq!((next.version.as_str(), next.number), ("v2-2", 2));
    assert_eq!(answer(&daemon, "f:v2").await, json!(["v1", "production"]));
    assert_eq!(answer(&daemon, "f:2").await, json!(["two", "production"]));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_qualifiers_are_answered_with_what_there_is() {
    let daemon = with_versions(2).await;
    let cases = [
        ("f:DEV", ErrorCode::AliasNotFound, json!({ "alias": "DEV", "aliases": ["LIVE", "ROLLBACK"] })),
        ("f:v7", ErrorCode::VersionNotFound, json!({ "versions": ["v2", "v1"] })),
        ("f:7", ErrorCode::VersionNotFound, json!({ "versions": ["v2", "v1"] })),
    ];
    for (function, code, details) in cases {
        let error = daemon.invoke(function).await.unwrap_err();
        assert_eq!((error.code, error.details), (code, Some(details)), "{function}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_stays_as_long_as_an_alias_points_at_it() {
    let mut daemon = with_versions(2).await;
    for alias in ["STAGING", "canary"] {
        set(&daemon, alias, "v1").await.unwrap();
    }
    daemon.restart().await;
    let error = delete_version(&daemon, "v1").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::VersionInUse);
    assert!(error.message.contains("STAGING, canary"), "{}", error.message);
    assert_eq!(answer(&daemon, "f:STAGING").await, json!(["v1", "staging"]), "aliases survive a restart");
    delete(&daemon, "canary").await.unwrap();
    assert!(is_refused(&delete_version(&daemon, "v1").await, ErrorCode::VersionInUse));
    set(&daemon, "STAGING", "v2").await.unwrap();
    delete_version(&daemon, "v1").await.unwrap();
    assert_eq!(shown(&daemon).await, "LIVE v2, STAGING v2");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_an_alias_notice_nothing_while_it_moves() {
    let daemon = with_versions(2).await;
    set(&daemon, "STAGING", "v1").await.unwrap();
    let load = Load::start(&daemon, "f:STAGING", "/", 3).await;
    for version in ["v2", "v1", "v2", "v1"] {
        set(&daemon, "STAGING", version).await.unwrap();
        load.until_answered(30).await;
    }
    let answers = load.stop().await;
    assert!(["v1", "v2"].iter().all(|it| answers.iter().any(|answer| answer.version == **it)), "both had traffic");
    assert!(answers.iter().all(|it| text(it) == format!("[\"{}\",\"staging\"]", it.version)));
    daemon.stop().await;
}

/// A small random generator; a seed always gives the same numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// The expected state: the existing versions, and every alias with all versions it ever pointed at.
#[derive(Default)]
struct Model {
    versions: Vec<String>,
    published: u32,
    histories: BTreeMap<String, Vec<String>>,
    there: BTreeMap<String, String>,
}

impl Model {
    fn point(&mut self, alias: &str, version: &str) {
        if self.there.insert(alias.into(), version.into()).as_deref() != Some(version) {
            self.histories.entry(alias.into()).or_default().push(version.into());
        }
    }

    fn previous(&self, alias: &str) -> Option<&String> {
        let present = self.there.get(alias)?;
        self.histories[alias].iter().rev().find(|it| *it != present && self.versions.contains(it))
    }

    fn aliases(&self) -> BTreeMap<String, String> {
        let rollback = self.previous("LIVE").map(|it| ("ROLLBACK".to_owned(), it.clone()));
        self.there.clone().into_iter().chain(rollback).collect()
    }
}

const ALIASES: [&str; 3] = ["LIVE", "STAGING", "canary"];

async fn act(daemon: &TestDaemon, model: &mut Model, random: &mut Random) {
    let alias = ALIASES[random.below(3)];
    let version = (!model.versions.is_empty()).then(|| model.versions[random.below(model.versions.len())].clone());
    match (random.below(5), version) {
        (0, _) | (_, None) => {
            model.published += 1;
            let label = format!("v{}", model.published);
            let deploy = DeployRequest {
                function_id: "f".into(),
                bundle: Some(Body::from(says(&label).into_bytes())),
                alias: Some(alias.into()),
                ..DeployRequest::default()
            };
            assert_eq!(daemon.call(&deploy).await.unwrap().version, label.as_str());
            model.versions.push(label.clone());
            model.point(alias, &label);
        }
        (1, Some(version)) => {
            set(daemon, alias, &version).await.unwrap();
            model.point(alias, &version);
        }
        (2, Some(_)) => {
            let back =
                RollbackRequest { function_id: "f".into(), alias: Some(alias.into()), ..RollbackRequest::default() };
            let outcome = daemon.call(&back).await.map(|it| it.version.to_string()).map_err(|it| it.code);
            match model.previous(alias).cloned() {
                Some(version) => {
                    assert_eq!(outcome, Ok(version.clone()));
                    model.point(alias, &version);
                }
                None if alias == "LIVE" || model.there.contains_key(alias) => {
                    assert_eq!(outcome, Err(ErrorCode::VersionNotFound));
                }
                None => assert_eq!(outcome, Err(ErrorCode::AliasNotFound)),
            }
        }
        (3, Some(version)) => {
            let is_used = model.there.values().any(|it| *it == version);
            let outcome = delete_version(daemon, &version).await.map_err(|it| it.code);
            assert_eq!(outcome, if is_used { Err(ErrorCode::VersionInUse) } else { Ok(()) }, "{version}");
            model.versions.retain(|it| is_used || *it != version);
        }
        (_, Some(_)) => {
            let outcome = delete(daemon, alias).await.map(|it| it.version.to_string()).map_err(|it| it.code);
            match alias {
                "LIVE" => assert_eq!(outcome, Err(ErrorCode::Conflict)),
                _ => assert_eq!(outcome, model.there.remove(alias).ok_or(ErrorCode::AliasNotFound)),
            }
        }
    }
}

/// After any history of commands, an alias points at an existing version with its bundle, and answers.
#[tokio::test(flavor = "multi_thread")]
async fn random_histories_never_leave_an_alias_at_nothing() {
    for seed in [0x1E5A_1234, 0x2C0F_FEE5, 0x3B0B_1234] {
        let (daemon, mut model, mut random) = (TestDaemon::start().await, Model::default(), Random(seed));
        daemon.register("f").await;
        let id = daemon.info("f").await.function_id;
        for step in 0..30 {
            act(&daemon, &mut model, &mut random).await;
            let there = aliases(&daemon).await;
            let there: BTreeMap<_, _> = there.iter().map(|it| (it.name.to_string(), it.version.to_string())).collect();
            assert_eq!(there, model.aliases(), "seed {seed:#x}, step {step}");
            for (alias, version) in there {
                assert!(daemon.bundle_folder(id, &version).join("bundle.js").exists(), "{version} has no bundle");
                assert_eq!(
                    answer(&daemon, &format!("f:{alias}")).await[0],
                    json!(version),
                    "seed {seed:#x}, step {step}"
                );
            }
        }
        daemon.stop().await;
    }
}
