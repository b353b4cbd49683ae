//! Random histories of one function, compared with a simple model.

use super::*;
use proptest::prelude::*;

/// One act of a random history; indices are taken modulo the number of items.
#[derive(Debug, Clone)]
enum Act {
    Publish { alias: usize, moves: bool },
    Redeploy { version: usize, alias: usize },
    Share { version: usize, alias: usize },
    Protect(bool),
    Decide { waiting: usize, approve: bool },
    Expire,
    Rollback { alias: usize },
    DeleteVersion { version: usize },
    DeleteAlias { alias: usize },
    Fail { version: usize, alias: usize },
    DeleteFunction,
}

const ALIASES: [&str; 3] = ["LIVE", "STAGING", "DEV"];

fn act() -> impl Strategy<Value = Act> {
    let alias = 0..ALIASES.len();
    prop_oneof![
        5 => (alias.clone(), prop::bool::weighted(0.8)).prop_map(|(alias, moves)| Act::Publish { alias, moves }),
        4 => (any::<usize>(), alias.clone()).prop_map(|(version, alias)| Act::Redeploy { version, alias }),
        2 => (any::<usize>(), alias.clone()).prop_map(|(version, alias)| Act::Share { version, alias }),
        2 => prop::bool::weighted(0.7).prop_map(Act::Protect),
        8 => (any::<usize>(), prop::bool::weighted(0.9))
            .prop_map(|(waiting, approve)| Act::Decide { waiting, approve }),
        1 => Just(Act::Expire),
        4 => alias.clone().prop_map(|alias| Act::Rollback { alias }),
        4 => any::<usize>().prop_map(|version| Act::DeleteVersion { version }),
        2 => alias.clone().prop_map(|alias| Act::DeleteAlias { alias }),
        1 => (any::<usize>(), alias).prop_map(|(version, alias)| Act::Fail { version, alias }),
        1 => Just(Act::DeleteFunction),
    ]
}

/// Expected state of the store in its simplest form: every alias with all versions it ever pointed at, also under an
/// earlier, deleted alias of the name, and the waiting deployments.
#[derive(Default)]
struct Model {
    versions: Vec<Version>,
    histories: [Vec<VersionId>; 3],
    /// Versions that had a share of the alias's calls.
    shared: [Vec<VersionId>; 3],
    seconds: [Option<VersionId>; 3],
    is_deleted: [bool; 3],
    is_protected: bool,
    waiting: Vec<Waiting>,
    last_number: u32,
}

#[derive(Clone, Copy)]
struct Waiting {
    id: DeploymentId,
    alias: usize,
    version: VersionId,
    is_share: bool,
}

impl Model {
    fn exists(&self, id: VersionId) -> bool {
        self.versions.iter().any(|it| it.id == id)
    }

    fn point(&mut self, alias: usize, version: VersionId) {
        self.histories[alias].push(version);
        self.is_deleted[alias] = false;
        self.seconds[alias] = None;
    }

    fn share(&mut self, alias: usize, version: VersionId) {
        self.shared[alias].push(version);
        self.seconds[alias] = Some(version);
    }

    fn alias(&self, alias: usize) -> Option<(VersionId, Option<VersionId>)> {
        let history = &self.histories[alias];
        let present = *history.last().filter(|_| !self.is_deleted[alias])?;
        Some((present, history.iter().rev().copied().find(|&it| it != present && self.exists(it))))
    }

    /// Predicts a deployment: it takes effect, or it waits.
    fn deploy(&mut self, deployment: &Deployment, alias: usize, version: VersionId) -> DeploymentStatus {
        let is_share = deployment.weight.is_some();
        if self.is_protected && !self.histories[alias].contains(&version) && !self.shared[alias].contains(&version) {
            self.waiting.push(Waiting { id: deployment.id, alias, version, is_share });
            return DeploymentStatus::PendingApproval;
        }
        if is_share {
            self.share(alias, version)
        } else {
            self.point(alias, version)
        }
        deployment.status
    }
}

fn decision(text: &str) -> Decision {
    Decision { by: "uid:1".into(), reason: Some(text.into()), at: at(8_000) }
}

/// Deploys an existing version, and compares the outcome.
fn commit(store: &Store, model: &mut Model, version: &Version, alias: usize, status: DeploymentStatus) {
    let mut deployment = deployment(version, ALIASES[alias], status);
    deployment.weight = (status == DeploymentStatus::Applied).then(|| Percent::try_from(10).expect("a share"));
    let commit = DeploymentCommit { target: Target::Existing(version.id), deployment: &deployment };
    let written = store.commit_deployment(&commit).expect("commits");
    assert_eq!(written, model.deploy(&deployment, alias, version.id), "{}", version.label);
}

