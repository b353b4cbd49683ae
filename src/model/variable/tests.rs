//! Names of variables, and the order in which values are looked up.

use super::*;
use crate::model::Timestamp;
use proptest::prelude::*;

fn environment_name(name: &str) -> EnvironmentName {
    name.parse().expect("a name")
}

#[test]
fn names_that_are_not_for_functions_are_refused() {
    for good in ["A", "API_KEY", "_x", "lower", "NODE_ENV", "TZ", "PATH", "HTTP_PROXY", "K9"] {
        assert!(good.parse::<VariableKey>().is_ok(), "{good}");
    }
    for bad in ["", "9A", "A-B", "A B", "A=B", "Ä", "A\0", &"A".repeat(KEY_BYTES_MAX + 1)] {
        assert_eq!(bad.parse::<VariableKey>(), Err(KeyError::Form), "{bad}");
    }
    for reserved in
        ["LEVAIN_X", "BUN_OPTIONS", "NODE_OPTIONS", "LD_PRELOAD", "JSC_useJIT", "HOME", "node_options", "__proto__"]
    {
        assert!(matches!(reserved.parse::<VariableKey>(), Err(KeyError::Reserved(_))), "{reserved}");
        assert!(VariableKey::try_from(reserved.to_owned()).is_ok(), "a stored key stays readable: {reserved}");
    }
}

#[test]
fn a_ring_of_environments_ends() {
    let [a, b, c] = ["a", "b", "c"].map(environment_name);
    let parents = Parents::from([(a.clone(), b.clone()), (b.clone(), c.clone()), (c.clone(), b.clone())]);
    assert_eq!(chain(&a, &parents), [a.clone(), b.clone(), c.clone()]);
    assert_eq!(chain(&c, &parents), [c.clone(), b.clone()]);
    let of_itself = Parents::from([(a.clone(), a.clone())]);
    assert_eq!(chain(&a, &of_itself), [a]);
}

#[test]
fn places_are_looked_at_in_the_order_of_the_design() {
    let (function, parents) =
        (FunctionId::new(), Parents::from([(environment_name("preview"), environment_name("staging"))]));
    let described: Vec<String> =
        places(function, &environment_name("preview"), &parents).iter().map(VariablePlace::describe).collect();
    let expected = [
        format!("{function}/preview"),
        format!("{function}/staging"),
        format!("{function}/*"),
        "*/preview".into(),
        "*/staging".into(),
        "*/*".into(),
    ];
    assert_eq!(described, expected);
}

fn variable(place: &VariablePlace, key: u8, revision: i64) -> Arc<Variable> {
    Arc::new(Variable {
        place: place.clone(),
        key: format!("K{key}").parse().expect("a key"),
        value: VariableValue::Plain(revision.to_string()),
        revision,
        actor: "test".into(),
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
    })
}

proptest! {
    /// Each key resolves to the first hit of a search through the places in order. No other keys appear, and other
    /// functions' and environments' variables do not count.
    #[test]
    fn the_first_hit_wins(
        rows in prop::collection::vec((0usize..3, 0usize..5, 0u8..4), 0..40),
        edges in prop::collection::vec((0usize..4, 0usize..4), 0..5),
        (asked_function, asked_environment) in (0usize..2, 0usize..4),
    ) {
        let functions = [Some(FunctionId::new()), Some(FunctionId::new()), None];
        let names = ["e0", "e1", "e2", "e3"].map(environment_name);
        let parents: Parents = edges.iter().map(|(a, b)| (names[*a].clone(), names[*b].clone())).collect();
        let mut all: BTreeMap<VariablePlace, BTreeMap<VariableKey, Arc<Variable>>> = BTreeMap::new();
        for (revision, (function, environment, key)) in rows.iter().enumerate() {
            let place = VariablePlace { function: functions[*function], environment: names.get(*environment).cloned() };
            let row = variable(&place, *key, revision as i64);
            all.entry(place).or_default().insert(row.key.clone(), row);
        }
        let all: VariablesByPlace = all.into_iter().collect();
        let function = functions[asked_function].expect("one of the two");
        let environment = &names[asked_environment];
        let resolved = resolve(&all, &places(function, environment, &parents));
        for key in (0u8..4).map(|it| format!("K{it}")) {
            let mut expected = Vec::new();
            for own in [Some(function), None] {
                let mut at = Some(environment.clone());
                let mut seen = Vec::new();
                while let Some(name) = at.take().filter(|it| !seen.contains(it)) {
                    let place = VariablePlace { function: own, environment: Some(name.clone()) };
                    expected.extend(all.get(&place).and_then(|it| it.get(key.as_str())).cloned());
                    at = parents.get(&name).cloned();
                    seen.push(name);
                }
                let place = VariablePlace { function: own, environment: None };
                expected.extend(all.get(&place).and_then(|it| it.get(key.as_str())).cloned());
            }
            let got = resolved.get(key.as_str());
            let got: Vec<_> = got.iter().flat_map(|it| std::iter::once(&it.found).chain(&it.hidden)).cloned().collect();
            prop_assert_eq!(got, expected, "{}", key);
        }
    }
}
