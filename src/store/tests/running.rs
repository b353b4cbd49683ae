//! Running deployments, and the functions that they create.

use super::*;

/// Begins a first deployment, which creates its function.
fn begun(store: &Store, name: &str) -> (Function, Deployment) {
    let function = function(name);
    let row = running(&function);
    store.begin_deployment(&row, Some(&function)).expect("begins");
    (function, row)
}

fn running(function: &Function) -> Deployment {
    Deployment { number: None, ..deployment(&version(function, 1), "LIVE", DeploymentStatus::Building) }
}

fn failed(row: &Deployment) -> Deployment {
    Deployment { status: DeploymentStatus::Failed, finished_at: at(4_000), ..row.clone() }
}

fn is_there(store: &Store, function: &Function) -> bool {
    store.functions().expect("reads").iter().any(|it| it.id == function.id)
}

#[test]
fn the_row_of_a_deployment_that_runs_is_replaced_by_that_of_its_end() {
    let store = scratch();
    let (function, row) = begun(&store, "f");
    let listed = || store.deployments(function.id, 10, 0).expect("reads");
    assert_eq!(listed(), [Deployment { finished_at: row.created_at, ..row.clone() }]);
    let version = version(&function, 1);
    let done = Deployment { status: DeploymentStatus::Active, number: Some(1), ..row.clone() };
    store.commit_deployment(&DeploymentCommit { target: Target::New(&version), deployment: &done }).expect("commits");
    assert_eq!(listed(), [done]);
    // An end that comes too late changes nothing.
    assert!(!store.end_deployment(function.id, row.id, Some(&failed(&row)), at(9_000)).expect("ends"));
    assert_eq!((listed().len(), listed()[0].status), (1, DeploymentStatus::Active));
    assert!(is_there(&store, &function));
}

#[test]
fn a_function_goes_with_the_last_deployment_that_made_it_unless_somebody_wants_it() {
    let store = scratch();
    let (function, first) = begun(&store, "f");
    let second = running(&function);
    store.begin_deployment(&second, None).expect("begins");
    assert!(!store.end_deployment(function.id, first.id, Some(&failed(&first)), at(4_000)).expect("ends"));
    assert!(store.end_deployment(function.id, second.id, None, at(5_000)).expect("ends"));
    assert!(!is_there(&store, &function));
    assert_eq!(store.function_name(function.id).expect("it is kept").as_str(), "f");
    let query = DeploymentQuery { status: Some(DeploymentStatus::Failed), limit: 10, ..DeploymentQuery::default() };
    let told = store.deployments_page(None, &query).expect("reads");
    assert_eq!(told.into_iter().map(|it| it.1).collect::<Vec<_>>(), [failed(&first)]);
    let gone = store.begin_deployment(&running(&function), None).expect_err("the function is gone");
    assert!(matches!(gone, StoreError::FunctionNotFound(_)), "{gone}");

    type Claim = fn(&Store, FunctionId) -> Result<(), StoreError>;
    let claims: [Claim; 2] =
        [|store, id| store.claim_function(id), |store, id| store.update_settings(id, &function_settings(), at(4_000))];
    for (index, claim) in claims.into_iter().enumerate() {
        let (function, row) = begun(&store, &format!("claimed-{index}"));
        claim(&store, function.id).expect("it is there");
        assert!(!store.end_deployment(function.id, row.id, None, at(5_000)).expect("ends"));
        assert!(is_there(&store, &function), "{index}");
    }
}

fn function_settings() -> Settings {
    function("any").settings
}

#[test]
fn what_ran_when_the_daemon_was_killed_has_failed() {
    let store = scratch();
    let (made, first) = begun(&store, "made");
    let kept = registered(&store, "kept");
    let second = running(&kept);
    store.begin_deployment(&second, None).expect("begins");
    let ended = store.end_interrupted_deployments(at(9_000)).expect("ends");
    assert_eq!(ended.iter().map(|it| it.id).collect::<Vec<_>>(), [first.id, second.id]);
    assert!((!is_there(&store, &made)) && is_there(&store, &kept));
    for (function, id) in [(made.id, first.id), (kept.id, second.id)] {
        let row = store.deployments(function, 10, 0).expect("reads").remove(0);
        assert_eq!((row.id, row.status, row.finished_at), (id, DeploymentStatus::Failed, at(9_000)));
        assert!(row.build_log.is_some_and(|it| it.starts_with("interrupted")));
    }
    assert_eq!(store.end_interrupted_deployments(at(9_500)).expect("ends"), []);
}
