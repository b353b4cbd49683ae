//! Resources that all functions share: workers, memory, and which function makes room for another.

use crate::harness::{Load, TestDaemon, get, is_refused, repetitions, until};
use levain::{
    config::{Config, Verify},
    error::ErrorCode,
    model::SettingsPatch,
    protocol::message::{StatusRequest, StatusResponse},
};
use tokio::task::{JoinHandle, JoinSet};

const HELLO: &str = "export default () => new Response('hello');";

/// Keeps its worker for `?ms=` milliseconds.
const SLEEP: &str = "const id = crypto.randomUUID();
export default async (req) => {
    await Bun.sleep(Number(new URL(req.url).searchParams.get('ms') ?? 0));
    return new Response(id);
};";

async fn start(workers_max: u32) -> TestDaemon {
    start_with(workers_max, |_| {}).await
}

/// Starts a daemon whose deployments load nothing.
async fn start_with(workers_max: u32, change: impl FnOnce(&mut Config)) -> TestDaemon {
    TestDaemon::start_with(|config| {
        config.workers.workers_max = workers_max;
        config.versioning.verify = Verify::Syntax;
        change(config);
    })
    .await
}

async fn status(daemon: &TestDaemon) -> StatusResponse {
    daemon.client().call(&StatusRequest {}).await.expect("a status")
}

async fn ready(daemon: &TestDaemon, name: &str) -> u32 {
    daemon.pools(name).await.iter().map(|pool| pool.idle + pool.busy).sum()
}

fn warm_workers(count: u32) -> SettingsPatch {
    SettingsPatch { warm_workers: Some(count), ..SettingsPatch::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_as_many_functions_share_the_places() {
    let places = repetitions(5, 20);
    let daemon = start_with(places as u32, |config| config.workers.memory_mb_max = 1_024).await;
    let names: Vec<String> = (0..10 * places).map(|number| format!("f{number}")).collect();
    for name in &names {
        daemon.deploy_text(name, HELLO).await;
    }
    let most = {
        let (watcher, data) = (daemon.connect().await, daemon.data_dir().to_owned());
        let watch: JoinHandle<u32> = tokio::spawn(async move {
            let mut most = 0;
            loop {
                let status = watcher.call(&StatusRequest {}).await.expect("a status");
                assert!(status.workers_memory_bytes <= status.workers_memory_bytes_max, "{status:?}");
                most = most.max(status.workers).max(crate::harness::workers_of(&data).len() as u32);
                if status.functions == 0 {
                    return most;
                }
            }
        });
        let mut calls = JoinSet::new();
        for name in &names {
            let (client, request) = (daemon.client().clone(), get(name, "/"));
            calls.spawn(async move { client.call(&request).await });
        }
        for answer in calls.join_all().await {
            assert_eq!(answer.expect("an answer").status, 200);
        }
        for name in &names {
            let request = levain::protocol::message::DeleteRequest { function_id: name.clone() };
            daemon.call(&request).await.expect("it is there");
        }
        watch.await.expect("the watcher watches")
    };
    assert!((places / 2..=places).contains(&(most as usize)), "{most} workers at once");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_that_is_idle_longest_makes_room_and_warm_workers_never_do() {
    let daemon = start(3).await;
    for name in ["kept", "old", "new", "third"] {
        daemon.deploy_text(name, HELLO).await;
    }
    daemon.update("kept", warm_workers(1)).await.expect("there is room");
    daemon.until_pool("kept", "its warm worker is there", |pool| pool.idle == 1).await;
    daemon.get("old", "/").await;
    daemon.get("new", "/").await;
    daemon.get("third", "/").await;
    assert_eq!((ready(&daemon, "kept").await, ready(&daemon, "old").await), (1, 0));
    assert_eq!((ready(&daemon, "new").await, ready(&daemon, "third").await), (1, 1));
    assert_eq!(status(&daemon).await.workers, 3);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_function_shares_its_places_and_loses_no_call() {
    let daemon = start(4).await;
    for name in ["greedy", "modest"] {
        daemon.deploy_text(name, SLEEP).await;
    }
    let greedy = Load::start(&daemon, "greedy", "/?ms=20", 16).await;
    until("the first function has all places", || async { (ready(&daemon, "greedy").await == 4).then_some(()) }).await;
    let modest = Load::start(&daemon, "modest", "/?ms=20", 16).await;
    until("each function has half of the places", || async {
        (ready(&daemon, "greedy").await == 2 && ready(&daemon, "modest").await == 2).then_some(())
    })
    .await;
    assert!(greedy.stop().await.len() > 16 && !modest.stop().await.is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_busy_functions_than_places_take_turns() {
    let daemon = start(2).await;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        daemon.deploy_text(name, SLEEP).await;
    }
    let mut loads = Vec::new();
    for name in names {
        loads.push(Load::start(&daemon, name, "/?ms=10", 3).await);
    }
    for name in names {
        daemon.get(name, "/").await;
    }
    for load in loads {
        assert!(!load.stop().await.is_empty());
    }
    assert!(status(&daemon).await.workers <= 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_fit_is_refused_with_the_sum() {
    let daemon = start_with(3, |config| config.workers.memory_mb_max = 512).await;
    daemon.deploy_text("first", HELLO).await;
    daemon.update("first", warm_workers(2)).await.expect("it fits");
    daemon.register_with("second", warm_workers(2)).await;
    let refused = daemon.redeploy_text("second", None, HELLO).await;
    assert!(is_refused(&refused, ErrorCode::WorkerUnavailable), "{refused:?}");
    let error = refused.expect_err("2 + 2 > 3");
    assert!(
        error.message.contains("2 warm workers of other functions + 2") && error.message.contains("= 4"),
        "{error}"
    );
    assert_eq!(error.details.expect("details")["workers_max"], 3);
    assert!(daemon.versions("second").await.is_empty(), "the deployment leaves nothing");

    daemon.update("second", warm_workers(1)).await.expect("a function without a version may have any settings");
    daemon.redeploy_text("second", None, HELLO).await.expect("2 + 1 = 3");
    let refused = daemon.update("second", warm_workers(2)).await;
    assert!(is_refused(&refused, ErrorCode::WorkerUnavailable), "{refused:?}");
    assert_eq!(daemon.info("second").await.settings.warm_workers, 1);

    let memory = SettingsPatch { memory_mb: Some(1_024), ..SettingsPatch::default() };
    let refused = daemon.update("second", memory).await;
    assert!(is_refused(&refused, ErrorCode::WorkerUnavailable), "{refused:?}");
    let message = refused.expect_err("1024 > 512").message;
    assert!(message.contains("1024 MiB") && message.contains("512 MiB"), "{message}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_workers_go_when_all_together_have_too_much_memory() {
    let daemon = start_with(50, |config| {
        config.workers.memory_mb_max = 128;
        config.functions.memory_mb = 64;
    })
    .await;
    let code = "let kept = null; export default () => {
        kept ??= new Uint8Array(30 << 20).fill(1);
        return new Response(String(kept.length));
    };";
    let names: Vec<String> = (0..10).map(|number| format!("f{number}")).collect();
    for name in &names {
        daemon.deploy_text(name, code).await;
        assert_eq!(daemon.get(name, "/").await.status, 200);
    }
    let status = until("the remaining workers' memory is within the cap", || async {
        Some(status(&daemon).await).filter(|it| it.workers_memory_bytes <= it.workers_memory_bytes_max)
    })
    .await;
    assert!((1..10).contains(&status.workers), "{status:?}");
    assert_eq!(daemon.get("f0", "/").await.status, 200);
    daemon.stop().await;
}
