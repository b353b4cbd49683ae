//! Commands from the guides of another platform, typed as its users know them.
//!
//! Only the parts that differ on each machine are filled in: the address, the token, the function's id. The guides
//! abbreviate their first command's URL as `...`.

use super::daemon;
use crate::{
    archives::build::{Entry, zip_of},
    harness::TestDaemon,
};
use levain::model::Timestamp;
use serde_json::{Value, json};
use std::{fs, path::Path};
use tempfile::TempDir;
use tokio::process::Command;

/// A shell in a folder with archives, a token, and the id of a function.
struct Shell {
    daemon: TestDaemon,
    token: String,
    id: String,
    folder: TempDir,
}

impl Shell {
    async fn start() -> Self {
        let daemon = daemon().await;
        let token = fs::read_to_string(daemon.data_dir().join("admin.token")).unwrap().trim().to_owned();
        Self { daemon, token, id: String::new(), folder: tempfile::tempdir().unwrap() }
    }

    /// Packs a function that answers with a word and its request's body.
    async fn pack(&self, archive: &str, word: &str) {
        let code = format!("export default async (req) => new Response({word:?} + (await req.text()));");
        let path = self.folder.path().join(archive);
        if Path::new(archive).extension().is_some_and(|it| it == "zip") {
            return fs::write(path, zip_of(&[Entry::deflated(b"index.ts", code.as_bytes())])).unwrap();
        }
        fs::write(self.folder.path().join("index.ts"), code).unwrap();
        self.type_text(&format!("tar -czf {archive} index.ts")).await;
    }

    /// Runs a command, and returns its output.
    async fn type_text(&self, line: &str) -> String {
        let line = line
            .replace("http://localhost:8080", &format!("http://{}", self.daemon.http()))
            .replace("YOUR_TOKEN", &self.token)
            .replace("abc-123", &self.id);
        let mut command = Command::new("bash");
        command.args(["-euc", &line]).current_dir(self.folder.path()).env("no_proxy", "*").kill_on_drop(true);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn type_json(&self, line: &str) -> Value {
        let text = self.type_text(line).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    }

    /// Runs an abbreviated command.
    async fn type_short(&self, line: &str) -> Value {
        let line = line.replace("...", "http://localhost:8080/api/functions");
        self.type_json(&format!("{line} -H \"Authorization: Bearer YOUR_TOKEN\"")).await
    }
}

/// Checks that an answer has all of these fields, with these values.
#[track_caller]
fn has(answer: &Value, fields: Value) {
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&answer[name], value, "{name}: {answer}");
    }
}