fn perform(store: &Store, function: &mut Function, model: &mut Model, act: &Act) {
    let pick = |index: usize| model.versions.get(index.checked_rem(model.versions.len())?).cloned();
    match *act {
        Act::Publish { alias, moves } => publish(store, function, model, alias, moves),
        Act::Redeploy { version, alias } => {
            let Some(version) = pick(version) else { return };
            commit(store, model, &version, alias, DeploymentStatus::Active);
        }
        Act::Share { version, alias } => {
            let Some(version) = pick(version) else { return };
            if model.alias(alias).is_some_and(|it| it.0 != version.id) {
                commit(store, model, &version, alias, DeploymentStatus::Applied);
            }
        }
        Act::Protect(protected) => {
            store
                .change_environment(
                    &"production".parse().expect("a name"),
                    &protection(protected),
                    &"uid:0".into(),
                    at(9),
                )
                .expect("it is there");
            model.is_protected = protected;
        }
        Act::Decide { waiting, approve } => decide(store, model, waiting, approve),
        Act::Expire => {
            assert!(store.expire(at(3_499), &decision("late")).expect("writes").is_empty(), "nothing is that old");
            let expired = store.expire(at(3_500), &decision("late")).expect("writes");
            let ids = |ids: &mut dyn Iterator<Item = DeploymentId>| ids.collect::<HashSet<_>>();
            let expected = ids(&mut model.waiting.drain(..).map(|it| it.id));
            assert_eq!(ids(&mut expired.iter().map(|it| it.id)), expected);
        }
        Act::Rollback { alias } => {
            let name = ALIASES[alias].parse().expect("an alias");
            let target = store.previous_target(function.id, &name).expect("reads");
            assert_eq!(target, model.alias(alias).and_then(|it| it.1));
            let Some(version) = model.versions.iter().find(|it| Some(it.id) == target).cloned() else { return };
            let waiting = model.waiting.len();
            commit(store, model, &version, alias, DeploymentStatus::Active);
            assert_eq!(model.waiting.len(), waiting, "going back never waits");
        }
        Act::DeleteVersion { version } => {
            let Some(version) = pick(version) else { return };
            delete_version(store, function, model, &version);
        }
        Act::DeleteAlias { alias } => delete_alias(store, function, model, alias),
        Act::Fail { version, alias } => {
            let Some(version) = pick(version) else { return };
            let deployment = deployment(&version, ALIASES[alias], DeploymentStatus::Failed);
            store.insert_failed_deployment(&deployment).expect("records");
        }
        Act::DeleteFunction => delete_function(store, function, model),
    }
}

fn publish(store: &Store, function: &Function, model: &mut Model, alias: usize, moves: bool) {
    let number = store.next_number(function.id).expect("reads");
    assert_eq!(number, model.last_number + 1, "numbers rise by one and are not used again");
    let version = version(function, number);
    let status = if moves { DeploymentStatus::Active } else { DeploymentStatus::Built };
    let deployment = deployment(&version, ALIASES[alias], status);
    let commit = DeploymentCommit { target: Target::New(&version), deployment: &deployment };
    let written = store.commit_deployment(&commit).expect("commits");
    model.last_number = number;
    let id = version.id;
    model.versions.push(version);
    let expected = if moves { model.deploy(&deployment, alias, id) } else { status };
    assert_eq!(written, expected);
}

fn delete_version(store: &Store, function: &Function, model: &mut Model, version: &Version) {
    let is_second = |it: usize| model.alias(it).is_some() && model.seconds[it] == Some(version.id);
    let points = |it: usize| model.alias(it).is_some_and(|it| it.0 == version.id);
    let used = (0..ALIASES.len()).any(|it| points(it) || is_second(it));
    let waits = model.waiting.iter().any(|it| it.version == version.id);
    match store.delete_version(function.id, version.id, at(9)) {
        Ok(()) => assert!(!used && !waits, "a version in use must stay"),
        Err(StoreError::VersionInUse { .. }) => return assert!(used || waits, "an unused version may go"),
        Err(error) => panic!("{error}"),
    }
    model.versions.retain(|it| it.id != version.id);
}

fn delete_alias(store: &Store, function: &Function, model: &mut Model, alias: usize) {
    let name = ALIASES[alias].parse().expect("an alias");
    match store.delete_alias(function.id, &name, &gone(9)) {
        Ok(_) => assert!(alias != 0 && model.alias(alias).is_some(), "only what is there, and never LIVE"),
        Err(StoreError::EnvironmentProtected { .. }) => {
            return assert!(model.is_protected && model.alias(alias).is_some());
        }
        Err(StoreError::AliasFixed(_)) => return assert_eq!(alias, 0),
        Err(StoreError::AliasNotFound(_)) => return assert_eq!(model.alias(alias), None),
        Err(error) => panic!("{error}"),
    }
    assert!(!model.is_protected, "nothing is taken out of a protected environment");
    model.is_deleted[alias] = true;
    model.seconds[alias] = None;
}

