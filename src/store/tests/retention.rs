//! Random histories of cleanups, compared with a simple model.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One act of a random history; indices are taken modulo the number of items.
#[derive(Debug, Clone)]
enum Act {
    Publish { alias: usize, moves: bool },
    Redeploy { version: usize, alias: usize },
    Share { version: usize, alias: usize },
    DeleteAlias { alias: usize },
    DeleteVersion { version: usize },
    Roll { version: usize, alias: usize },
    EndRollout { rollout: usize },
    AskApproval { version: usize, alias: usize },
    Decide { pending: usize },
    Cleanup { keep: u32, dry_run: bool },
}

const ALIASES: [&str; 3] = ["LIVE", "STAGING", "DEV"];

fn act() -> impl Strategy<Value = Act> {
    let (alias, index) = (0..ALIASES.len(), any::<usize>());
    prop_oneof![
        6 => (alias.clone(), any::<bool>()).prop_map(|(alias, moves)| Act::Publish { alias, moves }),
        4 => (index, alias.clone()).prop_map(|(version, alias)| Act::Redeploy { version, alias }),
        2 => (index, alias.clone()).prop_map(|(version, alias)| Act::Share { version, alias }),
        1 => alias.clone().prop_map(|alias| Act::DeleteAlias { alias }),
        1 => index.prop_map(|version| Act::DeleteVersion { version }),
        1 => (index, alias.clone()).prop_map(|(version, alias)| Act::Roll { version, alias }),
        1 => index.prop_map(|rollout| Act::EndRollout { rollout }),
        1 => (index, alias).prop_map(|(version, alias)| Act::AskApproval { version, alias }),
        1 => index.prop_map(|pending| Act::Decide { pending }),
        4 => (1..4_u32, any::<bool>()).prop_map(|(keep, dry_run)| Act::Cleanup { keep, dry_run }),
    ]
}

/// Expected state of the store in its simplest form.
#[derive(Default)]
struct Model {
    /// Versions, the oldest first.
    versions: Vec<Version>,
    aliases: BTreeMap<usize, (VersionId, Option<VersionId>)>,
    live_history: Vec<VersionId>,
    /// By alias: the version that a rollout raises.
    rollouts: BTreeMap<usize, VersionId>,
    pending: Vec<(DeploymentId, VersionId)>,
}

impl Model {
    fn point(&mut self, alias: usize, version: VersionId) {
        self.aliases.insert(alias, (version, None));
        // Any other move of an alias aborts its rollout.
        self.rollouts.remove(&alias);
        if alias == 0 {
            self.live_history.push(version);
        }
    }

    fn rollback(&self) -> Option<VersionId> {
        let (live, _) = self.aliases.get(&0)?;
        let exists = |id: &VersionId| self.versions.iter().any(|it| it.id == *id);
        self.live_history.iter().rev().copied().find(|id| id != live && exists(id))
    }

    /// Returns the reasons to keep a version, as the store names them.
    fn reasons(&self, id: VersionId, keep: usize) -> BTreeSet<String> {
        let newest = self.versions.iter().rev().take(keep).any(|it| it.id == id).then(|| "newest".to_owned());
        let aliases = self.aliases.iter().filter(|(_, (first, second))| *first == id || *second == Some(id));
        let aliases = aliases.map(|(alias, _)| format!("alias {}", ALIASES[*alias]));
        let rollback = (self.rollback() == Some(id)).then(|| "alias ROLLBACK".to_owned());
        let rollouts = self.rollouts.iter().filter(|it| *it.1 == id);
        let rollouts = rollouts.map(|(alias, _)| format!("rollout of {}", ALIASES[*alias]));
        let pending = self.pending.iter().filter(|it| it.1 == id).map(|it| format!("approval of {}", it.0));
        newest.into_iter().chain(aliases).chain(rollback).chain(rollouts).chain(pending).collect()
    }
}

fn picture(store: &Store, function: &Function) -> (FunctionRecord, Vec<Deployment>) {
    (store.record(function.id).expect("reads"), store.deployments(function.id, u32::MAX, 0).expect("reads"))
}

fn existing(store: &Store, deployment: &Deployment, version: &Version) {
    let commit = DeploymentCommit { target: Target::Existing(version.id), deployment };
    store.commit_deployment(&commit).expect("commits");
}

const STEPS: &str = r#"[{"percent": 1, "hold_seconds": 60}, {"percent": 100, "hold_seconds": 0}]"#;

fn roll(store: &Store, version: &Version, alias: &str) {
    let (function, number) = (version.function_id, version.number);
    execute(
        store,
        &format!(
            "INSERT INTO rollouts (id, function_id, alias, version, number, steps, step, status, actor, created_at, \
             updated_at) VALUES ('{}', '{function}', '{alias}', '{}', {number}, '{STEPS}', 0, 'running', 'uid:0', 0, 0)",
            crate::model::RolloutId::new(),
            version.label
        ),
    )
    .expect("inserts");
}

