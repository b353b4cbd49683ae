//! Heavy traffic while versions change and while the daemon is killed: no invocation fails, answers are not mixed up,
//! and acknowledged changes are not lost.

use crate::{
    harness::{DaemonProcess, TestDaemon, repetitions},
    hostile::noise::Random,
    process::crash::{bundles_are, code, is_whole, versions},
};
use levain::{
    client::{Client, ClientError},
    model::SettingsPatch,
    protocol::{
        field::Body,
        message::{
            DeleteVersionRequest, DeployRequest, GetRequest, InvokeRequest, InvokeResponse, RegisterRequest,
            RollbackRequest, SetTrafficRequest, UpdateRequest, VersionRef,
        },
    },
};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::{sync::watch, task::JoinSet};

/// Number of clients that invoke all the time.
const CLIENTS: usize = 16;

/// Upper bound of the answers before a kill.
const ANSWERS_MAX: usize = 800;

fn invoke() -> InvokeRequest {
    InvokeRequest { function_id: "f".into(), ..InvokeRequest::default() }
}

fn deploy(label: &str) -> DeployRequest {
    let bundle = Some(Body::from(code(label).into_bytes()));
    DeployRequest { function_id: "f".into(), version: Some(label.into()), bundle, ..DeployRequest::default() }
}

/// Returns the version that answered; the answer, its code and the daemon's information to the code must agree.
fn answered_by(answer: &InvokeResponse) -> &str {
    assert!(answer.success && answer.status == 200, "{answer:?}");
    let body = std::str::from_utf8(&answer.body.0).unwrap();
    assert_eq!(body, format!("{0} {0}", answer.version), "{answer:?}");
    answer.version.as_str()
}

/// Targets of an alias over time, and how many of them are acknowledged.
#[derive(Default)]
struct History {
    /// Function with the alias as its qualifier.
    function: &'static str,
    /// Targets, recorded before a change is requested: one version, or the two that share the invocations.
    targets: parking_lot::Mutex<Vec<Vec<String>>>,
    /// Number of acknowledged targets.
    acknowledged: AtomicUsize,
    answers: AtomicUsize,
}

impl History {
    fn of(function: &'static str) -> Arc<Self> {
        Arc::new(Self { function, ..Self::default() })
    }

    /// Carries out a change after which these versions answer.
    async fn change<T>(&self, targets: &[&str], command: impl Future<Output = Result<T, ClientError>>) -> T {
        self.targets.lock().push(targets.iter().map(|it| (*it).to_owned()).collect());
        let done = command.await.unwrap_or_else(|error| panic!("{}: {error}", self.function));
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        done
    }

    /// Invokes once; the answer must come from a version that was a target at some time between begin and end.
    async fn check_one(&self, client: &Client) -> String {
        let oldest = self.acknowledged.load(Ordering::SeqCst) - 1;
        let request = InvokeRequest { function_id: self.function.into(), ..InvokeRequest::default() };
        let answer = client.call(&request).await.unwrap_or_else(|error| panic!("an invocation failed: {error}"));
        let version = answered_by(&answer);
        let targets = self.targets.lock();
        assert!(
            targets[oldest..].iter().flatten().any(|target| target == version),
            "{version} answered {}, of {targets:?} from {oldest}",
            self.function
        );
        self.answers.fetch_add(1, Ordering::SeqCst);
        version.to_owned()
    }

    /// Number of invocations that a version answers, out of `calls` made side by side.
    async fn count(&self, client: &Client, calls: usize, version: &str) -> usize {
        let calls = futures_util::future::join_all((0..calls).map(|_| self.check_one(client)));
        calls.await.iter().filter(|it| *it == version).count()
    }

    /// Checks that invocations after the acknowledgement are answered by this version only.
    async fn only(&self, client: &Client, version: &str) {
        assert_eq!(self.count(client, 8, version).await, 8, "{} is answered by {version}", self.function);
    }
}

/// Number of invocations for which a split is counted.
const SAMPLE: usize = 300;

/// Whether a count of draws with this share is within five standard deviations: one in two million is not.
fn is_within(count: usize, of: usize, percent: u32) -> bool {
    let (of, share) = (of as f64, f64::from(percent) / 100.0);
    (count as f64 - of * share).abs() <= 5.0 * (of * share * (1.0 - share)).sqrt()
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_rollbacks_and_traffic_under_load_fail_nothing() {
    let daemon = TestDaemon::start().await;
    let client = daemon.client();
    daemon.register("f").await;
    let settings =
        SettingsPatch { max_concurrent_executions: Some(4), queue_max: Some(2_000), ..SettingsPatch::default() };
    client.call(&UpdateRequest { function_id: "f".into(), settings }).await.unwrap();
    let (live, staging) = (History::of("f"), History::of("f:STAGING"));
    let stage = |label: &str| DeployRequest { alias: Some("STAGING".into()), bundle: None, ..deploy(label) };
    live.change(&["n0"], client.call(&deploy("n0"))).await;
    staging.change(&["n0"], client.call(&stage("n0"))).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let history = Arc::clone(if number % 4 == 0 { &staging } else { &live });
        let (is_over, client) = (Arc::clone(&is_over), daemon.connect().await);
        clients.spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                history.check_one(&client).await;
            }
        });
    }
    let back = RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() };
    let share = |label: &str, weight: u32| SetTrafficRequest {
        function_id: "f".into(),
        version: Some(VersionRef::Label(label.into())),
        weight: Some(weight),
        ..SetTrafficRequest::default()
    };
    // Number of deployments, and of changes of shares, moves of another alias, and rollbacks each.
    let changes = repetitions(5, 20);
    let mut old = "n0".to_owned();
    for change in 1..=changes {
        // Moves forward to a new version, gives the one before it a share, and goes back to it.
        let new = format!("n{change}");
        live.change(&[&new], client.call(&deploy(&new))).await;
        live.only(client, &new).await;
        let weight = (change * 100 / changes) as u32;
        live.change(&[&new, &old], client.call(&share(&old, weight))).await;
        let count = live.count(client, SAMPLE, &old).await;
        assert!(is_within(count, SAMPLE, weight), "{count} of {SAMPLE} calls went to {old}, which has {weight} %");
        staging.change(&[&new], client.call(&stage(&new))).await;
        staging.only(client, &new).await;
        // Half of the rollbacks end a split, the others go to the version before.
        if change % 2 == 0 {
            let done = live.change(&[&new], client.call(&back)).await;
            assert_eq!(done.version, new.as_str());
            live.only(client, &new).await;
        } else {
            live.change(&[&new], client.call(&share(&new, 100))).await;
        }
        let done = live.change(&[&old], client.call(&back)).await;
        assert_eq!(done.version, old.as_str());
        live.only(client, &old).await;
        if change % 5 == 0 {
            live.change(&[&new], client.call(&DeployRequest { bundle: None, ..deploy(&new) })).await;
            old = new;
        }
    }
    is_over.store(true, Ordering::SeqCst);
    clients.join_all().await;
    for history in [live, staging] {
        let answers = history.answers.load(Ordering::SeqCst);
        assert!(answers > 20 * changes, "{answers} answers are not much of a storm");
    }
    daemon.stop().await;
}

