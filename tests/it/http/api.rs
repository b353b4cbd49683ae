//! Management over HTTP: the commands as JSON, and the forms that clients of other systems know.

mod fields;

use super::{Shown, contract::Contract, curl, daemon};
use crate::harness::TestDaemon;
use levain::protocol::message::DeployRequest;
use serde_json::{Value, json};
use std::fs;

/// A client with the first admin token.
struct Admin {
    daemon: TestDaemon,
    header: String,
    contract: Contract,
}

impl Admin {
    async fn start() -> Self {
        Self::of(daemon().await).await
    }

    async fn of(daemon: TestDaemon) -> Self {
        let token = fs::read_to_string(daemon.data_dir().join("admin.token")).unwrap();
        let (header, contract) = (format!("Authorization: Bearer {}", token.trim()), Contract::of(&daemon).await);
        Self { daemon, header, contract }
    }

    /// Sends a request, and checks it and its answer against `/openapi.json`.
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Shown {
        let text = body.as_ref().map(Value::to_string);
        let mut arguments = vec!["-X", method, "-H", &self.header, "-H", "Content-Type: application/json"];
        if let Some(text) = &text {
            arguments.extend(["-d", text]);
        }
        let shown = curl(&self.daemon, &arguments, path).await;
        self.contract.check((method, path, body.as_ref()), &shown);
        shown
    }

    /// Sends a request that must succeed, and returns its answer.
    async fn json(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let shown = self.call(method, path, body).await;
        assert!((200..300).contains(&shown.status()), "{method} {path}: {shown:?}");
        shown.json()
    }
}

fn code(word: &str) -> Value {
    json!(base64(&format!("export default async (req) => new Response({word:?} + (await req.text()));")))
}

