//! Policies, rollouts, and targets of automatic rollbacks.

use super::*;
use crate::model::policy::PolicyLimits;
use crate::model::{Percent, RolloutId, RolloutStatus};

fn rollout(version: &Version, alias: &str) -> Rollout {
    Rollout {
        id: RolloutId::new(),
        function_id: version.function_id,
        alias: alias.parse().expect("an alias"),
        label: version.label.clone(),
        number: version.number,
        plan: "10% 5m, 50% 5m, 100%".parse().expect("a plan"),
        step: 0,
        status: RolloutStatus::Running,
        actor: "uid:0".into(),
        reason: Some("because".into()),
        outcome: None,
        created_at: at(4_000),
        updated_at: at(4_000),
        finished_at: None,
    }
}

/// Commits the deployment of a rollout's current step.
fn step(store: &Store, version: &Version, rollout: &Rollout) -> Result<(), StoreError> {
    let status = match rollout.status {
        RolloutStatus::Done => DeploymentStatus::Active,
        _ => DeploymentStatus::Applied,
    };
    let weight = Some(rollout.present().percent).filter(|_| status == DeploymentStatus::Applied);
    let deployment = Deployment { weight, ..deployment(version, rollout.alias.as_str(), status) };
    let commit = DeploymentCommit { target: Target::Existing(version.id), deployment: &deployment };
    store.commit_with(&commit, &AliasChange { rollout: Some(rollout.clone()), ..AliasChange::default() }).map(drop)
}

/// Sets up `LIVE` with `v1`, and a rollout of `v2` at its first step.
fn with_rollout(store: &Store) -> (Function, Version, Rollout) {
    let function = registered(store, "hello");
    publish(store, &function, 1, "LIVE");
    let second = version(&function, 2);
    let built = deployment(&second, "LIVE", DeploymentStatus::Built);
    store.commit_deployment(&DeploymentCommit { target: Target::New(&second), deployment: &built }).expect("commits");
    let rollout = rollout(&second, "LIVE");
    step(store, &second, &rollout).expect("begins");
    (function, second, rollout)
}

fn live(store: &Store, function: &Function) -> AliasRecord {
    let record = store.record(function.id).expect("reads");
    record.aliases.into_iter().find(|it| it.name.is_live()).expect("LIVE")
}

fn latest(store: &Store, function: &Function) -> Rollout {
    store.rollouts(function.id, None, None, 1).expect("reads").remove(0)
}

fn percent(store: &Store, function: &Function) -> Option<u8> {
    live(store, function).split.map(|it| it.weight.get())
}

#[test]
fn step_and_share_change_together_or_not_at_all() {
    let store = scratch();
    let (function, version, first) = with_rollout(&store);
    assert_eq!((latest(&store, &function), percent(&store, &function)), (first.clone(), Some(10)));
    assert_eq!(live(&store, &function).rollout, Some(first.clone()));
    let second = first.stepped(at(5_000));
    step(&store, &version, &second).expect("steps");
    assert_eq!((latest(&store, &function), percent(&store, &function)), (second.clone(), Some(50)));

    // A second rollout is refused, and leaves neither its share nor its row.
    let rows = store.deployments(function.id, 100, 0).expect("reads").len();
    let error = step(&store, &version, &rollout(&version, "LIVE")).expect_err("one goes on");
    assert!(matches!(&error, StoreError::RolloutGoesOn(alias) if alias.is_live()), "{error}");
    assert_eq!((percent(&store, &function), latest(&store, &function)), (Some(50), second.clone()));
    assert_eq!(store.deployments(function.id, 100, 0).expect("reads").len(), rows);

    let last = second.stepped(at(6_000));
    step(&store, &version, &last).expect("steps");
    let pointed = live(&store, &function);
    assert_eq!((pointed.version_id, pointed.split, pointed.rollout), (version.id, None, None));
    assert_eq!(latest(&store, &function), last);
    assert_eq!((last.status, last.finished_at), (RolloutStatus::Done, Some(at(6_000))));
    // The rollout has ended.
    let paused = second.held(RolloutStatus::Paused, None, at(7_000));
    assert!(matches!(store.update_rollout(&paused), Err(StoreError::RolloutOver(id)) if id == last.id));
    let rows = store.deployments(function.id, 100, 0).expect("reads").len();
    step(&store, &version, &second).expect_err("it is over");
    assert_eq!((live(&store, &function).split, latest(&store, &function)), (None, last));
    assert_eq!(store.deployments(function.id, 100, 0).expect("reads").len(), rows);
}

