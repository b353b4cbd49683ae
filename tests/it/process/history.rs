//! Random histories of one function, compared with a model and cut off by `kill -9`: an alias never points at a missing
//! version or bundle.

use super::{
    crash::{bundles_are, code, is_whole},
    deploy_request, invoke, register,
};
use crate::{
    harness::{DaemonProcess, repetitions},
    hostile::noise::Random,
};
use levain::{
    client::{Client, ClientError},
    protocol::message::{
        AliasesRequest, CleanupRequest, DeleteAliasRequest, DeleteVersionRequest, DeployRequest, RollbackRequest,
        SetAliasRequest, SetTrafficRequest, VersionRef, VersionsRequest,
    },
};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use tokio::sync::watch;

/// Number of acts before each kill.
const ACTS: usize = 8;

/// Upper bound of the answers between the last command and the kill.
const ANSWERS_MAX: usize = 60;

const ALIASES: [&str; 3] = ["LIVE", "STAGING", "DEV"];

/// State that commands can change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    /// Labels, oldest first.
    versions: Vec<String>,
    /// Version of each alias, and the second version with its share.
    aliases: BTreeMap<String, (String, Option<(String, u32)>)>,
    /// Target of ROLLBACK. The model does not know its rule, only that a cleanup must not remove it.
    rollback: Option<String>,
}

