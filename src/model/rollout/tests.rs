//! Plans as text, and a rollout under random events.

use super::*;
use crate::model::{Policy, PolicyCounts, policy::PolicyLimits};
use proptest::prelude::*;

fn plan(text: &str) -> RolloutPlan {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn rollout(plan: RolloutPlan) -> Rollout {
    Rollout {
        id: RolloutId::new(),
        function_id: FunctionId::new(),
        alias: AliasName::live(),
        label: "v2".parse().expect("a label"),
        number: 2,
        plan,
        step: 0,
        status: RolloutStatus::Running,
        actor: "uid:0".into(),
        reason: None,
        outcome: None,
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
        finished_at: None,
    }
}

#[test]
fn a_plan_reads_back_as_it_is_written() {
    for text in ["10% 5m, 50% 5m, 100%", "1% 30s, 100%", "5% 90s, 20% 2h, 99% 7d, 100%"] {
        assert_eq!(plan(text).to_string(), text);
        let json = serde_json::to_string(&plan(text)).expect("plain data");
        assert_eq!(serde_json::from_str::<RolloutPlan>(&json).expect("the same"), plan(text));
    }
    assert_eq!(plan(" 10 %5m ,100 % "), plan("10% 5m, 100%"));
    let json = serde_json::to_value(plan("10% 5m, 100%")).expect("plain data");
    let expected = serde_json::json!([{"percent": 10, "hold_seconds": 300}, {"percent": 100, "hold_seconds": 0}]);
    assert_eq!(json, expected);
}

#[test]
fn a_wrong_plan_is_refused_with_the_step_that_is_wrong() {
    use StepProblem::{Hold, LastHolds, NoHold, NotAll, NotRising, Share};
    for (text, number, problem) in [
        ("ten 5m, 100%", 1, Share),
        ("0% 5m, 100%", 1, Share),
        ("10% 5m, 101%", 2, Share),
        ("10.5% 5m, 100%", 1, Share),
        ("-1% 5m, 100%", 1, Share),
        ("10%, 100%", 1, NoHold),
        ("10% 5m, 50%, 100%", 2, NoHold),
        ("10% 5, 100%", 1, Hold),
        ("10% 0s, 100%", 1, Hold),
        ("10% 8d, 100%", 1, Hold),
        ("10% 5m 5m, 100%", 1, Hold),
        ("10% 4294967295d, 100%", 1, Hold),
        ("10% 5m, 10% 5m, 100%", 2, NotRising),
        ("50% 5m, 10% 5m, 100%", 2, NotRising),
        ("10% 5m, 50%", 2, NotAll),
        ("10% 5m, 100% 5m", 2, LastHolds),
        ("100% 5m, 100%", 2, NotRising),
    ] {
        match text.parse::<RolloutPlan>() {
            Err(RolloutPlanError::RolloutStep { number: at, problem: found, .. }) => {
                assert_eq!((at, found), (number, problem), "{text}")
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    for (text, count) in [("", 1), ("100%", 1), (&*["1% 1s"; 30].join(","), 30)] {
        assert_eq!(text.parse::<RolloutPlan>(), Err(RolloutPlanError::Count(count)), "{text}");
    }
    let error = "10% 5m, 5% 5m, 100%".parse::<RolloutPlan>().expect_err("it falls").to_string();
    assert_eq!(error, "step 2 of the plan, `5% 5m`: its share must be above that of the step before");
}

fn breach() -> Breach {
    let policy: Policy =
        PolicyLimits { error_rate_max: Some(1.0), ..PolicyLimits::default() }.try_into().expect("a policy");
    policy.judge(&PolicyCounts { calls: 50, errors: 50, ..PolicyCounts::default() }).expect("all fail")
}

/// An event of a random history.
#[derive(Debug, Clone, Copy)]
enum Event {
    Later(u64),
    Pause,
    Resume,
    Breach(PolicyAction),
}

fn event() -> impl Strategy<Value = Event> {
    let action = prop_oneof![Just(PolicyAction::Warn), Just(PolicyAction::Rollback)];
    prop_oneof![
        12 => (1..400_u64).prop_map(Event::Later),
        2 => Just(Event::Pause),
        3 => Just(Event::Resume),
        1 => action.prop_map(Event::Breach),
    ]
}

fn any_plan() -> impl Strategy<Value = RolloutPlan> {
    prop::collection::btree_map(1..100_u32, 1..300_u32, 1..STEPS_MAX).prop_map(|steps| {
        let last = RolloutStep { percent: Percent::ALL, hold_seconds: 0 };
        let step = |(percent, hold_seconds)| RolloutStep {
            percent: Percent::try_from(percent).expect("a share"),
            hold_seconds,
        };
        let steps: Vec<_> = steps.into_iter().map(step).chain([last]).collect();
        steps.try_into().expect("a plan")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The daemon checks after each event. A step holds from its beginning, or from when it was resumed, for as long as
    /// the plan says; no step is skipped; a broken limit never lets a share grow.
    #[test]
    fn a_rollout_keeps_to_its_plan(plan in any_plan(), events in prop::collection::vec(event(), 1..80)) {
        let mut rollout = rollout(plan);
        let (mut now, mut began) = (0, 0);
        for event in events {
            let mut broken = None;
            match event {
                Event::Later(seconds) => now += seconds,
                Event::Breach(action) => broken = Some((action, breach())),
                Event::Pause if rollout.status == RolloutStatus::Running => {
                    rollout = rollout.held(RolloutStatus::Paused, None, Timestamp::from_millis(now as i64 * 1_000));
                }
                Event::Resume if rollout.status == RolloutStatus::Paused => {
                    rollout = rollout.held(RolloutStatus::Running, None, Timestamp::from_millis(now as i64 * 1_000));
                    began = now;
                }
                Event::Pause | Event::Resume => {}
            }
            let (before, held) = (rollout.clone(), now - began);
            let is_due = held >= u64::from(before.present().hold_seconds);
            let is_running = before.status == RolloutStatus::Running;
            match decide(broken, Some((&rollout, Duration::from_secs(held)))) {
                WatchAction::Advance => {
                    prop_assert!(is_due && is_running && broken.is_none());
                    rollout = rollout.stepped(Timestamp::from_millis(now as i64 * 1_000));
                    began = now;
                    prop_assert_eq!(rollout.step, before.step + 1);
                    prop_assert!(rollout.present().percent > before.present().percent);
                    let is_done = rollout.status == RolloutStatus::Done;
                    prop_assert_eq!(is_done, rollout.present().percent == Percent::ALL);
                    prop_assert_eq!(is_done, rollout.finished_at.is_some());
                }
                WatchAction::GoBack(_) => {
                    prop_assert!(matches!(broken, Some((PolicyAction::Rollback, _))));
                    return Ok(());
                }
                WatchAction::Pause(_) => {
                    prop_assert!(is_running && matches!(broken, Some((PolicyAction::Warn, _))));
                    rollout = rollout.held(RolloutStatus::Paused, Some("broken".into()), rollout.updated_at);
                }
                WatchAction::Warn(_) => prop_assert!(!is_running && broken.is_some()),
                WatchAction::Nothing => prop_assert!(broken.is_none() && !(is_due && is_running)),
            }
            if rollout.status == RolloutStatus::Done {
                return Ok(());
            }
        }
        // The rollout has advanced as far as time allowed, and finishes unless somebody pauses it.
        rollout = rollout.held(RolloutStatus::Running, None, rollout.updated_at);
        for _ in rollout.step as usize + 1..rollout.plan.steps().len() {
            let hold = Duration::from_secs(rollout.present().hold_seconds.into());
            prop_assert_eq!(decide(None, Some((&rollout, hold))), WatchAction::Advance);
            rollout = rollout.stepped(rollout.updated_at);
        }
        prop_assert_eq!(rollout.status, RolloutStatus::Done);
    }
}
