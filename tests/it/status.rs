//! STATUS.

use crate::bytecode::{cached, large, until_compiled};
use crate::harness::{TestDaemon, bun, until};
use levain::protocol::message::{DeleteVersionRequest, StatusRequest};

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_the_daemon_and_its_workers() {
    let daemon = TestDaemon::start().await;
    let status = daemon.call(&StatusRequest {}).await.unwrap();
    assert_eq!((status.version.as_str(), status.pid), (env!("CARGO_PKG_VERSION"), std::process::id()));
    assert_eq!((status.functions, status.pools.len(), status.workers_memory_bytes), (0, 0, 0));
    assert_eq!(status.data_dir, daemon.data_dir().to_str().unwrap());
    assert_eq!(status.bun_path, bun().await.to_str().unwrap());
    assert!(status.bun_version.split('.').count() >= 3, "{}", status.bun_version);

    daemon.deploy_sample("sleep").await.unwrap();
    daemon.deploy_sample("hello").await.unwrap();
    let call = daemon.get_beside("sleep", "/?ms=60000").await;
    daemon.until_pool("sleep", "it runs", |pool| pool.busy == 1).await;
    let status = daemon.call(&StatusRequest {}).await.unwrap();
    assert_eq!(status.functions, 2);
    let pools: Vec<_> =
        status.pools.iter().map(|it| (it.function.as_str(), it.version.as_str(), it.idle, it.busy)).collect();
    assert_eq!(pools, [("hello", "v1", 1, 0), ("sleep", "v1", 0, 1)]);
    let mebibytes = |bytes: u64| bytes >> 20;
    assert!((1..500).contains(&mebibytes(status.memory_bytes)), "{}", status.memory_bytes);
    assert!((2..200).contains(&mebibytes(status.workers_memory_bytes)), "{}", status.workers_memory_bytes);
    assert_eq!(status.logs_dropped, 0);
    call.abort();
    let later = until("the call is over", || async {
        let status = daemon.call(&StatusRequest {}).await.unwrap();
        status.pools.iter().all(|pool| pool.busy == 0).then_some(status)
    })
    .await;
    assert!(later.uptime_ms >= status.uptime_ms);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_what_lies_on_the_disk() {
    let mut daemon = TestDaemon::start().await;
    let empty = daemon.status().await.disk;
    assert_eq!((empty.bundles_bytes, empty.bytecode_bytes), (0, 0));
    assert!(empty.store_bytes > 4_096 && empty.logs_bytes > 4_096, "{empty:?}");
    assert!(empty.free_bytes.is_some_and(|it| it > 1 << 20), "{empty:?}");

    daemon.deploy_text("f", &large()).await;
    until_compiled(&daemon, "f").await;
    let one = daemon.info("f").await.disk_bytes;
    assert_eq!(one, large().len() as u64);
    daemon.redeploy_text("f", None, "export default () => new Response('two');").await.unwrap();
    let two = daemon.info("f").await.disk_bytes;
    daemon.deploy_sample("hello").await.unwrap();
    let hello = daemon.info("hello").await.disk_bytes;
    assert!(two > one && hello > 0);
    let compiled = |daemon: &TestDaemon| -> u64 {
        let files = cached(daemon.data_dir()).into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let disk = daemon.status().await.disk;
    assert_eq!((disk.bundles_bytes, disk.bytecode_bytes), (two + hello, compiled(&daemon)));
    assert!(disk.bytecode_bytes > one);
    // After a restart the compiled form has not been checked yet, but it counts all the same.
    daemon.restart().await;
    assert_eq!(daemon.status().await.disk.bytecode_bytes, compiled(&daemon));
    daemon.call(&DeleteVersionRequest { function_id: "f".into(), version: "v1".into() }).await.unwrap();
    let disk = daemon.status().await.disk;
    assert_eq!((disk.bundles_bytes, disk.bytecode_bytes), (two - one + hello, 0));
    daemon.stop().await;
}