/// Deployments of a round before its kill.
#[derive(Default)]
struct Deployments {
    begun: Vec<String>,
    acknowledged: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_the_storm_loses_nothing_it_has_acknowledged() {
    let data = tempfile::tempdir().unwrap();
    let mut random = Random::new(0x57a8);
    let mut acknowledged = 0;
    // Version that must exist and be live.
    let mut kept = String::new();
    let kills = repetitions(6, 20);
    for round in 0..kills {
        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        if round == 0 {
            client.call(&RegisterRequest { name: "f".into(), ..RegisterRequest::default() }).await.unwrap();
            client.call(&deploy("start")).await.unwrap();
            kept = "start".to_owned();
        }
        let deployments = storm(&daemon, round, random.below(ANSWERS_MAX)).await;
        daemon.kill().await;
        acknowledged += deployments.acknowledged;
        kept = check(data.path(), kept, deployments).await;
    }
    assert!(acknowledged > kills / 4, "{acknowledged} deployments are not much of a storm");
}

/// Deploys one version after the other while clients invoke, and kills the daemon after this many answers, at any point
/// of its work.
async fn storm(daemon: &DaemonProcess, round: usize, answers: usize) -> Deployments {
    let (count, mut counted) = watch::channel(0);
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (client, count) = (daemon.client().await, count.clone());
        clients.spawn(async move {
            // The loop ends with its connection.
            while let Ok(answer) = client.call(&invoke()).await {
                answered_by(&answer);
                count.send_modify(|it| *it += 1);
            }
        });
    }
    let client = daemon.client().await;
    let (acknowledge, mut acknowledged) = watch::channel(0);
    let deploying = async {
        let mut deployments = Deployments::default();
        loop {
            let label = format!("r{round}-{}", deployments.begun.len());
            deployments.begun.push(label.clone());
            match client.call(&deploy(&label)).await {
                Ok(_) => {
                    deployments.acknowledged += 1;
                    acknowledge.send_replace(deployments.acknowledged);
                }
                Err(ClientError::Disconnected) => return deployments,
                Err(error) => panic!("{label}: {error}"),
            }
        }
    };
    let killing = async {
        counted.wait_for(|it| *it >= answers).await.unwrap();
        // Every other round waits for an acknowledged deployment, however slow the machine is.
        acknowledged.wait_for(|it| *it >= round % 2).await.unwrap();
        daemon.signal(Signal::SIGKILL);
    };
    let (deployments, ()) = tokio::join!(deploying, killing);
    clients.join_all().await;
    deployments
}

/// Checks the state after a kill, removes all but the live version, and returns that.
async fn check(data_dir: &Path, kept: String, deployments: Deployments) -> String {
    let daemon = DaemonProcess::start(data_dir).await;
    let client = daemon.client().await;
    let found: BTreeSet<String> = versions(&client, "f").await.into_iter().map(|it| it.version.to_string()).collect();
    let (acknowledged, pending) = deployments.begun.split_at(deployments.acknowledged);
    for label in acknowledged.iter().chain([&kept]) {
        assert!(found.contains(label), "{label} was acknowledged and is not in {found:?}");
    }
    assert!(found.iter().all(|label| *label == kept || deployments.begun.contains(label)), "{found:?}");
    let live = client.call(&GetRequest { function_id: "f".into() }).await.unwrap().active_version.unwrap().to_string();
    // The interrupted deployment may exist or not; if it does, it is live.
    let newest = pending.iter().find(|label| found.contains(*label)).or(acknowledged.last()).unwrap_or(&kept);
    assert_eq!(&live, newest, "of {kept} and {:?}", deployments.begun);
    for label in &found {
        is_whole(&client, "f", label).await;
    }
    assert_eq!(answered_by(&client.call(&invoke()).await.unwrap()), live);
    bundles_are(data_dir, &found.iter().map(String::as_str).collect::<Vec<_>>());
    for label in found.into_iter().filter(|label| *label != live) {
        client.call(&DeleteVersionRequest { function_id: "f".into(), version: label.into() }).await.unwrap();
    }
    daemon.kill().await;
    live
}