fn delete_function(store: &Store, function: &mut Function, model: &mut Model) {
    let is_kept = model.is_protected && (0..ALIASES.len()).any(|it| model.alias(it).is_some());
    match store.delete_function(function.id, &"uid:0".into(), at(9)) {
        Ok(()) => assert!(!is_kept),
        Err(StoreError::EnvironmentProtected { .. }) => return assert!(is_kept),
        Err(error) => panic!("{error}"),
    }
    for waiting in &model.waiting {
        let row = store.deployment(waiting.id).expect("it stays");
        assert_eq!(row.status, DeploymentStatus::Rejected);
        assert_eq!(row.decision.map(|it| it.by).as_deref(), Some(Decision::DAEMON));
    }
    *function = registered(store, "hello");
    *model = Model { is_protected: model.is_protected, ..Model::default() };
}

fn decide(store: &Store, model: &mut Model, index: usize, approve: bool) {
    let Some(index) = index.checked_rem(model.waiting.len()) else { return };
    let Waiting { id, alias, version, is_share } = model.waiting[index];
    let decision = decision("reviewed");
    if !approve {
        assert_eq!(store.reject(id, &decision).expect("it waits").status, DeploymentStatus::Rejected);
    } else if is_share && model.alias(alias).is_none_or(|it| it.0 == version) {
        // The alias has no calls left to share, so the deployment keeps waiting.
        store.approve(id, &decision, None).expect_err("nothing to share");
        return assert_eq!(store.deployment(id).expect("reads").status, DeploymentStatus::PendingApproval);
    } else {
        let before = model.alias(alias).map(|it| it.0);
        let before = model.versions.iter().find(|it| Some(it.id) == before).map(|it| it.label.clone());
        let approved = store.approve(id, &decision, before.as_ref()).expect("it waits");
        assert_eq!(approved.previous, before, "what the alias points at when the deployment takes effect");
        assert_eq!(approved, store.deployment(id).expect("reads"));
        if is_share { model.share(alias, version) } else { model.point(alias, version) }
    }
    model.waiting.remove(index);
    for outcome in [store.approve(id, &decision, None), store.reject(id, &decision)] {
        assert!(matches!(outcome, Err(StoreError::NotPending(_))), "nothing is decided twice: {outcome:?}");
    }
    assert_eq!(store.deployment(id).expect("reads").decision, Some(decision));
}

fn check(store: &Store, function: &Function, model: &Model) {
    let catalogue = store.catalogue().expect("reads");
    let [record] = catalogue.as_slice() else { panic!("one function is not deleted: {catalogue:?}") };
    let mut versions = model.versions.clone();
    versions.reverse();
    assert_eq!(record.versions, versions);
    let rows = store.deployments(function.id, u32::MAX, 0).expect("reads");
    let waiting = |ids: &mut dyn Iterator<Item = DeploymentId>| ids.collect::<HashSet<_>>();
    let expected = waiting(&mut model.waiting.iter().map(|it| it.id));
    assert_eq!(waiting(&mut store.waiting().expect("reads").into_iter().map(|it| it.id)), expected);
    for (index, name) in ALIASES.into_iter().enumerate() {
        let second = record.aliases.iter().find(|it| it.name.as_str() == name).and_then(|it| it.split);
        assert_eq!(second.map(|it| it.version_id), model.seconds[index], "{name}");
        let target = alias(record, name);
        assert_eq!(target, model.alias(index), "{name}");
        let active: Vec<_> = rows
            .iter()
            .filter(|it| it.status == DeploymentStatus::Active && it.alias.as_str() == name)
            .map(|it| it.number)
            .collect();
        let pointed: Vec<_> = record.versions.iter().filter(|it| Some(it.id) == target.map(|it| it.0)).collect();
        assert_eq!(pointed.len(), usize::from(target.is_some()), "{name} points at a version that exists");
        assert_eq!(active, pointed.iter().map(|it| Some(it.number)).collect::<Vec<_>>(), "{name}");
    }
    let before_live = model.alias(0).and_then(|it| it.1);
    assert_eq!(alias(record, "ROLLBACK"), before_live.map(|it| (it, None)), "ROLLBACK follows LIVE");
    let status = match (model.versions.is_empty(), model.alias(0)) {
        (_, Some(_)) => FunctionStatus::Deployed,
        (false, None) => FunctionStatus::Built,
        (true, None) => FunctionStatus::Registered,
    };
    assert_eq!(record.function.status, status);
    let sql = "SELECT count(*) FROM functions LEFT JOIN aliases ON function_id = id AND aliases.name = 'LIVE' \
         WHERE active_version_id IS NOT version_id";
    let differing: i64 = store.connection.lock().query_row(sql, [], |row| row.get(0)).expect("reads");
    assert_eq!(differing, 0, "active_version_id is what LIVE points at");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_leaves_aliases_at_versions_that_exist(acts in prop::collection::vec(act(), 1..80)) {
        let scratch = scratch();
        let (mut function, mut model) = (registered(&scratch, "hello"), Model::default());
        for act in &acts {
            perform(&scratch, &mut function, &mut model, act);
            check(&scratch, &function, &model);
        }
    }
}