#[test]
fn whatever_else_moves_calls_aborts_a_rollout_and_says_what_it_was() {
    let store = scratch();
    let (function, version, first) = with_rollout(&store);
    let share = |percent: u32, sticky: Option<&'static str>| {
        let weight = Some(Percent::try_from(percent).expect("a share"));
        let deployment = Deployment {
            weight,
            kind: DeploymentKind::Traffic,
            reason: Some("asked".into()),
            ..deployment(&version, "LIVE", DeploymentStatus::Applied)
        };
        let commit = DeploymentCommit { target: Target::Existing(version.id), deployment: &deployment };
        let sticky: Option<Sticky> = sticky.map(|it| it.parse().expect("a sticky"));
        let change = AliasChange { sticky: Some(sticky.clone()), ..AliasChange::default() };
        store.commit_with(&commit, &change).expect("commits");
        deployment.id
    };
    share(10, Some("cookie:a"));
    assert_eq!(latest(&store, &function), first, "who gets calls is as before");
    // A version that is only published, or fails, moves nothing.
    publish(&store, &function, 3, "STAGING");
    store.insert_failed_deployment(&deployment(&version, "LIVE", DeploymentStatus::Failed)).expect("records");
    assert_eq!(latest(&store, &function), first);
    let id = share(20, None);
    let aborted = latest(&store, &function);
    let expected = format!("ended by a change of the shares to v2 ({id} by uid:0): asked");
    assert_eq!((aborted.status, aborted.outcome), (RolloutStatus::Aborted, Some(expected)));
    assert_eq!(aborted.finished_at, Some(at(3_500)));

    step(&store, &version, &rollout(&version, "STAGING")).expect("begins");
    store.delete_alias(function.id, &"STAGING".parse().expect("an alias"), &gone(9)).expect("deletes");
    assert_eq!(latest(&store, &function).outcome.as_deref(), Some("the alias was deleted"));
    step(&store, &version, &rollout(&version, "LIVE")).expect("begins");
    store.delete_function(function.id, &"uid:0".into(), at(9)).expect("deletes");
    assert_eq!(latest(&store, &function).outcome.as_deref(), Some("the function was deleted"));
}

#[test]
fn a_policy_stays_with_its_alias_and_goes_with_it() {
    let store = scratch();
    let function = registered(&store, "hello");
    let first = publish(&store, &function, 1, "LIVE");
    publish(&store, &function, 1 + first.number, "DEV");
    let policy: Policy =
        PolicyLimits { error_rate_max: Some(0.1), ..PolicyLimits::default() }.try_into().expect("a policy");
    let (live_name, dev): (AliasName, AliasName) = (AliasName::live(), "DEV".parse().expect("an alias"));
    store.set_policy(function.id, &live_name, Some(&policy), "uid:0", at(5)).expect("sets");
    publish(&store, &function, 3, "LIVE");
    assert_eq!(live(&store, &function).policy, Some(policy.clone()));
    let reopened = Store::open(&store.path).expect("opens a second time");
    assert_eq!(live(&reopened, &function).policy, Some(policy.clone()));
    store.set_policy(function.id, &live_name, None, "uid:0", at(6)).expect("removes");
    assert_eq!(live(&store, &function).policy, None);
    store.set_policy(function.id, &dev, Some(&policy), "uid:0", at(7)).expect("sets");
    store.delete_alias(function.id, &dev, &gone(8)).expect("deletes");
    assert!(matches!(store.set_policy(function.id, &dev, None, "uid:0", at(9)), Err(StoreError::AliasNotFound(_))));
    publish(&store, &function, 4, "DEV");
    let record = store.record(function.id).expect("reads");
    assert!(record.aliases.iter().all(|it| it.policy.is_none()), "an alias that is made anew has none");
}

