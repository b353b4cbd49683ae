//! Functions on the daemon's own origin and on hosts of their own.

use super::{curl, daemon_with};
use crate::harness::TestDaemon;
use levain::config::Config;

/// Sets every header with which a site describes itself.
const CODE: &str = r#"export default (req) => new Response("f " + new URL(req.url).pathname, { headers: {
    "service-worker-allowed": "/", "strict-transport-security": "max-age=31536000; includeSubDomains",
    "alt-svc": 'h2="evil.example:443"', "clear-site-data": '"*"', "nel": "{}", "report-to": "{}",
    "reporting-endpoints": 'a="https://evil.example/"', "set-cookie": "a=1; Path=/", "x-own": "1",
} });"#;

const FOR_ORIGINS: [&str; 7] = [
    "service-worker-allowed",
    "strict-transport-security",
    "alt-svc",
    "clear-site-data",
    "nel",
    "report-to",
    "reporting-endpoints",
];

async fn with_function(change: impl FnOnce(&mut Config)) -> TestDaemon {
    let daemon = daemon_with(change).await;
    daemon.deploy_text("f", CODE).await;
    daemon
}

fn host(name: &str) -> String {
    format!("Host: {name}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_speaks_for_an_origin_only_where_that_is_its_own() {
    let daemon = with_function(|config| config.http.functions_domain = "example.com".into()).await;
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for name in ["localhost", "example.com", "www.example.org"] {
            let shown = curl(&daemon, &[version, "-H", &host(name)], "/functions/f/x").await;
            assert_eq!((shown.text(), shown.header("x-own"), shown.all("set-cookie").len()), ("f /x", "1", 1));
            let said: Vec<_> = FOR_ORIGINS.iter().filter(|it| !shown.all(it).is_empty()).collect();
            assert!(said.is_empty(), "{version} {name}: {said:?}");
        }
        for name in ["f.localhost", "f.example.com", "v1--f.example.com", "F.Example.COM.:443"] {
            let shown = curl(&daemon, &[version, "-H", &host(name)], "/functions/f/x").await;
            assert_eq!(shown.text(), "f /functions/f/x", "{name}");
            let said = FOR_ORIGINS.iter().filter(|it| !shown.all(it).is_empty()).count();
            assert_eq!(said, FOR_ORIGINS.len(), "{version} {name}: {shown:?}");
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_the_domain_is_a_functions_and_nothing_elses() {
    let daemon = with_function(|config| config.http.functions_domain = "fn.example.com".into()).await;
    for path in ["/api/status", "/metrics", "/health", "/openapi.json", "/"] {
        let shown = curl(&daemon, &["-H", &host("f.fn.example.com")], path).await;
        assert_eq!(shown.text(), format!("f {path}"));
        for name in ["nope.fn.example.com", "a.f.fn.example.com", "api.fn.example.com"] {
            let shown = curl(&daemon, &["-H", &host(name)], path).await;
            assert_eq!((shown.status(), shown.json()["code"].as_str()), (404, Some("FUNCTION_NOT_FOUND")), "{name}");
        }
    }
    // Hosts outside the functions' domain belong to the daemon.
    for name in ["fn.example.com", "f.example.com", "example.com", "xfn.example.com"] {
        assert_eq!(curl(&daemon, &["-H", &host(name)], "/health").await.text(), "ok\n", "{name}");
    }
    daemon.stop().await;
    let daemon = with_function(|_| {}).await;
    assert_eq!(curl(&daemon, &["-H", &host("f.fn.example.com")], "/health").await.text(), "ok\n");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_worker_cannot_be_one_for_all_functions() {
    let daemon = with_function(|_| {}).await;
    let script = ["-H", "Service-Worker: script"];
    for (path, status) in [
        ("/functions/f", 400),
        ("/functions/f?x=/", 400),
        ("/functions/f:v1", 400),
        ("/functions/f/", 200),
        ("/functions/f/sw.js", 200),
    ] {
        assert_eq!(curl(&daemon, &script, path).await.status(), status, "{path}");
    }
    let own = host("f.localhost");
    assert_eq!(curl(&daemon, &["-H", &own, script[0], script[1]], "/sw.js").await.status(), 200);
    daemon.stop().await;
}
