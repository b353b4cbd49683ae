//! Random histories of one function, compared with a model that only remembers.

use super::*;
use proptest::prelude::*;

/// One act of a random history; indices are taken modulo what there is.
#[derive(Debug, Clone)]
enum Act {
    Publish { alias: usize, moves: bool },
    Redeploy { version: usize, alias: usize },
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
        4 => (alias.clone(), any::<bool>()).prop_map(|(alias, moves)| Act::Publish { alias, moves }),
        4 => (any::<usize>(), alias.clone()).prop_map(|(version, alias)| Act::Redeploy { version, alias }),
        4 => alias.clone().prop_map(|alias| Act::Rollback { alias }),
        4 => any::<usize>().prop_map(|version| Act::DeleteVersion { version }),
        2 => alias.clone().prop_map(|alias| Act::DeleteAlias { alias }),
        1 => (any::<usize>(), alias).prop_map(|(version, alias)| Act::Fail { version, alias }),
        1 => Just(Act::DeleteFunction),
    ]
}

/// What the store should say, kept in the simplest way: every alias with all versions it ever pointed at, the alias of
/// this name that was deleted included.
#[derive(Default)]
struct Model {
    versions: Vec<Version>,
    histories: [Vec<VersionId>; 3],
    is_deleted: [bool; 3],
    last_number: u32,
}

impl Model {
    fn exists(&self, id: VersionId) -> bool {
        self.versions.iter().any(|it| it.id == id)
    }

    fn point(&mut self, alias: usize, version: VersionId) {
        self.histories[alias].push(version);
        self.is_deleted[alias] = false;
    }

    fn alias(&self, alias: usize) -> Option<(VersionId, Option<VersionId>)> {
        let history = &self.histories[alias];
        let present = *history.last().filter(|_| !self.is_deleted[alias])?;
        Some((present, history.iter().rev().copied().find(|&it| it != present && self.exists(it))))
    }
}

fn perform(store: &Store, function: &mut Function, model: &mut Model, act: &Act) {
    let pick = |index: usize| model.versions.get(index.checked_rem(model.versions.len())?).cloned();
    match *act {
        Act::Publish { alias, moves } => {
            let number = store.next_number(function.id).expect("reads");
            assert_eq!(number, model.last_number + 1, "numbers rise by one and are not used again");
            let version = version(function, number);
            let status = if moves { DeploymentStatus::Active } else { DeploymentStatus::Built };
            let deployment = deployment(&version, ALIASES[alias], status);
            let commit = DeploymentCommit { target: Target::New(&version), deployment: &deployment };
            store.commit_deployment(&commit).expect("commits");
            if moves {
                model.point(alias, version.id);
            }
            model.last_number = number;
            model.versions.push(version);
        }
        Act::Redeploy { version, alias } => {
            let Some(version) = pick(version) else { return };
            redeploy(store, &version, ALIASES[alias]).expect("commits");
            model.point(alias, version.id);
        }
        Act::Rollback { alias } => {
            let name = ALIASES[alias].parse().expect("an alias");
            let target = store.previous_target(function.id, &name).expect("reads");
            assert_eq!(target, model.alias(alias).and_then(|it| it.1));
            let Some(version) = model.versions.iter().find(|it| Some(it.id) == target) else { return };
            redeploy(store, version, ALIASES[alias]).expect("commits");
            let id = version.id;
            model.point(alias, id);
        }
        Act::DeleteVersion { version } => {
            let Some(version) = pick(version) else { return };
            let used = (0..ALIASES.len()).any(|it| model.alias(it).is_some_and(|it| it.0 == version.id));
            match store.delete_version(function.id, version.id, at(9)) {
                Ok(()) => assert!(!used, "a version in use must stay"),
                Err(StoreError::VersionInUse { .. }) => return assert!(used, "an unused version may go"),
                Err(error) => panic!("{error}"),
            }
            model.versions.retain(|it| it.id != version.id);
        }
        Act::DeleteAlias { alias } => {
            let name = ALIASES[alias].parse().expect("an alias");
            match store.delete_alias(function.id, &name, at(9)) {
                Ok(()) => assert!(alias != 0 && model.alias(alias).is_some(), "only what is there, and never LIVE"),
                Err(StoreError::AliasFixed(_)) => return assert_eq!(alias, 0),
                Err(StoreError::AliasNotFound(_)) => return assert_eq!(model.alias(alias), None),
                Err(error) => panic!("{error}"),
            }
            model.is_deleted[alias] = true;
        }
        Act::Fail { version, alias } => {
            let Some(version) = pick(version) else { return };
            let deployment = deployment(&version, ALIASES[alias], DeploymentStatus::Failed);
            store.insert_failed_deployment(&deployment).expect("records");
        }
        Act::DeleteFunction => {
            store.delete_function(function.id, at(9)).expect("deletes");
            *function = registered(store, "hello");
            *model = Model::default();
        }
    }
}

fn check(store: &Store, function: &Function, model: &Model) {
    let catalogue = store.catalogue().expect("reads");
    let [record] = catalogue.as_slice() else { panic!("one function is not deleted: {catalogue:?}") };
    let mut versions = model.versions.clone();
    versions.reverse();
    assert_eq!(record.versions, versions);
    let rows = store.deployments(function.id, u32::MAX, 0).expect("reads");
    for (index, name) in ALIASES.into_iter().enumerate() {
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
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_leaves_aliases_at_versions_that_exist(acts in prop::collection::vec(act(), 1..40)) {
        let scratch = scratch();
        let (mut function, mut model) = (registered(&scratch, "hello"), Model::default());
        for act in &acts {
            perform(&scratch, &mut function, &mut model, act);
            check(&scratch, &function, &model);
        }
    }
}