#[track_caller]
fn is_time(value: &Value) {
    assert!(serde_json::from_value::<Timestamp>(value.clone()).is_ok(), "{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_versions_works_as_it_is_written() {
    let mut shell = Shell::start().await;
    shell.pack("function.tar.gz", "one ").await;
    shell.pack("function-v2.tar.gz", "two ").await;
    shell.pack("new-version.tar.gz", "three ").await;

    let first = shell
        .type_json(
            r#"curl -X POST http://localhost:8080/api/functions/deploy \
  -H "Authorization: Bearer YOUR_TOKEN" \
  -F "name=my-function" \
  -F "archive=@function.tar.gz""#,
        )
        .await;
    has(&first, json!({"name": "my-function", "version": 1, "status": "active", "isNewFunction": true}));
    shell.id = first["id"].as_str().expect("an id").to_owned();

    let second = shell
        .type_json(
            r#"curl -X POST http://localhost:8080/api/functions/deploy \
  -H "Authorization: Bearer YOUR_TOKEN" \
  -F "name=my-function" \
  -F "archive=@function-v2.tar.gz""#,
        )
        .await;
    let expected = json!({"id": shell.id, "name": "my-function", "version": 2, "status": "active",
        "isNewFunction": false});
    has(&second, expected);

    let history = shell
        .type_json(
            r#"curl http://localhost:8080/api/functions/abc-123/deployments \
  -H "Authorization: Bearer YOUR_TOKEN""#,
        )
        .await;
    let rows = history["deployments"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{history}");
    has(&rows[0], json!({"version": 2, "isActive": true}));
    has(&rows[1], json!({"version": 1, "isActive": false}));
    rows.iter().for_each(|row| is_time(&row["deployedAt"]));

    let back = shell
        .type_json(
            r#"curl -X POST http://localhost:8080/api/functions/abc-123/rollback \
  -H "Authorization: Bearer YOUR_TOKEN" \
  -H "Content-Type: application/json" \
  -d '{"version": 1}'"#,
        )
        .await;
    has(&back, json!({"message": "Successfully rolled back to version 1", "version": 1}));
    assert_eq!(shell.type_text("curl http://localhost:8080/functions/my-function").await, "one ");

    // A safe deployment: deploy, try, go back.
    let third =
        shell.type_short(r#"curl -X POST .../deploy -F "archive=@new-version.tar.gz" -F name=my-function"#).await;
    has(&third, json!({"version": 3, "isNewFunction": false}));
    let answer = shell.type_short(r#"curl -X POST .../abc-123/invoke -d '{"body": {"test": true}}'"#).await;
    has(&answer, json!({"status": 200, "body": "three {\"test\":true}"}));
    let back = shell.type_short(r#"curl -X POST .../abc-123/rollback -d '{"version": 1}'"#).await;
    has(&back, json!({"version": 1}));
    let history = shell.type_short("curl .../abc-123/deployments").await;
    let active: Vec<_> =
        history["deployments"].as_array().unwrap().iter().filter(|it| it["isActive"] == true).collect();
    assert_eq!((active.len(), &active[0]["version"]), (1, &json!(1)), "{history}");

    // An existing function has versions once it is deployed again.
    shell.pack("existing-function.tar.gz", "old ").await;
    let existing = shell
        .type_short(r#"curl -X POST .../deploy -F "name=existing-function" -F "archive=@existing-function.tar.gz""#)
        .await;
    has(&existing, json!({"version": 1, "isNewFunction": true}));
    shell.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_variables_works_as_it_is_written() {
    let mut shell = Shell::start().await;
    let code = "export default () => new Response(process.env.API_KEY ?? 'none');";
    fs::write(shell.folder.path().join("index.ts"), code).unwrap();
    shell.type_text("tar -czf function.tar.gz index.ts").await;
    let made = shell.type_short(r#"curl -X POST .../deploy -F "name=my-function" -F "archive=@function.tar.gz""#).await;
    shell.id = made["id"].as_str().expect("an id").to_owned();
    shell
        .type_short(
            r#"curl -X POST .../abc-123/env -d '{
  "key": "API_KEY",
  "value": "secret-value",
  "is_secret": true
}'"#,
        )
        .await;
    assert_eq!(shell.type_text("curl http://localhost:8080/functions/my-function").await, "secret-value");
    let listed = shell.type_short("curl .../abc-123/env").await;
    has(&listed["variables"][0], json!({"key": "API_KEY", "is_secret": true}));
    assert!(!listed.to_string().contains("secret-value"), "{listed}");
    shell.type_short("curl -X DELETE .../abc-123/env/API_KEY").await;
    assert_eq!(shell.type_text("curl http://localhost:8080/functions/my-function").await, "none");
    shell.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zip_and_tgz_are_uploaded_and_deployed_to_a_function_by_its_id() {
    let mut shell = Shell::start().await;
    shell.pack("function.zip", "zipped").await;
    shell.pack("function.tgz", "packed").await;
    let first = shell
        .type_json(
            r#"curl -X POST http://localhost:8080/api/functions/deploy -H "Authorization: Bearer YOUR_TOKEN" \
  -F "name=my-function" -F "archive=@function.zip""#,
        )
        .await;
    shell.id = first["id"].as_str().expect("an id").to_owned();
    assert_eq!(shell.type_text("curl http://localhost:8080/functions/my-function").await, "zipped");
    let second = shell.type_short(r#"curl -X POST .../abc-123/deploy -F "archive=@function.tgz""#).await;
    has(&second, json!({"version": 2}));
    assert_eq!(shell.type_text("curl http://localhost:8080/functions/my-function").await, "packed");
    shell.daemon.stop().await;
}
