//! The whole life of a function, in both encodings.

use super::wire::*;
use crate::harness::{TestDaemon, until};
use serde_json::{Value, json};

/// A function as users of the earlier system write it: a default export, registered under the handler name `handler`.
const FIRST: &str = r#"export default async function handler(req) {
    const url = new URL(req.url);
    if (url.pathname === "/throw") throw new TypeError("asked for");
    console.log("called at", url.pathname);
    const headers = new Headers({ "x-code": "first", "x-method": req.method, "x-target": url.pathname + url.search });
    headers.set("x-many", req.headers.get("x-many") ?? "");
    headers.append("set-cookie", "a=1");
    headers.append("set-cookie", "b=2");
    return new Response(await req.arrayBuffer(), { status: 201, headers });
}"#;

const SECOND: &str = r#"export const handler = () => new Response("second");"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_function_lives_in_json() {
    whole_life(Language::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_lives_in_messagepack() {
    whole_life(Language::MessagePack).await;
}

async fn whole_life(language: Language) {
    let daemon = TestDaemon::start().await;
    let mut wire = Wire::connect(&daemon.socket());
    let mut call = |command, request: Value| wire.call(language, command, &request);

    let request = json!({ "name": "life", "runtime": "bun", "handler": "handler", "of": ["a later version"] });
    let registered = call(REGISTER_FUNCTION, request);
    let id = registered["function_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("func-"), "{registered}");
    assert_eq!(
        [&registered["handler"], &registered["runtime"], &registered["status"]],
        ["handler", "bun", "registered"]
    );

    let bundle = daemon.data_dir().join("bundle.js");
    std::fs::write(&bundle, FIRST).unwrap();
    let deployed = call(DEPLOY_FUNCTION, json!({ "function_id": id, "version": "v1", "bundle_path": bundle }));
    assert_eq!([&deployed["function_id"], &deployed["version"], &deployed["status"]], [id.as_str(), "v1", "deployed"]);
    assert!(deployed["deployment_id"].as_str().unwrap().starts_with("deploy-"), "{deployed}");

    let body = b"\x00\xff bytes \xc3\x28";
    let request = json!({
        "function_id": id, "method": "PUT", "path": "/a/b?c=d", "query": { "q": ["1 2", "&"], "r": "" },
        "headers": { "x-many": ["one", "two"], "content-type": "application/octet-stream" },
        "body": language.bytes(body), "timeout_ms": 20_000,
    });
    let answer = call(INVOKE, request);
    assert_eq!((&answer["success"], &answer["status"], &answer["version"]), (&json!(true), &json!(201), &json!("v1")));
    assert_eq!(language.unbytes(&answer["body"]), body);
    let headers = &answer["headers"];
    assert_eq!([&headers["x-code"], &headers["x-method"], &headers["x-many"]], ["first", "PUT", "one, two"]);
    assert_eq!(headers["x-target"], "/a/b?c=d&q=1%202&q=%26&r=");
    assert_eq!(headers["set-cookie"], json!(["a=1", "b=2"]));
    for time in ["execution_time_ms", "queue_ms", "start_ms"] {
        assert!(answer[time].as_f64().is_some_and(|it| it >= 0.0), "{answer}");
    }
    assert_eq!(answer["cold_start"], "none", "the worker that checked the bundle takes the first invocation");
    let execution = answer["execution_id"].as_str().unwrap().to_owned();

    let failed = call(INVOKE, json!({ "function_id": "life", "path": "/throw" }));
    assert_eq!((&failed["success"], &failed["code"]), (&json!(false), &json!("HANDLER_ERROR")));
    assert!(failed["error"].as_str().unwrap().contains("asked for"), "{failed}");

    let functions = call(LIST_FUNCTIONS, json!({}));
    assert_eq!(functions["functions"][0]["name"], "life");
    let function = call(GET_FUNCTION, json!({ "function_id": "life" }));
    assert_eq!((&function["settings"]["memory_mb"], &function["active_version"]), (&json!(256), &json!("v1")));
    assert_eq!((&function["aliases"][0]["name"], &function["aliases"][0]["version"]), (&json!("LIVE"), &json!("v1")));
    let function = call(UPDATE_FUNCTION, json!({ "function_id": id, "settings": { "queue_max": 7 } }));
    assert_eq!((&function["settings"]["queue_max"], &function["settings"]["memory_mb"]), (&json!(7), &json!(256)));

    let request = json!({ "function_id": "life", "bundle": language.bytes(SECOND.as_bytes()), "tags": ["inline"] });
    let deployed = call(DEPLOY_FUNCTION, request);
    assert_eq!((&deployed["version"], &deployed["number"]), (&json!("v2"), &json!(2)));
    assert_eq!(deployed["previous_version"], "v1");
    let answer = call(INVOKE, json!({ "function_id": id }));
    assert_eq!((language.unbytes(&answer["body"]), &answer["version"]), (b"second".to_vec(), &json!("v2")));
    for request in [json!({ "function_id": "life:v1" }), json!({ "function_id": id, "qualifier": "v1" })] {
        assert_eq!(call(INVOKE, request)["headers"]["x-code"], "first");
    }

    let versions = call(GET_FUNCTION_VERSIONS, json!({ "function_id": id }));
    let [newest, oldest] = &versions["versions"].as_array().unwrap()[..] else { panic!("{versions}") };
    assert_eq!(
        (&newest["version"], &newest["aliases"], &newest["tags"]),
        (&json!("v2"), &json!(["LIVE"]), &json!(["inline"]))
    );
    assert_eq!((&oldest["version"], &oldest["size"]), (&json!("v1"), &json!(FIRST.len())));
    assert!(std::path::Path::new(oldest["bundle_path"].as_str().unwrap()).is_file(), "{oldest}");

    let back = call(ROLLBACK, json!({ "function_id": id, "reason": "it was better" }));
    assert_eq!((&back["version"], &back["previous_version"]), (&json!("v1"), &json!("v2")));
    // Rollback by deployment: a known label without a bundle, and a number.
    assert_eq!(call(DEPLOY_FUNCTION, json!({ "function_id": id, "version": "v2" }))["version"], "v2");
    assert_eq!(call(ROLLBACK, json!({ "function_id": id, "version": 1 }))["version"], "v1");
    let deployments = call(GET_DEPLOYMENTS, json!({ "function_id": id }));
    let rows = deployments["deployments"].as_array().unwrap();
    let kinds: Vec<_> = rows.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["rollback", "deploy", "rollback", "deploy", "deploy"]);
    let active: Vec<_> = rows.iter().map(|row| row["is_active"].as_bool().unwrap()).collect();
    assert_eq!(active, [true, false, false, false, false]);
    assert_eq!(rows[2]["reason"], "it was better");

    let warmed = call(WARMUP_FUNCTION, json!({ "function_id": id, "count": 2 }));
    assert_eq!((&warmed["warm"], &warmed["failed"]), (&json!(2), &json!(0)));
    let status = call(STATUS, json!({}));
    assert_eq!(status["functions"], 1);

    until("the lines of the first invocation are kept", || {
        let request = json!({ "function_id": id, "execution_id": execution, "start_date": "1h", "limit": 10 });
        let found = wire.call(language, GET_LOGS, &request);
        let line = found["logs"].as_array().unwrap().iter().any(|line| line["message"] == "called at /a/b");
        async move { line.then_some(()) }
    })
    .await;
    let mut call = |command, request: Value| wire.call(language, command, &request);
    let metrics = call(GET_METRICS, json!({ "function_id": id, "period": "1h" }));
    assert_eq!((&metrics["invocations"], &metrics["errors"]), (&json!(5), &json!(1)), "{metrics}");

    let refused = wire.ask(language, DELETE_VERSION, &json!({ "function_id": id, "version": "v1" }));
    assert_eq!(refused.code(), "VERSION_IN_USE");
    let mut call = |command, request: Value| wire.call(language, command, &request);
    assert_eq!(call(DELETE_VERSION, json!({ "function_id": id, "version": "v2" }))["version"], "v2");
    assert_eq!(call(DELETE_FUNCTION, json!({ "function_id": id }))["status"], "deleted");
    for command in [INVOKE, GET_FUNCTION, GET_LOGS, GET_METRICS, GET_FUNCTION_VERSIONS, ROLLBACK, GET_DEPLOYMENTS] {
        assert_eq!(wire.ask(language, command, &json!({ "function_id": id })).code(), "FUNCTION_NOT_FOUND");
    }
    daemon.stop().await;
}

/// Every part of a streamed answer carries the request's id and has its encoding, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_comes_in_parts() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("stream").await.unwrap();
    for language in [Language::Json, Language::MessagePack] {
        let mut wire = Wire::connect(&daemon.socket());
        let request = json!({ "function_id": "stream", "path": "/?chunks=3&ms=1", "stream": true });
        wire.send(&frame(u64::MAX, INVOKE, &language.write(&request)));
        let head = wire.answer();
        let (spoken, value) = head.read();
        assert_eq!((head.id, head.status, spoken, &value["status"]), (u64::MAX, PARTIAL, language, &json!(200)));
        let mut body = Vec::new();
        let last = loop {
            let part = wire.answer();
            assert_eq!((part.id, part.read().0), (u64::MAX, language));
            if part.status != PARTIAL {
                break part;
            }
            body.extend(language.unbytes(&part.read().1["body"]));
        };
        assert_eq!(String::from_utf8(body).unwrap(), "chunk 1 of 3\nchunk 2 of 3\nchunk 3 of 3\n");
        let (_, value) = last.read();
        assert_eq!((last.status, &value["success"]), (SUCCESS, &json!(true)));
        assert_eq!(language.unbytes(&value["body"]), b"", "the body came in the parts");
    }
    daemon.stop().await;
}
