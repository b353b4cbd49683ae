//! The router beside a plain map, over random changes.

use super::*;
use crate::model::{Digest, Function, FunctionStatus, Settings, Timestamp, VersionSource};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn function(id: FunctionId, name: u8, warm_workers: u32) -> Function {
    Function {
        id,
        name: format!("f{name}").parse().expect("a name"),
        runtime: "bun".into(),
        handler: "default".into(),
        status: FunctionStatus::Deployed,
        settings: Settings { warm_workers, ..Settings::default() },
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
    }
}

fn version(function_id: FunctionId, number: u32) -> Arc<Version> {
    Arc::new(Version {
        id: VersionId::new(),
        function_id,
        label: format!("v{number}").parse().expect("a label"),
        number,
        digest: Digest([0; 32]),
        size: u64::from(number) * 10,
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

/// A function with this many versions, of which `LIVE` points at the newest.
fn entry(id: FunctionId, name: u8, versions: u32, warm_workers: u32) -> Entry {
    let rows: Vec<_> = (1..=versions).rev().map(|number| version(id, number)).collect();
    let live = rows.first().map(|newest| Alias {
        name: AliasName::LIVE.parse().expect("an alias"),
        environment: EnvironmentName::production(),
        version: newest.id,
        split: None,
        sticky: None,
        guard: None,
        went_back_at: None,
        rollout: None,
    });
    let function = function(id, name, warm_workers);
    Entry { function, versions: rows.into_iter().collect(), aliases: live.into_iter().collect(), approved: None }
}

proptest! {
    #[test]
    fn lookups_lists_and_sums_agree_after_any_changes(
        changes in prop::collection::vec((0_usize..8, any::<bool>(), 0_u32..4, 0_u32..3), 1..60)
    ) {
        let ids: Vec<FunctionId> = (0..8).map(|_| FunctionId::new()).collect();
        let (router, mut model) = (Router::new(Vec::new()), BTreeMap::new());
        for (index, is_there, versions, warm_workers) in changes {
            let (id, name) = (ids[index], index as u8);
            if is_there {
                router.put(entry(id, name, versions, warm_workers));
                model.insert(format!("f{name}"), (id, versions, warm_workers));
            } else {
                router.remove(id);
                model.remove(&format!("f{name}"));
            }
            let names: Vec<String> = router.functions().iter().map(|it| it.function.name.to_string()).collect();
            prop_assert!(names.iter().eq(model.keys()));
            let behind = router.functions().after("f3").count();
            prop_assert_eq!(behind, model.keys().filter(|it| it.as_str() > "f3").count());
            for (index, id) in ids.iter().enumerate() {
                let name = format!("f{index}");
                let known = model.get(&name).map(|it| it.0);
                prop_assert_eq!(router.by_id(*id).ok().map(|it| it.function.id), known);
                prop_assert_eq!(router.function(&name).ok().map(|it| it.function.id), known);
            }
            let sum = |of: fn(&(FunctionId, u32, u32)) -> u64| model.values().map(of).sum::<u64>();
            let expected = Totals {
                functions: model.len(),
                versions: sum(|it| it.1.into()) as usize,
                bundles_bytes: sum(|it| (1..=it.1).map(|number| u64::from(number) * 10).sum()),
                warm_workers: sum(|it| if it.1 > 0 { it.2.into() } else { 0 }),
            };
            prop_assert_eq!(router.totals(), expected);
        }
    }
}

#[test]
fn a_name_that_another_function_has_taken_stays_with_it() {
    let (gone, present) = (FunctionId::new(), FunctionId::new());
    let router = Router::new(vec![entry(gone, 1, 1, 0)]);
    router.put(entry(present, 1, 1, 0));
    router.remove(gone);
    assert_eq!(router.function("f1").map(|it| it.function.id), Ok(present));
    assert_eq!(router.functions().iter().count(), 1);
}

/// A reader keeps the functions that it has seen, whatever changes meanwhile.
#[test]
fn a_change_of_one_function_leaves_all_others_as_they_are() {
    let ids: Vec<FunctionId> = (0..200).map(|_| FunctionId::new()).collect();
    let router = Router::new(ids.iter().zip(0..).map(|(id, name)| entry(*id, name, 1, 0)).collect());
    let before = router.functions();
    router.put(entry(ids[7], 7, 2, 0));
    let after = router.functions();
    let changed = before.iter().zip(after.iter()).filter(|(old, new)| !Arc::ptr_eq(old, new));
    assert_eq!(changed.map(|(old, _)| old.function.id).collect::<Vec<_>>(), [ids[7]]);
}