/// One act of a history.
#[derive(Debug, Clone)]
enum Act {
    Deploy { label: String, alias: &'static str, activate: bool },
    Point { alias: &'static str, version: String },
    Share { alias: &'static str, version: String, weight: u32 },
    Rollback,
    DeleteAlias { alias: &'static str },
    DeleteVersion { version: String },
    Cleanup { keep: u32 },
}

impl State {
    async fn of(client: &Client) -> Self {
        let request = VersionsRequest { function_id: "f".into(), ..VersionsRequest::default() };
        let versions =
            client.call(&request).await.unwrap().versions.into_iter().rev().map(|it| it.version.to_string()).collect();
        let mut state = Self { versions, ..Self::default() };
        for alias in
            client.call(&AliasesRequest { function_id: "f".into(), ..AliasesRequest::default() }).await.unwrap().aliases
        {
            if alias.name == "ROLLBACK" {
                state.rollback = Some(alias.version.to_string());
            } else {
                let split = alias.split.map(|it| (it.version.to_string(), it.weight));
                state.aliases.insert(alias.name.to_string(), (alias.version.to_string(), split));
            }
        }
        state
    }

    fn is_used(&self, version: &str) -> bool {
        let uses = |(own, split): &(String, Option<(String, u32)>)| {
            own == version || split.as_ref().is_some_and(|(second, _)| second == version)
        };
        self.aliases.values().any(uses)
    }

    /// Returns the state after the act, or `None` if it must be refused.
    fn after(&self, act: &Act) -> Option<Self> {
        let mut after = self.clone();
        let mut point = |alias: &str, version: &str| after.aliases.insert(alias.into(), (version.into(), None));
        match act {
            Act::Deploy { label, alias, activate } => {
                if *activate {
                    point(alias, label);
                }
                after.versions.push(label.clone());
            }
            Act::Point { alias, version } => {
                point(alias, version);
            }
            Act::Share { alias, version, weight } => {
                let (own, split) = after.aliases.get_mut(*alias)?;
                match split {
                    Some((second, _)) if own == version => {
                        *split = Some((second.clone(), 100 - weight)).filter(|_| *weight < 100);
                    }
                    Some((second, _)) if second != version => return None,
                    None if own == version => return (*weight == 100).then_some(after),
                    _ => *split = Some((version.clone(), *weight)),
                }
            }
            Act::Rollback => match self.aliases.get("LIVE")? {
                (own, Some(_)) => {
                    point("LIVE", own);
                }
                (_, None) => {
                    point("LIVE", self.rollback.as_ref()?);
                }
            },
            Act::DeleteAlias { alias } => {
                after.aliases.remove(*alias).filter(|_| *alias != "LIVE")?;
            }
            Act::DeleteVersion { version } => {
                after.versions.retain(|it| it != version);
                if self.is_used(version) {
                    return None;
                }
            }
            Act::Cleanup { keep } => {
                let old = self.versions.len().saturating_sub(*keep as usize);
                let newest = &self.versions[old..];
                after
                    .versions
                    .retain(|it| newest.contains(it) || self.is_used(it) || self.rollback.as_ref() == Some(it));
            }
        }
        Some(after)
    }

    /// Returns the part of the state that the model predicts.
    fn known(&self) -> Self {
        Self { rollback: None, ..self.clone() }
    }
}

fn act(random: &mut Random, state: &State, count: usize) -> Act {
    let alias = ALIASES[random.below(ALIASES.len())];
    let version = state.versions[random.below(state.versions.len())].clone();
    match random.below(14) {
        0..=3 => Act::Deploy { label: format!("r{count}"), alias, activate: random.below(4) > 0 },
        4 | 5 => Act::Point { alias, version },
        6 | 7 => Act::Share { alias, version, weight: 10 * random.below(11) as u32 },
        8 | 9 => Act::Rollback,
        10 => Act::DeleteAlias { alias },
        11 | 12 => Act::DeleteVersion { version },
        _ => Act::Cleanup { keep: 1 + random.below(4) as u32 },
    }
}

/// Performs an act, and returns whether the daemon carried it out.
async fn perform(client: &Client, act: &Act) -> Result<bool, ClientError> {
    let function_id = "f".to_owned();
    let label = |version: &String| VersionRef::Label(version.clone());
    let done = match act.clone() {
        Act::Deploy { label, alias, activate } => {
            let request = deploy_request("f", &label, &code(&label));
            let (alias, activate) = (Some(alias.into()), Some(activate));
            client.call(&DeployRequest { alias, activate, ..request }).await.map(drop)
        }
        Act::Point { alias, version } => {
            let request = SetAliasRequest {
                function_id,
                name: alias.into(),
                version: label(&version),
                environment: None,
                description: None,
                reason: None,
                dry_run: false,
            };
            client.call(&request).await.map(drop)
        }
        Act::Share { alias, version, weight } => {
            let (alias, version, weight) = (Some(alias.into()), Some(label(&version)), Some(weight));
            let request = SetTrafficRequest { function_id, alias, version, weight, ..SetTrafficRequest::default() };
            client.call(&request).await.map(drop)
        }
        Act::Rollback => client.call(&RollbackRequest { function_id, ..RollbackRequest::default() }).await.map(drop),
        Act::DeleteAlias { alias } => {
            client.call(&DeleteAliasRequest { function_id, name: alias.into() }).await.map(drop)
        }
        Act::DeleteVersion { version } => {
            client.call(&DeleteVersionRequest { function_id, version: label(&version) }).await.map(drop)
        }
        Act::Cleanup { keep } => {
            let request = CleanupRequest { function_id: Some(function_id), keep: Some(keep), dry_run: false };
            client.call(&request).await.map(drop)
        }
    };
    match done {
        Ok(()) => Ok(true),
        Err(ClientError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Checks that every alias answers, and that the bundles on disk are those of the listed versions.
async fn is_sound(client: &Client, data: &std::path::Path, state: &State) {
    for version in &state.versions {
        is_whole(client, "f", version).await;
    }
    for (alias, (own, split)) in &state.aliases {
        let answer = invoke(client, &format!("f:{alias}")).await.unwrap();
        let targets = [Some(own), split.as_ref().map(|it| &it.0)];
        assert!(
            targets.contains(&Some(&answer.version.to_string())),
            "{alias} is answered by {}: {state:?}",
            answer.version
        );
    }
    if let Some(version) = &state.rollback {
        assert_eq!(invoke(client, "f:ROLLBACK").await.unwrap().version, version.as_str());
    }
    bundles_are(data, &state.versions.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_history_leaves_an_alias_at_what_is_missing_however_often_the_daemon_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let mut random = Random::new(0x415);
    let (mut count, mut refused, mut cut_off) = (0, 0, 0);
    let mut state = State::default();
    for round in 0..repetitions(6, 10) {
        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        if round == 0 {
            register(&client, "f").await;
            client.call(&deploy_request("f", "r0", &code("r0"))).await.unwrap();
            state = State::of(&client).await;
        }
        for _ in 0..ACTS {
            count += 1;
            let act = act(&mut random, &state, count);
            let expected = state.after(&act);
            let done = perform(&client, &act).await.unwrap_or_else(|error| panic!("{act:?} of {state:?}: {error}"));
            let found = State::of(&client).await;
            assert_eq!(done, expected.is_some(), "{act:?} of {state:?}");
            assert_eq!(found.known(), expected.unwrap_or(state).known(), "{act:?}");
            refused += usize::from(!done);
            state = found;
        }
        is_sound(&client, data.path(), &state).await;

        count += 1;
        let act = act(&mut random, &state, count);
        // Every other round kills at once, so that acts are cut off however slow the machine is.
        let answers = if round % 2 == 0 { 0 } else { random.below(ANSWERS_MAX) };
        let outcome = perform_and_kill(&daemon, &act, answers).await;
        daemon.kill().await;
        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        let found = State::of(&client).await;
        let after = state.after(&act).unwrap_or_else(|| state.clone()).known();
        let is_after = found.known() == after;
        match outcome {
            Ok(_) => assert!(is_after, "{act:?} was acknowledged: {found:?}"),
            Err(_) => {
                cut_off += 1;
                assert!(is_after || found.known() == state.known(), "{act:?} of {state:?} left {found:?}");
            }
        }
        is_sound(&client, data.path(), &found).await;
        state = found;
        daemon.kill().await;
    }
    assert!(refused > 2 && cut_off > 1, "{refused} refused and {cut_off} cut off are not much of a history");
}

/// Kills the daemon after this many answers to other callers, whether or not the act is done.
async fn perform_and_kill(daemon: &DaemonProcess, act: &Act, answers: usize) -> Result<bool, ClientError> {
    let (count, mut counted) = watch::channel(0);
    let caller = daemon.client().await;
    let calling = tokio::spawn(async move {
        while invoke(&caller, "f").await.is_ok() {
            count.send_modify(|it| *it += 1);
        }
    });
    let client = daemon.client().await;
    let killing = async {
        counted.wait_for(|it| *it >= answers).await.unwrap();
        daemon.signal(Signal::SIGKILL);
    };
    let (outcome, ()) = tokio::join!(perform(&client, act), killing);
    calling.await.unwrap();
    outcome
}