fn base64(text: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_deployed_called_listed_and_rolled_back() {
    let admin = Admin::start().await;
    let first =
        admin.call("POST", "/api/functions/deploy", Some(json!({"name": "my-function", "bundle": code("one ")}))).await;
    assert_eq!(first.status(), 201, "{first:?}");
    let first = first.json();
    let told = |it: &Value| json!([it["name"], it["version"], it["label"], it["status"], it["isNewFunction"]]);
    assert_eq!(told(&first), json!(["my-function", 1, "v1", "active", true]));
    assert!(first["createdAt"].as_str().unwrap().ends_with('Z') && first["deploymentId"].is_string(), "{first}");
    let id = first["id"].as_str().unwrap();
    let second =
        admin.json("POST", &format!("/api/functions/{id}/deploy"), Some(json!({"bundle": code("two ")}))).await;
    assert_eq!(told(&second), json!(["my-function", 2, "v2", "active", false]));

    let history = admin.json("GET", &format!("/api/functions/{id}/deployments"), None).await;
    let rows: Vec<_> =
        history["deployments"].as_array().unwrap().iter().map(|it| json!([it["version"], it["isActive"]])).collect();
    assert_eq!(rows, [json!([2, true]), json!([1, false])]);
    assert_eq!(history["deployments"][0]["id"], second["deploymentId"]);
    assert!(history["deployments"][0]["deployedAt"].is_string());

    let called = admin.json("POST", "/api/functions/my-function/invoke", Some(json!({"body": {"test": true}}))).await;
    assert_eq!((called["status"].as_u64(), called["body"].as_str()), (Some(200), Some("two {\"test\":true}")));
    let back = admin.json("POST", &format!("/api/functions/{id}/rollback"), Some(json!({"version": 1}))).await;
    assert_eq!(
        (back["message"].as_str(), back["version"].as_u64()),
        (Some("Successfully rolled back to version 1"), Some(1))
    );
    let called = admin.json("POST", "/api/functions/my-function/invoke", Some(json!({"body": "hi"}))).await;
    assert_eq!(called["body"], "one hi");
    admin.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_its_path() {
    let admin = Admin::start().await;
    admin.json("POST", "/api/functions", Some(json!({"name": "f", "settings": {"timeout_seconds": 5}}))).await;
    for word in ["one", "two", "three"] {
        admin.json("POST", "/api/functions/f/deploy", Some(json!({"bundle": code(word)}))).await;
    }
    let calls = [
        ("GET", "/api/status", None, "/functions", json!(1)),
        ("GET", "/api/functions?limit=5", None, "/total", json!(1)),
        ("GET", "/api/functions/f", None, "/settings/timeout_seconds", json!(5)),
        (
            "PATCH",
            "/api/functions/f",
            Some(json!({"settings": {"timeout_seconds": 6}})),
            "/settings/timeout_seconds",
            json!(6),
        ),
        ("GET", "/api/functions/f/versions", None, "/versions/0/version", json!("v3")),
        ("PATCH", "/api/functions/f/versions/2", Some(json!({"add": ["blue"]})), "/tags/0", json!("blue")),
        ("GET", "/api/functions/f/compare?from=v1&to=LIVE", None, "/same_code", json!(false)),
        ("PUT", "/api/functions/f/aliases/STAGING", Some(json!({"version": "v1"})), "/environment", json!("staging")),
        ("GET", "/api/functions/f/aliases", None, "/aliases/2/name", json!("STAGING")),
        ("DELETE", "/api/functions/f/aliases/STAGING", None, "/version", json!("v1")),
        ("PUT", "/api/functions/f/traffic", Some(json!({"version": 1, "weight": 20})), "/weight", json!(20)),
        ("PUT", "/api/functions/f/traffic", Some(json!({"weight": 100})), "/version", json!("v3")),
        (
            "PUT",
            "/api/functions/f/policy",
            Some(json!({"policy": {"error_rate_max": 5}})),
            "/policy/error_rate_max",
            json!(5.0),
        ),
        ("GET", "/api/functions/f/policy", None, "/version", json!("v3")),
        (
            "POST",
            "/api/functions/f/rollouts",
            Some(json!({"version": "v1", "plan": "10% 5m, 100%"})),
            "/status",
            json!("running"),
        ),
        ("GET", "/api/functions/f/rollouts", None, "/rollouts/0/step", json!(1)),
        ("POST", "/api/functions/f/rollouts/abort", Some(json!({"reason": "enough"})), "/status", json!("aborted")),
        ("POST", "/api/functions/f/warmup", Some(json!({"count": 2})), "/failed", json!(0)),
        ("GET", "/api/functions/f/logs?limit=5", None, "/total", json!(0)),
        ("GET", "/api/functions/f/metrics?period=5m", None, "/invocations", json!(0)),
        ("GET", "/api/functions/f/manifest", None, "/functions/0/aliases/0/version", json!("v3")),
        ("GET", "/api/deployments?status=active", None, "/deployments/0/function", json!("f")),
        ("GET", "/api/environments", None, "/environments/0/name", json!("dev")),
        ("PUT", "/api/environments/dev", Some(json!({"protected": true})), "/protected", json!(true)),
        ("PUT", "/api/environments/dev", Some(json!({"protected": false})), "/protected", json!(false)),
        ("POST", "/api/environments", Some(json!({"name": "qa", "parent": "staging"})), "/parent", json!("staging")),
        ("GET", "/api/environments/qa", None, "/ancestors/0", json!("staging")),
        ("DELETE", "/api/environments/qa", None, "/name", json!("qa")),
        (
            "POST",
            "/api/functions/f/promote",
            Some(json!({"from": "production", "to": "staging"})),
            "/alias",
            json!("STAGING"),
        ),
        ("GET", "/api/environments/compare?from=staging&to=production", None, "/functions/0/state", json!("in_sync")),
        ("POST", "/api/promote", Some(json!({"dry_run": true})), "/unchanged", json!(1)),
        ("DELETE", "/api/functions/f/aliases/STAGING", None, "/version", json!("v3")),
        (
            "POST",
            "/api/functions/f/deploy",
            Some(json!({"bundle": null, "version": "v3", "preview": "pr-1", "ttl": "1h"})),
            "/alias",
            json!("preview-pr-1"),
        ),
        ("GET", "/api/functions/f/previews", None, "/previews/0/name", json!("pr-1")),
        ("GET", "/api/previews", None, "/previews/0/version", json!("v3")),
        ("POST", "/api/cleanup/previews", Some(json!({})), "/removed", json!([])),
        ("DELETE", "/api/functions/f/previews/pr-1", None, "/removed/0/name", json!("pr-1")),
        (
            "POST",
            "/api/functions/f/deploy",
            Some(json!({"bundle": code("three"), "preview": "pr-2"})),
            "/alias",
            json!("preview-pr-2"),
        ),
        ("DELETE", "/api/previews/pr-2", None, "/removed/0/name", json!("pr-2")),
        ("GET", "/api/functions/f/versions/LIVE", None, "/aliases/0", json!("LIVE")),
        ("GET", "/api/logs?limit=1", None, "/dropped", json!(0)),
        ("POST", "/api/functions/f/cleanup", Some(json!({"keep": 1, "dry_run": true})), "/dry_run", json!(true)),
        ("POST", "/api/cleanup", Some(json!({"keep": 1})), "/functions/0/removed/0/version", json!("v1")),
        ("POST", "/api/tokens", Some(json!({"name": "ci", "scopes": ["deploy"]})), "/name", json!("ci")),
        ("GET", "/api/tokens", None, "/total", json!(2)),
        ("DELETE", "/api/tokens/ci", None, "/name", json!("ci")),
        ("GET", "/api/manifest", None, "/functions/0/name", json!("f")),
        (
            "POST",
            "/api/functions/f/env",
            Some(json!({"key": "API_KEY", "value": "a-secret", "is_secret": true})),
            "/created/0",
            json!("API_KEY"),
        ),
        ("GET", "/api/functions/f/env?resolved", None, "/variables/0/key", json!("API_KEY")),
        ("GET", "/api/functions/f/env/API_KEY/generations", None, "/generations/0/generation", json!(1)),
        ("DELETE", "/api/functions/f/env/API_KEY", None, "/deleted/0", json!("API_KEY")),
        (
            "POST",
            "/api/env",
            Some(json!({"variables": [{"key": "B", "value": "bbbbbb", "is_secret": true}]})),
            "/created/0",
            json!("B"),
        ),
        ("GET", "/api/env", None, "/variables/0/is_secret", json!(true)),
        ("GET", "/api/env/B/generations", None, "/generations/0/is_current", json!(true)),
        ("POST", "/api/secrets/rotate-master-key", None, "/data_keys", json!(1)),
        ("DELETE", "/api/env/B", None, "/deleted/0", json!("B")),
        ("GET", "/api/secrets/audit?limit=1", None, "/entries/0/action", json!("delete")),
        ("POST", "/api/functions/f/rollback", Some(json!({"dry_run": true})), "/status", json!("checked")),
        ("POST", "/api/functions/f/invoke", Some(json!({"body": [1], "query": {"a": ["b"]}})), "/status", json!(200)),
        ("GET", "/api/functions/f/deployments?limit=1", None, "/deployments/0/kind", json!("remove")),
        ("DELETE", "/api/functions/f/versions/v2", None, "/version", json!("v2")),
    ];
    for (method, path, body, pointer, expected) in calls {
        let answer = admin.json(method, path, body).await;
        assert_eq!(answer.pointer(pointer), Some(&expected), "{method} {path}: {answer}");
    }
    let state = admin.json("GET", "/api/manifest", None).await;
    let applied = admin.json("POST", "/api/manifest", Some(json!({"manifest": state}))).await;
    assert_eq!(applied["changes"], json!([]), "{applied}");
    // Waiting deployments are decided both ways; the second way leaves a manifest.
    admin.json("PUT", "/api/environments/production", Some(json!({"protected": true}))).await;
    for (word, decision, status) in [("four", "reject", "rejected"), ("five", "approve", "deployed")] {
        let form = json!({"name": "f", "bundle": code(word), "tags": [word]});
        let waiting = admin.json("POST", "/api/functions/deploy", Some(form)).await;
        assert_eq!(waiting["status"], "pending_approval", "{waiting}");
        let path = format!("/api/deployments/{}/{decision}", waiting["deploymentId"].as_str().unwrap());
        let decided = admin.json("POST", &path, Some(json!({"reason": "so"}))).await;
        assert_eq!(decided["status"], status, "{decided}");
        let path = format!("/api/deployments/{}/manifest", waiting["deploymentId"].as_str().unwrap());
        assert_eq!(admin.call("GET", &path, None).await.status() == 200, decision == "approve");
    }
    admin.json("PUT", "/api/environments/production", Some(json!({"protected": false}))).await;
    assert_eq!(admin.call("GET", "/api/backup", None).await.status(), 200);
    admin.json("DELETE", "/api/functions/f", None).await;
    assert_eq!(admin.contract.unseen(), [""; 0], "every operation of the document works");
    admin.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_a_file_to_download() {
    let admin = Admin::start().await;
    admin.json("POST", "/api/functions/deploy", Some(json!({"name": "f", "bundle": code("one")}))).await;
    let shown = admin.call("GET", "/api/backup", None).await;
    assert_eq!((shown.status(), shown.header("content-type")), (200, "application/gzip"), "{:?}", shown.head);
    let folder = tempfile::tempdir().unwrap();
    let about = levain::backup::unpack(shown.body.as_slice(), folder.path()).unwrap();
    assert_eq!((about.functions, about.versions), (1, 1));
    let token = admin.json("POST", "/api/tokens", Some(json!({"name": "ci", "scopes": ["deploy"]}))).await;
    let header = format!("Authorization: Bearer {}", token["token"].as_str().unwrap());
    assert_eq!(curl(&admin.daemon, &["-H", &header], "/api/backup").await.status(), 403);
    admin.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_its_status() {
    let admin = Admin::start().await;
    let without = curl(&admin.daemon, &[], "/api/status").await;
    assert_eq!((without.status(), without.header("www-authenticate")), (401, "Bearer"));
    let wrong = curl(&admin.daemon, &["-H", "Authorization: Bearer lvn_nonsense"], "/api/nothing").await;
    assert_eq!(wrong.status(), 401, "routes are not revealed without a token");
    let cases = [
        ("GET", "/api/nothing", None, 404),
        ("GET", "/api/functions/deploy", None, 405),
        ("GET", "/api/functions/none", None, 404),
        ("POST", "/api/functions", Some(json!([1])), 400),
        ("POST", "/api/functions", Some(json!({"name": "a b"})), 400),
        ("POST", "/api/functions/f/deploy", Some(json!({"bundle": base64("export default 1")})), 400),
        ("GET", "/api/functions/f/logs?level=loud", None, 400),
        ("GET", "/api/functions?limit=1&limit=2", None, 400),
    ];
    for (method, path, body, status) in cases {
        let shown = admin.call(method, path, body).await;
        assert_eq!(shown.status(), status, "{method} {path}: {shown:?}");
        assert!(shown.json()["error"].as_str().unwrap().len() > 5, "{shown:?}");
    }
    // A token with one scope cannot do anything else.
    let token = admin.json("POST", "/api/tokens", Some(json!({"name": "reader", "scopes": ["read"]}))).await;
    let header = format!("Authorization: Bearer {}", token["token"].as_str().unwrap());
    let reader = Admin { header, ..admin };
    assert_eq!(reader.call("GET", "/api/functions", None).await.status(), 200);
    let refused = reader.call("POST", "/api/functions/deploy", Some(json!({"name": "x", "bundle": code("x")}))).await;
    assert_eq!((refused.status(), refused.json()["code"].as_str()), (403, Some("FORBIDDEN")));
    reader.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_in_no_address_and_in_no_error() {
    let admin = Admin::start().await;
    let path = "/api/env?key=T&is_secret=true";
    for query in ["value=hunter22", "dotenv=T%3Dhunter22", "variables=hunter22", "val%75e=hunter22"] {
        let shown = admin.call("POST", &format!("{path}&{query}"), None).await;
        assert_eq!(shown.status(), 400, "{query}: {shown:?}");
        let error = shown.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("the body") && !error.contains("hunter22"), "{query}: {error}");
    }
    for (body, field, expected) in [
        (json!({"key": "N", "value": 123_456_789, "is_secret": true}), "`value`", "a string"),
        (json!({"key": "N", "value": {"hunter22": 123_456_789}}), "`value`", "a string"),
        (json!({"key": "N", "value": "v", "is_secret": "hunter22"}), "`is_secret`", "a boolean"),
        (json!({"variables": "hunter22, expected \", hunter22"}), "`variables`", "a sequence"),
        (json!({"variables": [{"key": "A", "value": 123_456_789}]}), "`variables[0].value`", "a string"),
        (json!({"variables": [{"key": "A", "from_generation": "hunter22"}]}), "`variables[0].from_generation`", "u32"),
        (json!({"variables": [{"key": "A", "from_generation": -123_456_789}]}), "from_generation", "u32"),
    ] {
        let shown = admin.call("POST", "/api/env", Some(body.clone())).await;
        assert_eq!(shown.status(), 400, "{body}: {shown:?}");
        let error = shown.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(field) && error.contains(expected), "{body}: {error}");
        assert!(!error.contains("hunter22") && !error.contains("123456789"), "{body}: {error}");
    }
    assert_eq!(admin.json("GET", "/api/env", None).await["variables"], json!([]));
    admin.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_may_bring_sources() {
    let admin = Admin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir_all(path("fn/src")).unwrap();
    fs::write(path("fn/package.json"), r#"{"name":"fn","module":"src/main.ts"}"#).unwrap();
    fs::write(path("fn/src/word.ts"), "export const word: string = 'built';").unwrap();
    let send = async |source: &str, build: &str| {
        fs::write(path("fn/src/main.ts"), source).unwrap();
        let packed = std::process::Command::new("tar").args(["czf", &path("f.tgz"), "-C", &path("."), "fn"]).status();
        assert!(packed.unwrap().success());
        let (archive, build) = (format!("archive=@{}", path("f.tgz")), format!("build={build}"));
        let arguments = ["-H", &admin.header, "-F", "name=f", "-F", &archive, "-F", &build];
        curl(&admin.daemon, &arguments, "/api/functions/deploy").await
    };
    let broken = send("export default () =>\n  new Response(;", "true").await;
    assert_eq!(broken.status(), 422, "{broken:?}");
    let problem = &broken.json()["details"]["problems"][0];
    let place = json!([problem["file"], problem["line"], problem["column"]]);
    assert_eq!(place, json!(["src/main.ts", 2, 16]), "{broken:?}");
    assert!(broken.json()["details"]["log"].as_str().unwrap().contains("src/main.ts:2:16"), "{broken:?}");
    let built = send("import { word } from './word';\nexport default () => new Response(word);", "true").await;
    assert_eq!(built.status(), 201, "{built:?}");
    assert_eq!(curl(&admin.daemon, &[], "/functions/f").await.text(), "built");
    let as_it_is = send("export default 1", "false").await;
    assert_eq!((as_it_is.status(), as_it_is.json()["code"].as_str()), (400, Some("BUNDLE_INVALID")), "{as_it_is:?}");
    admin.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_says_where_its_next_page_is() {
    let admin = Admin::start().await;
    for name in ["a", "b", "c"] {
        admin.json("POST", "/api/functions", Some(json!({ "name": name }))).await;
    }
    let (mut path, mut names) = ("/api/functions?limit=2&offset=0".to_owned(), Vec::new());
    loop {
        let page = admin.call("GET", &path, None).await;
        names.extend(page.json()["functions"].as_array().unwrap().iter().map(|it| it["name"].clone()));
        let Some(link) = page.all("link").first().map(|it| (*it).to_owned()) else { break };
        let next = link.strip_prefix('<').and_then(|it| it.strip_suffix(">; rel=\"next\"")).unwrap();
        assert!(next.contains("limit=2&cursor="), "{next}");
        path = next.to_owned();
    }
    assert_eq!(names, ["a", "b", "c"]);
    admin.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_with_a_key_is_carried_out_once() {
    let admin = Admin::start().await;
    let send = async |keys: &[&str], word: &str| {
        let body = json!({"name": "f", "bundle": code(word)});
        let keys: Vec<String> = keys.iter().map(|it| format!("Idempotency-Key: {it}")).collect();
        let text = body.to_string();
        let mut arguments = vec!["-H", &admin.header, "-d", &text];
        keys.iter().for_each(|it| arguments.extend(["-H", it]));
        let shown = curl(&admin.daemon, &arguments, "/api/functions/deploy").await;
        admin.contract.check(("POST", "/api/functions/deploy", Some(&body)), &shown);
        shown
    };
    let first = send(&["\"a b\""], "one").await;
    assert_eq!((first.status(), first.json()["isNewFunction"].as_bool()), (201, Some(true)), "{first:?}");
    // The quotes belong to the header's syntax, not to the key.
    let again = send(&["a b"], "one").await;
    assert_eq!((again.status(), again.json()), (201, first.json()));
    let mixed = send(&["a b"], "two").await;
    assert_eq!((mixed.status(), mixed.json()["code"].as_str()), (422, Some("IDEMPOTENCY_KEY_REUSED")), "{mixed:?}");
    assert_eq!(send(&["a", "b"], "one").await.status(), 400, "two keys");
    assert_eq!(admin.daemon.deployments("f").await.len(), 1);
    // Keys of different clients are independent.
    let (version, idempotency_key) = (Some("v1".into()), Some("a b".into()));
    let other = DeployRequest { function_id: "f".into(), version, idempotency_key, ..DeployRequest::default() };
    assert_eq!(admin.daemon.call(&other).await.unwrap().version, "v1");
    admin.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_may_be_a_form() {
    let admin = Admin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(folder.path().join("function")).unwrap();
    fs::write(path("function/bundle.js"), "import { word } from './word.js'; export default () => new Response(word);")
        .unwrap();
    fs::write(path("function/word.js"), "export const word = 'packed';").unwrap();
    let packed =
        std::process::Command::new("tar").args(["czf", &path("f.tar.gz"), "-C", &path("."), "function"]).status();
    assert!(packed.unwrap().success());
    let form = |parts: &[String]| {
        let parts: Vec<String> = parts.iter().flat_map(|it| ["-F".to_owned(), it.clone()]).collect();
        [vec!["-H".to_owned(), admin.header.clone()], parts].concat()
    };
    let send = async |parts: &[String]| {
        let arguments = form(parts);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        curl(&admin.daemon, &arguments, "/api/functions/deploy").await
    };
    let archive = format!("archive=@{}", path("f.tar.gz"));
    let first = send(&[
        "name=my-function".into(),
        archive.clone(),
        "description=by a form".into(),
        "tag=a".into(),
        "tag=b".into(),
    ])
    .await;
    assert_eq!((first.status(), first.json()["isNewFunction"].as_bool()), (201, Some(true)), "{first:?}");
    assert_eq!(curl(&admin.daemon, &[], "/functions/my-function").await.text(), "packed");
    let version = admin.daemon.versions("my-function").await.remove(0);
    assert_eq!((version.description.as_deref(), version.tags.join("").as_str()), (Some("by a form"), "ab"));
    fs::write(path("one.js"), "export default () => new Response('files');").unwrap();
    let files = format!("files=@{}", path("one.js"));
    let second = send(&["name=my-function".into(), files.clone(), "entry=one.js".into()]).await;
    assert_eq!((second.status(), second.json()["version"].as_u64()), (201, Some(2)), "{second:?}");
    assert_eq!(curl(&admin.daemon, &[], "/functions/my-function").await.text(), "files");
    let cases = [
        (vec!["name=f".to_owned(), archive.clone(), archive], "twice"),
        (vec!["name=f".to_owned(), files.clone(), files], "twice"),
        (vec!["name=f".to_owned(), "weight=much".into()], "whole number"),
        (vec!["name=f".to_owned(), "dry_run=perhaps".into()], "true"),
        (vec!["name=f".to_owned(), format!("archive=@{}", path("one.js"))], "archive"),
    ];
    for (parts, part) in cases {
        let shown = send(&parts).await;
        assert_eq!(shown.status(), 400, "{parts:?}: {shown:?}");
        assert!(shown.text().contains(part), "{part}: {}", shown.text());
    }
    // The function would be created by its first deployment, and is removed when that fails.
    let shown = curl(&admin.daemon, &[], "/functions/f").await;
    assert_eq!(shown.json()["code"], "FUNCTION_NOT_FOUND", "{shown:?}");
    admin.daemon.stop().await;
}

/// Invokes the function `shop`.
async fn shop(admin: &Admin) -> Value {
    curl(&admin.daemon, &[], "/functions/shop").await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_set_listed_and_deleted_as_other_systems_do() {
    let admin = Admin::start().await;
    let code = "export default () => Response.json([process.env.API_KEY ?? null, process.env.REGION ?? null]);";
    let body = json!({"name": "shop", "bundle": base64(code)});
    let deployed = admin.json("POST", "/api/functions/deploy", Some(body)).await;
    let path = format!("/api/functions/{}/env", deployed["id"].as_str().unwrap());
    let body = json!({"key": "API_KEY", "value": "secret-value", "is_secret": true});
    let set = admin.json("POST", &path, Some(body)).await;
    assert_eq!(json!([set["created"], set["workers"]["pending"]]), json!([["API_KEY"], 0]));
    admin.json("POST", "/api/env", Some(json!({"dotenv": "REGION=eu # for all\n"}))).await;
    assert_eq!(shop(&admin).await, json!(["secret-value", "eu"]));
    let listed = admin.json("GET", &format!("{path}?resolved"), None).await;
    let rows: Vec<_> = listed["variables"].as_array().unwrap().iter().collect();
    let told = |it: &Value| json!([it["key"], it["value"], it["is_secret"], it["generation"], it["actor"]]);
    assert_eq!(told(rows[0]), json!(["API_KEY", null, true, 1, "token:admin"]));
    assert_eq!(told(rows[1]), json!(["REGION", "eu", false, null, "token:admin"]));
    assert_eq!(admin.call("GET", &format!("{path}?reveal"), None).await.status(), 403);
    let generations = admin.json("GET", &format!("{path}/API_KEY/generations"), None).await;
    assert_eq!(generations["generations"][0]["generation"], 1);
    // A token that deploys one function cannot set variables of all functions, and cannot read the audit trail.
    let token = json!({"name": "ci", "scopes": ["deploy"]});
    let token = admin.json("POST", "/api/tokens", Some(token)).await["token"].as_str().unwrap().to_owned();
    let header = admin.header.clone();
    let ci = Admin { header: format!("Authorization: Bearer {token}"), ..admin };
    assert_eq!(ci.call("POST", &path, Some(json!({"key": "A", "value": "1"}))).await.status(), 200);
    assert_eq!(ci.call("POST", "/api/env", Some(json!({"key": "A", "value": "1"}))).await.status(), 403);
    assert_eq!(ci.call("GET", "/api/secrets/audit", None).await.status(), 403);
    let admin = Admin { header, ..ci };
    let rotated = admin.json("POST", "/api/secrets/rotate-master-key", None).await;
    assert_eq!(rotated["data_keys"], 1);
    let audit = admin.json("GET", "/api/secrets/audit", None).await;
    assert_eq!(audit["entries"][0]["action"], "rotate_master_key");
    assert!(!audit.to_string().contains("secret-value"));
    admin.json("DELETE", &format!("{path}/API_KEY"), None).await;
    assert_eq!(shop(&admin).await, json!([null, "eu"]));
    assert_eq!(admin.call("DELETE", &format!("{path}/API_KEY"), None).await.status(), 404);
    admin.json("DELETE", "/api/env/REGION", None).await;
    assert_eq!(shop(&admin).await, json!([null, null]));
}