fn perform(store: &Store, function: &Function, model: &mut Model, act: &Act) {
    let pick = |index: usize| model.versions.get(index.checked_rem(model.versions.len())?).cloned();
    match *act {
        Act::Publish { alias, moves } => {
            let version = version(function, store.next_number(function.id).expect("reads"));
            let status = if moves { DeploymentStatus::Active } else { DeploymentStatus::Built };
            let deployment = deployment(&version, ALIASES[alias], status);
            let commit = DeploymentCommit { target: Target::New(&version), deployment: &deployment };
            store.commit_deployment(&commit).expect("commits");
            if moves {
                model.point(alias, version.id);
            }
            model.versions.push(version);
        }
        Act::Redeploy { version, alias } => {
            let Some(version) = pick(version) else { return };
            redeploy(store, &version, ALIASES[alias]).expect("commits");
            model.point(alias, version.id);
        }
        Act::Share { version, alias } => {
            let Some(version) = pick(version) else { return };
            let Some((first, second)) = model.aliases.get_mut(&alias).filter(|it| it.0 != version.id) else { return };
            let deployment = Deployment {
                kind: DeploymentKind::Traffic,
                weight: Some(0.try_into().expect("a share")),
                ..deployment(&version, ALIASES[alias], DeploymentStatus::Applied)
            };
            existing(store, &deployment, &version);
            assert_ne!(*first, version.id);
            if second.replace(version.id) != Some(version.id) {
                model.rollouts.remove(&alias);
            }
        }
        Act::DeleteAlias { alias } => {
            if alias > 0 && model.aliases.remove(&alias).is_some() {
                store.delete_alias(function.id, &ALIASES[alias].parse().expect("an alias"), &gone(9)).expect("deletes");
                model.rollouts.remove(&alias);
            }
        }
        Act::DeleteVersion { version } => {
            let Some(version) = pick(version) else { return };
            let mut reasons = model.reasons(version.id, 0);
            reasons.remove("alias ROLLBACK");
            match store.delete_version(function.id, version.id, at(9)) {
                Ok(()) => assert_eq!(reasons, BTreeSet::new(), "what something refers to must stay"),
                Err(StoreError::VersionInUse { by, .. }) => {
                    return assert_eq!(by.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), reasons);
                }
                Err(error) => panic!("{error}"),
            }
            model.versions.retain(|it| it.id != version.id);
        }
        Act::Roll { version, alias } => {
            let Some(version) = pick(version).filter(|_| !model.rollouts.contains_key(&alias)) else { return };
            roll(store, &version, ALIASES[alias]);
            model.rollouts.insert(alias, version.id);
        }
        Act::EndRollout { rollout } => {
            let Some(alias) = model.rollouts.keys().copied().nth(rollout % model.rollouts.len().max(1)) else { return };
            let end = "UPDATE rollouts SET status = 'done', finished_at = 1 WHERE finished_at IS NULL AND alias = ";
            execute(store, &format!("{end}'{}'", ALIASES[alias])).expect("updates");
            model.rollouts.remove(&alias);
        }
        Act::AskApproval { version, alias } => {
            let Some(version) = pick(version) else { return };
            let deployment = deployment(&version, ALIASES[alias], DeploymentStatus::PendingApproval);
            existing(store, &deployment, &version);
            model.pending.push((deployment.id, version.id));
        }
        Act::Decide { pending } => {
            let Some(index) = pending.checked_rem(model.pending.len()) else { return };
            let (deployment, _) = model.pending.remove(index);
            let reject = "UPDATE function_deployments SET status = 'rejected' WHERE id = ";
            execute(store, &format!("{reject}'{deployment}'")).expect("updates");
        }
        Act::Cleanup { keep, dry_run } => cleanup(store, function, model, keep, dry_run),
    }
}

fn cleanup(store: &Store, function: &Function, model: &mut Model, keep: u32, dry_run: bool) {
    let before = picture(store, function);
    let pruned = store.prune_versions(function.id, keep, dry_run, at(10)).expect("prunes");
    let newest_first = || model.versions.iter().rev().map(|it| (it, model.reasons(it.id, keep as usize)));
    let goes: Vec<_> = newest_first().filter(|it| it.1.is_empty()).map(|it| it.0.clone()).collect();
    let stays: Vec<_> = newest_first().filter(|it| !it.1.is_empty()).map(|(it, why)| (it.clone(), why)).collect();
    assert_eq!(pruned.removed, goes);
    let kept = pruned.kept.iter().map(|(it, why)| (it.clone(), why.iter().map(ToString::to_string).collect()));
    assert_eq!(kept.collect::<Vec<_>>(), stays);
    if dry_run || goes.is_empty() {
        assert_eq!(picture(store, function), before, "nothing may change");
    }
    if !dry_run {
        model.versions.retain(|it| !goes.contains(it));
    }
}

