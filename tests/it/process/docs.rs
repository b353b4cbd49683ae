//! The sessions of the documentation, typed as they are printed.

use crate::harness::{DaemonProcess, until};
use std::{fs, path::Path};

/// The lines of all shell blocks of a document.
fn session(document: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let mut is_inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        match line {
            "```sh" => is_inside = true,
            "```" => is_inside = false,
            line if is_inside && !line.is_empty() => lines.push(line.to_owned()),
            _ => {}
        }
    }
    assert!(!lines.is_empty(), "{document} has no session");
    lines
}

/// Runs every line, which must succeed and print the comment behind it, if there is one. Returns the number of comments
/// compared.
async fn works_line_by_line(document: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve_in(folder.path()).await;
    command.env("LEVAIN_HTTP_ADDRESS", "127.0.0.1:0");
    let daemon = DaemonProcess::spawn(command, &folder.path().join("data")).await;
    let said = until("the daemon logs its address", || async {
        Some(daemon.stderr()).filter(|it| it.contains("\"http\":\""))
    })
    .await;
    let port = said.split("\"http\":\"127.0.0.1:").nth(1).and_then(|it| it.split('"').next()).expect("a port");
    let binaries = Path::new(env!("CARGO_BIN_EXE_levain")).parent().unwrap().display().to_string();
    let mut told = 0;
    for line in session(document) {
        let line = line.replace(":8080", &format!(":{port}"));
        let command = daemon.shell(&line, &binaries).await;
        let shown = DaemonProcess::output(command).await;
        assert_eq!(shown.code, Some(0), "{line}: {shown:?}");
        if let Some((_, expected)) = line.split_once(" # ").filter(|_| is_call(&line)) {
            assert_eq!(shown.stdout.trim_end(), expected.trim(), "{line}");
            told += 1;
        }
    }
    daemon.kill().await;
    told
}

fn is_call(line: &str) -> bool {
    line.starts_with("levain invoke") || line.starts_with("curl")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_http_works_line_by_line() {
    assert!(works_line_by_line("docs/http-api.md").await > 4, "the document shows the output of an invocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_building_works_line_by_line() {
    assert!(works_line_by_line("docs/functions.md").await > 0, "the document shows the output of an invocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_versions_works_line_by_line() {
    assert!(works_line_by_line("docs/versions.md").await > 5, "the document shows the output of an invocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_backups_works_line_by_line() {
    assert!(works_line_by_line("docs/backup.md").await > 0, "the document shows the output of an invocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_environments_works_line_by_line() {
    assert!(works_line_by_line("docs/environments.md").await > 10, "the document shows the output of an invocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_rollouts_works_line_by_line() {
    assert!(works_line_by_line("docs/rollouts.md").await > 0, "the document shows the output of an invocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_metrics_works_line_by_line() {
    assert_eq!(works_line_by_line("docs/metrics.md").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_variables_works_line_by_line() {
    assert!(works_line_by_line("docs/variables.md").await > 4, "the document shows the output of an invocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_secrets_works_line_by_line() {
    assert!(works_line_by_line("docs/secrets.md").await > 4, "the document shows the output of an invocation");
}