#[test]
fn what_becomes_of_a_policy_is_told_and_is_no_move_of_the_alias() {
    let store = scratch();
    let function = registered(&store, "hello");
    let (first, second) = (publish(&store, &function, 1, "LIVE"), publish(&store, &function, 2, "LIVE"));
    let policy: Policy = PolicyLimits { crashes_max: Some(2), ..PolicyLimits::default() }.try_into().expect("a policy");
    let name = AliasName::live();
    store.set_policy(function.id, &name, Some(&policy), "token:ci", at(7_000)).expect("sets");
    let row = store.deployments(function.id, 1, 0).expect("reads").remove(0);
    let reason = "rolls back: crashes at most 2 within 60 s from 50 calls on, cooldown 300 s";
    assert_eq!((row.kind, row.status), (DeploymentKind::Policy, DeploymentStatus::Changed));
    assert_eq!((row.label, row.alias, row.previous), (second.label, name.clone(), None));
    assert_eq!((row.actor.as_str(), row.reason.as_deref(), row.finished_at), ("token:ci", Some(reason), at(7_000)));
    assert_eq!(store.last_deployments(1).expect("reads")[0].kind, DeploymentKind::Deploy, "it leaves no manifest");
    assert_eq!(store.previous_target(function.id, &name).expect("reads"), Some(first.id));

    // Neither does it lift the cooldown of a version that the alias was rolled back to.
    let kind = DeploymentKind::AutoRollback;
    let back = Deployment { kind, finished_at: at(8_000), ..deployment(&first, "LIVE", DeploymentStatus::Active) };
    let commit = DeploymentCommit { target: Target::Existing(first.id), deployment: &back };
    store.commit_deployment(&commit).expect("commits");
    store.set_policy(function.id, &name, Some(&policy), "token:ci", at(9_000)).expect("sets");
    assert_eq!(live(&store, &function).went_back_at, Some(at(8_000)));
}

#[test]
fn an_alias_goes_back_by_itself_to_no_version_that_it_left_so() {
    let store = scratch();
    let function = registered(&store, "hello");
    let versions: Vec<Version> = (1..=4).map(|number| publish(&store, &function, number, "LIVE")).collect();
    let name = AliasName::live();
    let policy: Policy = PolicyLimits { crashes_max: Some(0), ..PolicyLimits::default() }.try_into().expect("a policy");
    store.set_policy(function.id, &name, Some(&policy), "uid:0", at(5)).expect("sets");
    let target = || {
        let id = store.automatic_target(function.id, &name).expect("reads")?;
        versions.iter().find(|it| it.id == id).map(|it| it.number)
    };
    let went_back = || live(&store, &function).went_back_at;
    let go_back = |to: u32, from: u32| {
        let [to, from] = [to, from].map(|number| &versions[number as usize - 1]);
        let previous = Some(from.label.clone());
        let kind = DeploymentKind::AutoRollback;
        let deployment = Deployment { kind, previous, ..deployment(to, "LIVE", DeploymentStatus::Active) };
        let commit = DeploymentCommit { target: Target::Existing(to.id), deployment: &deployment };
        store.commit_deployment(&commit).expect("commits");
    };
    assert_eq!((target(), went_back()), (Some(3), None));
    go_back(3, 4);
    assert_eq!((target(), went_back()), (Some(2), Some(at(3_500))), "v4 was left");
    go_back(2, 3);
    assert_eq!(target(), Some(1));
    // The alias is pointed at v3 again, and then at v1: v3 is a target again, v4 is not.
    redeploy(&store, &versions[2], "LIVE").expect("commits");
    assert_eq!((target(), went_back()), (Some(2), None));
    redeploy(&store, &versions[0], "LIVE").expect("commits");
    assert_eq!(target(), Some(3));
    go_back(3, 1);
    assert_eq!(target(), Some(2));
    go_back(2, 3);
    assert_eq!((target(), went_back()), (None, Some(at(3_500))), "all others were left");
    // A failure moves nothing; a share set by a user ends the cooldown.
    store.insert_failed_deployment(&deployment(&versions[3], "LIVE", DeploymentStatus::Failed)).expect("records");
    assert!(went_back().is_some());
    let weight = Some(Percent::try_from(5).expect("a share"));
    let share = Deployment { weight, ..deployment(&versions[3], "LIVE", DeploymentStatus::Applied) };
    let commit = DeploymentCommit { target: Target::Existing(versions[3].id), deployment: &share };
    store.commit_deployment(&commit).expect("commits");
    assert_eq!(went_back(), None);
    let last = store.last_auto_rollback(function.id, &name).expect("reads").expect("there was one");
    assert_eq!((last.number, last.previous), (Some(2), Some(versions[2].label.clone())));
}
