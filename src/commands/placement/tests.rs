//! The plan of a move, decided without a daemon.

use super::{
    AliasMove, Delivery,
    plan::{AliasOutcome, Facts, Plan},
};
use crate::{
    commands::Caller,
    model::{
        DeploymentKind, DeploymentStatus, Digest, Function, FunctionId, FunctionStatus, Percent, Settings, Split,
        Timestamp, Version, VersionId, VersionSource,
    },
    router::{Alias, Entry},
    scheduler::Floor,
};
use std::{sync::Arc, time::Duration};

fn version(function_id: FunctionId, number: u32) -> Arc<Version> {
    Arc::new(Version {
        id: VersionId::new(),
        function_id,
        label: format!("v{number}").parse().expect("a label"),
        number,
        digest: Digest([0; 32]),
        size: 1,
        entry: "index.js".into(),
        source: VersionSource::Upload,
        git_commit: None,
        git_branch: None,
        description: None,
        tags: Vec::new(),
        bun_version: "1".into(),
        settings: Settings::default(),
        created_at: Timestamp::from_millis(0),
    })
}

/// A function with three versions, whose `LIVE` points at the first one, and gives the second this share.
fn entry(share: Option<u8>) -> Arc<Entry> {
    let id = FunctionId::new();
    let versions: Vec<_> = (1..=3).map(|number| version(id, number)).collect();
    let weight = |it| Percent::try_from(u32::from(it)).expect("a percentage");
    let live = Alias {
        name: "LIVE".parse().expect("an alias"),
        environment: "production".parse().expect("an environment"),
        version: versions[0].id,
        split: share.map(|it| Split { version_id: versions[1].id, weight: weight(it) }),
        sticky: None,
        guard: None,
        went_back_at: None,
        rollout: None,
    };
    let function = Function {
        id,
        name: "f".parse().expect("a name"),
        runtime: "bun".into(),
        handler: "default".into(),
        status: FunctionStatus::Deployed,
        settings: Settings { warm_workers: 2, max_concurrent_executions: 5, ..Settings::default() },
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
    };
    let versions = versions.into_iter().rev().collect();
    Arc::new(Entry { function, versions, aliases: vec![live], approved: None })
}

fn wanted(alias: &str, weight: Option<u32>) -> AliasMove {
    let weight = weight.map(|it| Percent::try_from(it).expect("a percentage"));
    let alias = alias.parse().expect("an alias");
    AliasMove { weight, ..AliasMove::new(DeploymentKind::Promote, alias, &Caller::new("test", true), None) }
}

fn plan(entry: &Arc<Entry>, wanted: AliasMove, number: u32, facts: Facts, delivery: Delivery) -> Plan {
    let version = entry.numbered(number).expect("it exists");
    Plan::of(entry, wanted, Arc::clone(version), facts, delivery)
}

#[test]
fn the_outcome_follows_from_the_state_and_the_facts() {
    let of = |number, facts, delivery| plan(&entry(None), wanted("LIVE", None), number, facts, delivery).outcome;
    let stays = || Delivery { stays: true, ..Delivery::default() };
    let protected = || Facts { needs_approval: true, ..Facts::default() };
    assert!(matches!(of(1, Facts::default(), Delivery::default()), AliasOutcome::Unchanged));
    assert!(matches!(of(1, protected(), stays()), AliasOutcome::Unchanged), "there is nothing to approve");
    assert!(matches!(of(2, protected(), stays()), AliasOutcome::NotMeant));
    assert!(matches!(of(2, protected(), Delivery::default()), AliasOutcome::Waits));
    assert!(matches!(of(2, Facts::default(), Delivery::default()), AliasOutcome::Moves));
    let entry = entry(None);
    let row = wanted("LIVE", None).row(&entry, entry.numbered(2).expect("it exists"));
    let waiting = Facts { waiting: Some(row), needs_approval: true };
    let again = plan(&entry, wanted("LIVE", None), 2, waiting, Delivery::default());
    assert!(matches!(again.outcome, AliasOutcome::WaitsAlready(_)));
}

#[test]
fn a_share_is_applied_and_all_invocations_make_it_active() {
    let entry = entry(Some(10));
    let of = |weight, number| plan(&entry, wanted("LIVE", weight), number, Facts::default(), Delivery::default());
    let (share, all, back) = (of(Some(30), 2), of(None, 2), of(None, 1));
    assert_eq!((share.row().status, all.row().status), (DeploymentStatus::Applied, DeploymentStatus::Active));
    let previous = |plan: &Plan| plan.previous().map(ToString::to_string);
    assert_eq!([previous(&share), previous(&all), previous(&back)], ["v1", "v1", "v2"].map(|it| Some(it.to_owned())));
    assert_eq!((back.ended_share().map(u32::from), all.ended_share()), (Some(10), None));
    assert!(matches!(of(Some(10), 2).outcome, AliasOutcome::Unchanged));
    assert_eq!(share.after().alias("LIVE").and_then(|it| it.split).map(|it| it.weight.into()), Some(30));
    assert_eq!(all.after().alias("LIVE").map(|it| (it.version, it.split)), Some((of(None, 2).version.id, None)));
}

#[test]
fn a_version_that_is_only_published_has_the_status_of_that() {
    let delivery = Delivery { stays: true, build_log: Some("log".into()), ..Delivery::default() };
    let row = plan(&entry(None), wanted("LIVE", None), 2, Facts::default(), delivery).row();
    assert_eq!((row.status, row.build_log.as_deref()), (DeploymentStatus::Built, Some("log")));
}

#[test]
fn the_request_and_the_floor_decide_how_many_workers_load() {
    let workers = |alias, warm| {
        let delivery = Delivery { warm, ..Delivery::default() };
        plan(&entry(None), wanted(alias, None), 2, Facts::default(), delivery).workers()
    };
    assert_eq!([workers("LIVE", 0), workers("LIVE", 4), workers("LIVE", 9)], [2, 4, 5]);
    assert_eq!([workers("staging", 0), workers("staging", 3)], [1, 3], "only LIVE has a floor");
}

#[test]
fn versions_that_the_alias_leaves_keep_a_worker_for_a_while() {
    let entry = entry(Some(10));
    let plan = plan(&entry, wanted("LIVE", None), 3, Facts::default(), Delivery::default());
    let floors = plan.floors(&plan.after(), Duration::from_secs(60));
    let of = |number| floors.iter().find(|it| Some(it.0) == entry.numbered(number).map(|it| it.id)).map(|it| it.1);
    assert!(matches!((of(1), of(2)), (Some(Floor::OneUntil(_)), Some(Floor::OneUntil(_)))), "{floors:?}");
    assert_eq!(of(3), Some(Floor::Settings));
    let floors = plan.floors(&plan.after(), Duration::ZERO);
    assert!(floors.iter().filter(|it| it.0 != plan.version.id).all(|it| it.1 == Floor::Nothing), "{floors:?}");
}