fn check(store: &Store, function: &Function, model: &Model) {
    let record = store.record(function.id).expect("reads");
    assert!(record.versions.iter().eq(model.versions.iter().rev()));
    let exists = |id: VersionId| model.versions.iter().any(|it| it.id == id);
    for alias in &record.aliases {
        let second = alias.split.map(|it| it.version_id);
        assert!(exists(alias.version_id) && second.is_none_or(exists), "{} points at what is there", alias.name);
        let expected = match ALIASES.iter().position(|name| *name == alias.name.as_str()) {
            Some(index) => model.aliases.get(&index).copied(),
            None => model.rollback().map(|it| (it, None)),
        };
        assert_eq!(Some((alias.version_id, second)), expected, "{}", alias.name);
    }
    let rollback = usize::from(model.rollback().is_some());
    assert_eq!(record.aliases.len(), model.aliases.len() + rollback);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_what_is_referred_to_and_the_newest(acts in prop::collection::vec(act(), 1..50)) {
        let scratch = scratch();
        let (function, mut model) = (registered(&scratch, "hello"), Model::default());
        for act in &acts {
            perform(&scratch, &function, &mut model, act);
            check(&scratch, &function, &model);
        }
    }
}

#[test]
fn a_cleanup_of_a_function_without_versions_does_nothing_and_of_a_deleted_one_is_refused() {
    let store = scratch();
    let function = registered(&store, "hello");
    let pruned = store.prune_versions(function.id, 1, false, at(9)).expect("prunes");
    assert_eq!(pruned, Pruned { removed: Vec::new(), kept: Vec::new() });
    assert_eq!(store.function(function.id).expect("reads"), function, "nothing has changed");
    store.delete_function(function.id, &"uid:0".into(), at(9)).expect("deletes");
    let error = store.prune_versions(function.id, 1, false, at(9)).expect_err("it is gone");
    assert!(matches!(error, StoreError::FunctionNotFound(_)), "{error}");
}

#[test]
fn the_versions_of_other_functions_are_not_its_business() {
    let store = scratch();
    let (one, other) = (registered(&store, "one"), registered(&store, "other"));
    for number in 1..=4 {
        publish(&store, &one, number, "LIVE");
        publish(&store, &other, number, "LIVE");
    }
    // The other function's rollout concerns a version of the same number.
    roll(&store, &store.versions(other.id).expect("reads")[3], "LIVE");
    let pruned = store.prune_versions(one.id, 1, false, at(9)).expect("prunes");
    assert_eq!(pruned.removed.iter().map(|it| it.number).collect::<Vec<_>>(), [2, 1]);
    let kept: Vec<_> = pruned.kept.iter().map(|(version, why)| (version.number, why.clone())).collect();
    let alias = |name: &str| Hold::Alias(name.parse().expect("an alias"));
    assert_eq!(kept, [(4, vec![Hold::Newest, alias("LIVE")]), (3, vec![alias("ROLLBACK")])]);
    assert_eq!(store.versions(other.id).expect("reads").len(), 4);
    // The history names the deleted versions, without links to them.
    assert_eq!(statuses(&store, one.id).len(), 4);
    assert_eq!(store.record(one.id).expect("reads").function.updated_at, at(9));
}

#[test]
fn an_alias_that_moves_meanwhile_finds_its_version_or_no_version() {
    let store = scratch();
    let function = registered(&store, "hello");
    let ids = parking_lot::Mutex::new(vec![publish(&store, &function, 1, "LIVE")]);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for number in 2..100 {
                let built = version(&function, number);
                let deployment = deployment(&built, "LIVE", DeploymentStatus::Built);
                let commit = DeploymentCommit { target: Target::New(&built), deployment: &deployment };
                store.commit_deployment(&commit).expect("commits");
                ids.lock().push(built);
                store.prune_versions(function.id, 1, false, at(9)).expect("no reference stands in the way");
            }
        });
        while !publisher.is_finished() {
            // The second newest version is the one that the cleanup is about to delete.
            let version = ids.lock().iter().rev().nth(1).cloned();
            let Some(version) = version else { continue };
            match redeploy(&store, &version, "STAGING") {
                Ok(_) | Err(StoreError::VersionNotFound(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    let record = store.record(function.id).expect("reads");
    let is_there = |id| record.versions.iter().any(|it| it.id == id);
    assert!(record.aliases.iter().all(|it| is_there(it.version_id)), "{record:?}");
}
