//! Accepted fields of a request, and the errors about others.

use super::{Admin, base64, code};
use crate::{
    harness::until,
    http::{Shown, curl, daemon_with},
};
use serde_json::{Value, json};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_has_no_unknown_fields() {
    let admin = Admin::start().await;
    let said = |shown: &Shown| {
        assert_eq!((shown.status(), shown.json()["code"].as_str()), (400, Some("INVALID_REQUEST")), "{shown:?}");
        shown.json()["error"].as_str().unwrap().to_owned()
    };
    for word in ["one", "two"] {
        admin.json("POST", "/api/functions/deploy", Some(json!({"name": "f", "bundle": code(word)}))).await;
    }
    let variable = json!({"variables": [{"key": "A", "value": "aaaaaa", "isSecret": true}]});
    let limits = json!({"policy": {"errorRateMax": 5}});
    let cases = [
        ("POST", "/api/functions/f/deploy", json!({"bundle": code("x"), "dryRun": true}), "`dryRun`", "`dry_run`"),
        ("POST", "/api/functions/f/rollback", json!({"dryRun": true, "version": 1}), "`dryRun`", "`dry_run`"),
        ("POST", "/api/functions/f/rollback?dryRun=true", json!({"version": 1}), "`dryRun`", "`dry_run`"),
        ("DELETE", "/api/previews/p?functionId=f", Value::Null, "`functionId`", "known fields are: "),
        ("POST", "/api/functions/f/env", variable, "`variables[0].isSecret`", "`is_secret`"),
        ("PUT", "/api/functions/f/policy", limits, "`policy.errorRateMax`", "`error_rate_max`"),
        ("PATCH", "/api/functions/f", json!({"settings": {"memoryMb": 64}}), "`settings.memoryMb`", "`memory_mb`"),
        ("POST", "/api/functions/f/invoke", json!({"boddy": 1}), "`boddy`", "`body`"),
    ];
    for (method, path, body, field, near) in cases {
        let error = said(&admin.call(method, path, Some(body).filter(|it| !it.is_null())).await);
        assert!(error.contains(field) && error.contains(near), "{method} {path}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.js"), "export default () => new Response('form')").unwrap();
    let bundle = format!("bundle=@{}", folder.path().join("x.js").display());
    for field in ["environment=staging", "dryRun=true"] {
        let arguments = ["-H", &admin.header, "-F", "name=f", "-F", &bundle, "-F", field];
        let error = said(&curl(&admin.daemon, &arguments, "/api/functions/deploy").await);
        assert!(error.contains(&format!("`{}`", field.split('=').next().unwrap())), "{error}");
    }
    // The function in the path must not be contradicted by a field; the field may name it by its other identifier.
    let id = admin.json("GET", "/api/functions/f", None).await["function_id"].as_str().unwrap().to_owned();
    let path = format!("/api/functions/{id}/deploy");
    let send = async |name: &str| {
        let name = format!("name={name}");
        curl(&admin.daemon, &["-H", &admin.header, "-F", &name, "-F", &bundle, "-F", "dry_run=true"], &path).await
    };
    let error = said(&send("other").await);
    assert!(error.contains("`other`") && error.contains(&id), "{error}");
    for name in ["f", &id] {
        assert_eq!(send(name).await.json()["status"], "checked", "{name}");
    }
    let missing = said(&admin.call("POST", "/api/functions/deploy", Some(json!({"bundle": code("x")}))).await);
    assert_eq!(missing, "the field `name` is missing");
    // The refused requests have changed nothing, and commands that only read ignore unknown fields.
    let versions = curl(&admin.daemon, &["-H", &admin.header], "/api/functions/f/versions?later=1").await.json();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2, "{versions}");
    assert_eq!(curl(&admin.daemon, &[], "/functions/f").await.text(), "two");
    assert_eq!(admin.json("GET", "/api/env", None).await["variables"], json!([]));
    admin.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_read_as_its_header_says() {
    let admin = Admin::start().await;
    let send = async |content_type: &str, parts: &[(&str, &str)]| {
        let parts =
            parts.iter().map(|(name, text)| format!("--x\r\nContent-Disposition: form-data; {name}\r\n\r\n{text}\r\n"));
        let form = parts.collect::<String>() + "--x--\r\n";
        let content_type = format!("Content-Type: {content_type}");
        let arguments = ["-H", &admin.header, "-H", &content_type, "--data-binary", &form];
        curl(&admin.daemon, &arguments, "/api/functions/deploy").await
    };
    let typed = "const word: string = 'typed'; export default () => new Response(word)";
    let (name, follow) = (("name=\"name\"", "f"), ("name=\"follow\"", "true"));
    // The media type is case-insensitive, and a file's extension decides its language.
    let shown =
        send("Multipart/Form-Data; Boundary=x", &[name, follow, ("name=bundle; filename=hello.ts", typed)]).await;
    assert_eq!(shown.status(), 201, "{}", shown.text());
    assert_eq!(curl(&admin.daemon, &[], "/functions/f").await.text(), "typed");
    let broken =
        send("multipart/form-data; boundary=x", &[name, ("name=bundle; filename=\"../a b.ts\"", "let a: =")]).await;
    assert!(broken.json()["error"].as_str().unwrap().contains("bundle.ts"), "{}", broken.text());
    // A file name that is not plain ASCII (RFC 8187).
    let files = [
        name,
        ("name=\"files\"; filename*=UTF-8''h%C3%A4llo.ts", "export const word: string = 'far'"),
        (
            "name=\"files\"; filename=\"index.ts\"",
            "import { word } from './hällo.ts'; export default () => new Response(word)",
        ),
        ("name=\"build\"", "false"),
    ];
    let shown = send("multipart/form-data; boundary=x", &files).await;
    assert_eq!(shown.status(), 201, "{}", shown.text());
    assert_eq!(curl(&admin.daemon, &[], "/functions/f").await.text(), "far");
    let bad = send("multipart/form-data; boundary=x", &[name, ("name=\"follow\"", "1")]).await;
    assert_eq!(bad.json()["error"], "follow is `true` or `false`, not `1`");
    let other = admin.call("POST", "/api/functions", Some(json!({"name": "a b"}))).await;
    assert!(other.json()["error"].as_str().unwrap().contains("letters, digits"), "{}", other.text());
    admin.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_says_what_to_do() {
    let admin = Admin::start().await;
    let error = async |method: &str, path: &str, body: Value| {
        let shown = admin.call(method, path, Some(body)).await;
        assert_eq!(shown.status(), 400, "{shown:?}");
        shown.json()["error"].as_str().unwrap().to_owned()
    };
    let named = error("POST", "/api/functions/deploy", json!({"name": "ts/b", "bundle": code("x")})).await;
    assert!(named.starts_with("function name `ts/b` is not valid: use 1 to 64 of letters"), "{named}");
    admin.json("POST", "/api/functions/deploy", Some(json!({"name": "f", "bundle": code("x")}))).await;
    for version in [json!(1.5), json!(-1), json!(true)] {
        let said = error("POST", "/api/functions/f/rollback", json!({ "version": version })).await;
        assert!(said.contains("a version's number, its label, or an alias"), "{said}");
    }
    // A function's caller has no access to the data directory, so the message does not point there.
    admin.json("PATCH", "/api/functions/f", Some(json!({"settings": {"auth": "token"}}))).await;
    let outside = curl(&admin.daemon, &[], "/functions/f").await;
    let says = |shown: &Shown| shown.json()["error"].as_str().unwrap().to_owned();
    assert!(outside.status() == 401 && !says(&outside).contains("admin.token"), "{outside:?}");
    let inside = curl(&admin.daemon, &[], "/api/status").await;
    assert!(says(&inside).contains("admin.token"), "{inside:?}");
    admin.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_stream_broke_off_is_in_the_log() {
    let admin = Admin::of(daemon_with(|config| config.http.stream_seconds_max = 1).await).await;
    let source = "const endless = (c) => Bun.sleep(50).then(() => c.enqueue('x'));
        const bad = async (c) => { c.enqueue('x'); await Bun.sleep(20); throw new RangeError('in the middle'); };
        export default (req) => new Response(new ReadableStream({ pull: req.url.endsWith('bad') ? bad : endless }));";
    let body = json!({"name": "f", "bundle": base64(source)});
    admin.json("POST", "/api/functions/deploy", Some(body)).await;
    for (path, words) in [("bad", ["in the middle", "bundle.js"]), ("endless", ["http.stream_seconds_max", " 1 s "])] {
        let answer = curl(&admin.daemon, &[], &format!("/functions/f/{path}")).await;
        let path = format!("/api/functions/f/logs?execution_id={}", answer.header("x-levain-invocation-id"));
        until("the log says why", async || {
            let log = admin.json("GET", &path, None).await.to_string();
            words.iter().all(|it| log.contains(it)).then_some(())
        })
        .await;
    }
    admin.daemon.stop().await;
}
