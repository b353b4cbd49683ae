//! Heavy traffic while versions change, and while the daemon is killed: nothing fails, nothing is mixed up, nothing that
//! was acknowledged is lost.

use crate::{
    harness::{DaemonProcess, TestDaemon},
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
            RollbackRequest, UpdateRequest,
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

/// Clients that invoke all the time.
const CLIENTS: usize = 16;

/// Deployments, and as many rollbacks.
const CHANGES: usize = 10;

/// Times the daemon is killed.
const KILLS: usize = 20;

/// Answers before a kill, at most.
const ANSWERS_MAX: usize = 800;

fn invoke() -> InvokeRequest {
    InvokeRequest { function_id: "f".into(), ..InvokeRequest::default() }
}

fn deploy(label: &str) -> DeployRequest {
    let bundle = Some(Body::from(code(label).into_bytes()));
    DeployRequest { function_id: "f".into(), version: Some(label.into()), bundle, ..DeployRequest::default() }
}

/// The version that answered: as the answer says, as its code says, and as the daemon told the code.
fn answered_by(answer: &InvokeResponse) -> &str {
    assert!(answer.success && answer.status == 200, "{answer:?}");
    let body = std::str::from_utf8(&answer.body.0).unwrap();
    assert_eq!(body, format!("{0} {0}", answer.version), "{answer:?}");
    &answer.version
}

/// What LIVE points at over time, and how far that is known.
#[derive(Default)]
struct History {
    /// Written before a change is asked for.
    targets: parking_lot::Mutex<Vec<String>>,
    /// How many of them are acknowledged.
    acknowledged: AtomicUsize,
    is_over: AtomicBool,
    answers: AtomicUsize,
}

impl History {
    fn begin(&self, target: &str) {
        self.targets.lock().push(target.to_owned());
    }

    fn acknowledge(&self) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    /// Invokes once; the answer is from a version that was live at some time between its begin and its end.
    async fn check_one(&self, client: &Client) {
        let oldest = self.acknowledged.load(Ordering::SeqCst) - 1;
        let answer = client.call(&invoke()).await.unwrap_or_else(|error| panic!("an invocation failed: {error}"));
        let version = answered_by(&answer);
        let targets = self.targets.lock();
        assert!(
            targets[oldest..].iter().any(|target| target == version),
            "{version} answered, of {targets:?} from {oldest}"
        );
        self.answers.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_and_rollbacks_under_load_fail_nothing() {
    let daemon = TestDaemon::start().await;
    let history = Arc::new(History::default());
    daemon.register("f").await;
    let settings = SettingsPatch { max_concurrent_executions: Some(4), ..SettingsPatch::default() };
    daemon.client().call(&UpdateRequest { function_id: "f".into(), settings }).await.unwrap();
    history.begin("v0");
    daemon.client().call(&deploy("v0")).await.unwrap();
    history.acknowledge();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (history, client) = (Arc::clone(&history), daemon.connect().await);
        clients.spawn(async move {
            while !history.is_over.load(Ordering::SeqCst) {
                history.check_one(&client).await;
            }
        });
    }
    for change in 1..=CHANGES {
        // Forward to a new version, and back to the one before it.
        let (new, old) = (format!("v{change}"), history.targets.lock().last().unwrap().clone());
        history.begin(&new);
        daemon.client().call(&deploy(&new)).await.unwrap();
        history.acknowledge();
        only(&daemon, &new).await;
        history.begin(&old);
        let request = RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() };
        assert_eq!(daemon.client().call(&request).await.unwrap().version, old);
        history.acknowledge();
        only(&daemon, &old).await;
    }
    history.is_over.store(true, Ordering::SeqCst);
    clients.join_all().await;
    let answers = history.answers.load(Ordering::SeqCst);
    assert!(answers > 20 * CHANGES, "{answers} answers are not much of a storm");
    daemon.stop().await;
}

/// Invocations that begin after the acknowledgement are answered by this version only.
async fn only(daemon: &TestDaemon, version: &str) {
    let answers: Vec<_> = (0..8).map(|_| daemon.client().call(&invoke())).collect();
    for answer in answers {
        assert_eq!(answered_by(&answer.await.unwrap()), version);
    }
}

/// What a round before a kill knows of its deployments.
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
    // The version that must be there and live.
    let mut kept = String::new();
    for round in 0..KILLS {
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
    assert!(acknowledged > KILLS / 4, "{acknowledged} deployments are not much of a storm");
}

/// Deploys one version after the other while clients invoke, and kills the daemon after this many answers, whatever is
/// under way.
async fn storm(daemon: &DaemonProcess, round: usize, answers: usize) -> Deployments {
    let (count, mut counted) = watch::channel(0);
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (client, count) = (daemon.client().await, count.clone());
        clients.spawn(async move {
            // It ends with its connection.
            while let Ok(answer) = client.call(&invoke()).await {
                answered_by(&answer);
                count.send_modify(|it| *it += 1);
            }
        });
    }
    let client = daemon.client().await;
    let deploying = async {
        let mut deployments = Deployments::default();
        loop {
            let label = format!("r{round}-{}", deployments.begun.len());
            deployments.begun.push(label.clone());
            match client.call(&deploy(&label)).await {
                Ok(_) => deployments.acknowledged += 1,
                Err(ClientError::Disconnected) => return deployments,
                Err(error) => panic!("{label}: {error}"),
            }
        }
    };
    let killing = async {
        counted.wait_for(|it| *it >= answers).await.unwrap();
        daemon.signal(Signal::SIGKILL);
    };
    let (deployments, ()) = tokio::join!(deploying, killing);
    clients.join_all().await;
    deployments
}

/// Looks at what a kill has left, and leaves the live version only, which is given back.
async fn check(data_dir: &Path, kept: String, deployments: Deployments) -> String {
    let daemon = DaemonProcess::start(data_dir).await;
    let client = daemon.client().await;
    let found: BTreeSet<_> = versions(&client, "f").await.into_iter().map(|it| it.version).collect();
    let (acknowledged, pending) = deployments.begun.split_at(deployments.acknowledged);
    for label in acknowledged.iter().chain([&kept]) {
        assert!(found.contains(label), "{label} was acknowledged and is not in {found:?}");
    }
    assert!(found.iter().all(|label| *label == kept || deployments.begun.contains(label)), "{found:?}");
    let live = client.call(&GetRequest { function_id: "f".into() }).await.unwrap().active_version.unwrap();
    // The one that was cut off may be there or not; if it is, it is live.
    let newest = pending.iter().find(|label| found.contains(*label)).or(acknowledged.last()).unwrap_or(&kept);
    assert_eq!(&live, newest, "of {kept} and {:?}", deployments.begun);
    for label in &found {
        is_whole(&client, "f", label).await;
    }
    assert_eq!(answered_by(&client.call(&invoke()).await.unwrap()), live);
    bundles_are(data_dir, &found.iter().map(String::as_str).collect::<Vec<_>>());
    for label in found.into_iter().filter(|label| *label != live) {
        client.call(&DeleteVersionRequest { function_id: "f".into(), version: label }).await.unwrap();
    }
    daemon.kill().await;
    live
}
