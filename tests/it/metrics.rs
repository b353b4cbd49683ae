//! GET_METRICS.

use crate::harness::{TestDaemon, get, is_refused};
use levain::{
    config::Verify,
    error::ErrorCode,
    protocol::message::{InvokeRequest, MetricsRequest},
};
use std::collections::BTreeMap;

/// Waits, then answers; fails in several ways.
const CODE: &str = "export default async (req) => {
    const url = new URL(req.url);
    if (url.pathname === '/throw') throw new Error('no');
    if (url.pathname === '/exit') process.exit(1);
    await Bun.sleep(Number(url.searchParams.get('ms') ?? 0));
    return new Response('ok', { status: url.pathname === '/500' ? 500 : 200 });
};";

fn request(period: Option<&str>) -> MetricsRequest {
    MetricsRequest { function_id: "f".into(), period: period.map(Into::into) }
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_are_counted_for_each_version() {
    let daemon = TestDaemon::start_with(|config| config.versioning.verify = Verify::Syntax).await;
    daemon.deploy_text("f", CODE).await;
    let none = daemon.call(&request(None)).await.unwrap();
    assert_eq!((none.total.invocations, none.total.last_invoked, none.period.as_str()), (0, None, "1h"));
    for _ in 0..8 {
        daemon.get("f", "/").await;
    }
    daemon.get("f", "/?ms=50").await;
    daemon.get("f", "/500").await;
    daemon.redeploy_text("f", None, &format!("{CODE}// second")).await.unwrap();
    for path in ["/", "/throw", "/throw", "/exit"] {
        daemon.get("f", path).await;
    }
    let late = InvokeRequest { timeout_ms: Some(50), ..get("f", "/?ms=60000") };
    // The previous invocation has ended the worker, so the start of a new one takes part of the time.
    assert_eq!(daemon.invoke_with(late).await.unwrap().code, Some(ErrorCode::Timeout));

    for period in [None, Some("1m"), Some("24h"), Some("all")] {
        let metrics = daemon.call(&request(period)).await.unwrap();
        assert_eq!((metrics.function.as_str(), metrics.period.as_str()), ("f", period.unwrap_or("1h")));
        let total = &metrics.total;
        let codes =
            [("HANDLER_ERROR", 2), ("TIMEOUT", 1), ("WORKER_CRASHED", 1)].map(|(code, count)| (code.to_owned(), count));
        assert_eq!((total.invocations, total.errors, &total.errors_by_code), (15, 4, &BTreeMap::from(codes)));
        assert!(total.cold_starts >= 2 && total.average_start_ms > 0.0, "{total:?}");
        assert!(total.last_invoked.is_some());
        let [v1, v2] = &metrics.versions[..] else { panic!("{metrics:?}") };
        assert_eq!((v1.version.as_str(), v1.figures.invocations, v1.figures.errors), ("v1", 10, 0));
        assert_eq!((v2.version.as_str(), v2.figures.invocations, v2.figures.errors), ("v2", 5, 4));
        let v1 = &v1.figures;
        assert_eq!(v1.cold_starts, 1);
        assert!(v1.max_ms >= 45.0 && v1.p99_ms >= 45.0, "{v1:?}");
        assert!(v1.p50_ms > 0.0 && v1.p50_ms <= v1.p90_ms && v1.p90_ms <= v1.p99_ms, "{v1:?}");
        assert!(v1.average_duration_ms >= 5.0 && v1.average_duration_ms <= v1.max_ms, "{v1:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_period_or_function_is_refused() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    for bad in ["2h", "", "yesterday"] {
        let outcome = daemon.call(&request(Some(bad))).await;
        assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{bad}: {outcome:?}");
    }
    let unknown = MetricsRequest { function_id: "nobody".into(), period: None };
    assert!(is_refused(&daemon.call(&unknown).await, ErrorCode::FunctionNotFound));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_outlive_the_daemon() {
    let mut daemon = TestDaemon::start().await;
    daemon.deploy_text("f", CODE).await;
    daemon.get("f", "/").await;
    daemon.restart().await;
    daemon.get("f", "/").await;
    assert_eq!(daemon.call(&request(Some("all"))).await.unwrap().total.invocations, 2);
    daemon.stop().await;
}
