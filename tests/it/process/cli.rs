//! The command line, as used by people and scripts.

use crate::harness::{DaemonProcess, Gate, Output, samples, until, workers_of};
use serde_json::json;
use std::{fs, process::Stdio};

async fn without_daemon(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::command(folder.path()).await;
    command.args(arguments);
    DaemonProcess::output(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn help_and_completions_need_no_daemon() {
    let help = without_daemon(&["--help"]).await.ok();
    for word in ["serve", "deploy", "rollback", "Exit codes", "no daemon answers"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(without_daemon(&["--version"]).await.ok().starts_with("levain "));
    assert!(without_daemon(&["deploy", "--help"]).await.ok().contains("Examples"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(without_daemon(&["completions", shell]).await.ok().contains("rollback"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_it_says_how_to_start_one() {
    for arguments in [&["status"][..], &["list"], &["invoke", "hello"], &["logs", "hello"]] {
        let output = without_daemon(arguments).await;
        assert_eq!((output.code, output.stdout.as_str()), (Some(10), ""), "{output:?}");
        assert!(output.stderr.contains("levain serve") && output.stderr.lines().count() == 1, "{output:?}");
    }
    let output = without_daemon(&["--json", "status"]).await;
    assert_eq!(output.code, Some(10));
    assert!(output.json()["error"].as_str().unwrap().contains("levain serve"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_exit_code_2() {
    for arguments in [&["bogus"][..], &[], &["deploy"], &["invoke", "a", "--header", "no colon"], &["rollback"]] {
        let output = without_daemon(arguments).await;
        assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{output:?}");
        assert!(output.stderr.contains("Usage") || output.stderr.contains("error"), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_goes_round_from_deploy_to_rollback() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let file = data.path().join("greet.ts");
    fs::write(&file, "export default async (req: Request) => { console.log('greeting'); return new Response('one ' + await req.text(), { headers: { 'x-a': 'b' } }); };").unwrap();
    let path = file.to_str().unwrap();
    let deployed = daemon.cli(&["deploy", "greet", path]).await.ok();
    assert!(deployed.contains("greet: v1 is live\n"), "{deployed}");
    assert_eq!(daemon.cli(&["invoke", "greet", "--data", "{\"a\": 1}"]).await.ok(), "one {\"a\": 1}");
    let included = daemon.cli(&["invoke", "greet", "--data", "x", "-i"]).await;
    assert!(included.stdout.starts_with("HTTP 200\n") && included.stdout.contains("x-a: b\n"), "{included:?}");
    assert!(included.stdout.ends_with("\n\none x") && included.stderr.contains("v1"), "{included:?}");
    until("the lines are kept", || async {
        let output = daemon.cli(&["logs", "greet"]).await.ok();
        (output.matches("greeting").count() == 2).then_some(())
    })
    .await;

    fs::write(&file, "export default () => new Response('two');").unwrap();
    let deployed = daemon.cli(&["deploy", "greet", path, "--version", "second", "--tag", "t"]).await.ok();
    assert!(deployed.contains("greet: second is live (was v1)\n   version 2, "), "{deployed}");
    assert_eq!(daemon.cli(&["invoke", "greet"]).await.ok(), "two");
    assert_eq!(daemon.cli(&["invoke", "greet:v1"]).await.ok(), "one ");
    let back = daemon.cli(&["rollback", "greet"]).await.ok();
    assert!(back.contains("greet: v1 is live (was second)\n"), "{back}");
    assert_eq!(daemon.cli(&["invoke", "greet"]).await.ok(), "one ");
    let versions = daemon.cli(&["versions", "greet"]).await.ok();
    assert!(versions.contains("second") && versions.contains("v1") && versions.contains("LIVE"), "{versions}");
    let deployments = daemon.cli(&["deployments", "greet"]).await.ok();
    assert!(deployments.contains("rollback"), "{deployments}");
    for arguments in [&["list"][..], &["show", "greet"], &["metrics", "greet"], &["status"]] {
        let text = daemon.cli(arguments).await.ok();
        assert!(text.contains("greet"), "{arguments:?}: {text}");
    }
    let unsure = daemon.cli(&["delete", "greet"]).await;
    assert!(unsure.code == Some(2) && unsure.stderr.contains("--yes"), "{unsure:?}");
    daemon.cli(&["delete", "greet", "--yes"]).await.ok();
    assert_eq!(daemon.cli(&["show", "greet"]).await.code, Some(3));
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_approved_or_rejected_by_id_ending_or_function() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let file = data.path().join("greet.ts");
    let path = file.to_str().unwrap();
    let write = |word: &str| fs::write(&file, format!("export default () => new Response({word:?});")).unwrap();
    write("one");
    let plan = daemon.cli(&["deploy", "greet", path, "--dry-run"]).await.ok();
    let lines: Vec<_> = plan.lines().collect();
    assert!(
        lines[1] == "   the function `greet` is created" && lines[2].contains("version 1 is published as v1"),
        "{plan}"
    );
    assert_eq!(daemon.cli(&["show", "greet"]).await.code, Some(3), "the dry run creates no function");
    daemon.cli(&["deploy", "greet", path]).await.ok();
    assert!(daemon.cli(&["environments", "protect", "production"]).await.ok().contains("production is protected"));
    assert!(daemon.cli(&["environments", "list"]).await.ok().contains("production  yes"));
    assert_eq!(daemon.cli(&["approvals"]).await.ok().trim(), "nothing waits for approval");

    let mut waits = Vec::new();
    for word in ["two", "three", "four", "five"] {
        write(word);
        let json = daemon.cli(&["--json", "deploy", "greet", path, "--reason", word]).await;
        assert_eq!((json.code, json.json()["status"].as_str()), (Some(0), Some("pending_approval")), "{json:?}");
        waits.push(json.json()["deployment_id"].as_str().unwrap().to_owned());
    }
    let again = daemon.cli(&["deploy", "greet", path]).await.ok();
    assert!(again.contains("waits for approval") && again.contains(&format!("levain approve {}", waits[3])), "{again}");
    let listed = daemon.cli(&["approvals", "greet"]).await.ok();
    assert!(waits.iter().all(|it| listed.contains(it)) && listed.contains("v1 → v2"), "{listed}");
    let unclear = daemon.cli(&["approve", "greet"]).await;
    assert!(unclear.code == Some(4) && unclear.stderr.contains(&waits[0]), "{unclear:?}");

    let rejected = daemon.cli(&["reject", &waits[0], "--reason", "not today"]).await.ok();
    assert!(rejected.contains("greet: v2 is rejected; LIVE stays where it is"), "{rejected}");
    let approved = daemon.cli(&["approve", &waits[1]]).await.ok();
    assert!(approved.contains("greet: v3 is live (was v1)\n"), "{approved}");
    let ending = &waits[2][waits[2].len() - 12..];
    daemon.cli(&["reject", ending, "--reason", "superseded"]).await.ok();
    let approved = daemon.cli(&["approve", "greet", "--reason", "reviewed"]).await.ok();
    assert!(approved.contains("greet: v5 is live (was v3)\n"), "{approved}");
    assert_eq!(daemon.cli(&["invoke", "greet"]).await.ok(), "five");
    let deployments = daemon.cli(&["deployments", "greet"]).await.ok();
    assert!(deployments.contains("five; approved by uid:") && deployments.contains(": reviewed"), "{deployments}");
    assert!(deployments.contains("two; rejected by uid:") && deployments.contains(": not today"), "{deployments}");
    let twice = daemon.cli(&["approve", &waits[0]]).await;
    assert!(twice.code == Some(4) && twice.stderr.contains("not today"), "{twice:?}");
    for arguments in [&["approve", "nobody"][..], &["reject", "deploy-0190c1d2", "--reason", "x"]] {
        assert_eq!(daemon.cli(arguments).await.code, Some(3));
    }
    let back = daemon.cli(&["rollback", "greet", "--dry-run"]).await.ok();
    assert!(back.contains("LIVE moves from v5 to v3 in production"), "{back}");
    let back = daemon.cli(&["alias", "set", "greet", "LIVE", "v2", "--dry-run"]).await.ok();
    assert!(back.contains("v2 is new to LIVE there: it waits for approval"), "{back}");
    assert_eq!(daemon.cli(&["invoke", "greet"]).await.ok(), "five");
    let share = daemon.cli(&["deploy", "greet", "--version", "v3", "--weight", "10"]).await.ok();
    assert!(share.contains("LIVE sends 10 % of its calls to v3, and the rest to v5"), "{share}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_records_the_commit_of_its_checkout() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let checkout = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
        let mut git = std::process::Command::new("git");
        let output = git.args(identity).arg("-C").arg(checkout.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let file = checkout.path().join("greet.js");
    let path = file.to_str().unwrap();
    let write = |word: &str| fs::write(&file, format!("export default () => new Response({word:?});")).unwrap();
    write("one");
    git(&["init", "--quiet", "--initial-branch", "trunk"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "first"]);
    let commit = git(&["rev-parse", "HEAD"]);
    daemon.cli(&["deploy", "greet", path]).await.ok();
    write("two");
    daemon.cli(&["deploy", "greet", path]).await.ok();
    let versions = daemon.cli(&["--json", "versions", "greet"]).await.json()["versions"].clone();
    assert_eq!((&versions[1]["git_commit"], &versions[1]["git_branch"]), (&json!(commit), &json!("trunk")));
    assert_eq!(versions[0]["git_commit"], json!(format!("{commit}-dirty")));
    let listed = daemon.cli(&["versions", "greet"]).await.ok();
    assert!(listed.contains(&format!("{}-dirty trunk", &commit[..9])), "{listed}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_go_round_from_staging_to_rollback() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let file = data.path().join("greet.ts");
    let path = file.to_str().unwrap();
    let write = |word: &str| fs::write(&file, format!("export default () => new Response({word:?});")).unwrap();
    write("one");
    daemon.cli(&["deploy", "greet", path]).await.ok();
    write("two");
    let staged = daemon.cli(&["deploy", "greet", path, "--alias", "STAGING"]).await.ok();
    assert!(staged.contains("greet: STAGING points at v2\n"), "{staged}");
    assert_eq!(daemon.cli(&["invoke", "greet"]).await.ok(), "one");
    assert_eq!(daemon.cli(&["invoke", "greet:STAGING"]).await.ok(), "two");
    daemon.cli(&["warmup", "greet:STAGING", "1"]).await.ok();
    daemon.cli(&["logs", "greet:STAGING"]).await.ok();
    daemon.cli(&["alias", "set", "greet", "LIVE", "v2", "--reason", "it is good"]).await.ok();
    assert_eq!(daemon.cli(&["invoke", "greet"]).await.ok(), "two");
    let aliases = daemon.cli(&["alias", "list", "greet"]).await.ok();
    assert!(["LIVE", "ROLLBACK", "STAGING", "staging"].iter().all(|it| aliases.contains(it)), "{aliases}");
    let back = daemon.cli(&["rollback", "greet", "--alias", "STAGING", "--to", "1"]).await.ok();
    assert!(back.contains("STAGING points at v1 (was v2)"), "{back}");
    let deployments = daemon.cli(&["deployments", "greet", "--alias", "LIVE"]).await.ok();
    assert!(deployments.contains("v1 → v2") && deployments.contains("it is good"), "{deployments}");
    assert!(deployments.contains("promote") && !deployments.contains("STAGING"), "{deployments}");
    fs::write(&file, "throw new Error('at import'); export default () => {};").unwrap();
    assert_eq!(daemon.cli(&["deploy", "greet", path]).await.code, Some(9));
    let failed = daemon.cli(&["deployments", "greet", "--failed"]).await.ok();
    assert!(failed.contains("v3 of LIVE failed") && failed.contains("at import"), "{failed}");
    assert!(!failed.contains("rollback"), "{failed}");
    let unsure = daemon.cli(&["alias", "delete", "greet", "STAGING"]).await;
    assert!(unsure.code == Some(2) && unsure.stderr.contains("--yes"), "{unsure:?}");
    daemon.cli(&["alias", "delete", "greet", "STAGING", "--yes"]).await.ok();
    let gone = daemon.cli(&["invoke", "greet:STAGING"]).await;
    assert!(gone.code == Some(3) && gone.stderr.contains("aliases: LIVE, ROLLBACK"), "{gone:?}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_compared_and_cleaned_up() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let file = data.path().join("greet.ts");
    for word in ["one", "two", "three", "four"] {
        fs::write(&file, format!("export default () =>\n  new Response({word:?});\n")).unwrap();
        daemon.cli(&["deploy", "greet", file.to_str().unwrap()]).await.ok();
    }
    let differs = daemon.cli(&["compare", "greet", "1", "LIVE"]).await.ok();
    assert!(differs.starts_with("greet v1 → v4\n") && !differs.contains('\u{1b}'), "{differs}");
    let lines = "@@ -1,2 +1,2 @@\n export default () =>\n-  new Response(\"one\");\n+  new Response(\"four\");\n";
    assert!(differs.ends_with(lines), "{differs}");
    let stat = daemon.cli(&["compare", "greet", "v1", "v2", "--stat"]).await.ok();
    assert!(stat.contains("+1 -1") && !stat.contains("@@"), "{stat}");
    let json = daemon.cli(&["compare", "greet", "v1", "v1", "--json"]).await.json();
    assert_eq!((&json["same_code"], &json["files"]), (&json!(true), &json!([])));
    assert_eq!(daemon.cli(&["compare", "greet", "v1", "v9"]).await.code, Some(3));

    daemon.cli(&["versions", "delete", "greet", "2", "--yes"]).await.ok();
    let would = daemon.cli(&["cleanup", "greet", "--keep", "1", "--dry-run"]).await.ok();
    assert!(would.contains("would go") && would.contains("alias ROLLBACK"), "{would}");
    let unsure = daemon.cli(&["cleanup", "greet", "--keep", "1"]).await;
    assert!(unsure.code == Some(2) && unsure.stderr.contains("--yes"), "{unsure:?}");
    assert_eq!(daemon.cli(&["cleanup", "greet", "--keep", "0", "--yes"]).await.code, Some(2));
    let cleaned = daemon.cli(&["cleanup", "--keep", "1", "--yes", "--json"]).await.json();
    assert_eq!(cleaned["functions"][0]["removed"][0]["version"], "v1");
    assert!(daemon.cli(&["cleanup", "--yes"]).await.ok().contains("nothing to remove"));
    assert!(daemon.cli(&["show", "greet"]).await.ok().contains("2, "), "its versions and their size");
    let status = daemon.cli(&["status"]).await.ok();
    assert!(status.contains("bundles, ") && status.contains(" free"), "{status}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_what_went_wrong() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    for sample in ["faulty/throws", "faulty/exits", "sleep"] {
        let name = sample.rsplit('/').next().unwrap();
        daemon.cli(&["deploy", name, samples::folder(sample).to_str().unwrap()]).await.ok();
    }
    let [syntax, import] =
        ["faulty/syntax-error", "faulty/throws-at-import"].map(|it| samples::folder(it).display().to_string());
    let cases: [(&[&str], i32, &str); 9] = [
        (&["invoke", "nobody"], 3, "FUNCTION_NOT_FOUND"),
        (&["invoke", "sleep:v9"], 3, "NOT_FOUND"),
        (&["rollback", "sleep"], 3, "VERSION_NOT_FOUND"),
        (&["versions", "delete", "sleep", "v1", "--yes"], 4, "VERSION_IN_USE"),
        (&["invoke", "throws"], 5, "HANDLER_ERROR"),
        (&["invoke", "exits"], 5, "WORKER_CRASHED"),
        (&["invoke", "sleep", "--query", "ms=60000", "--timeout-ms", "50"], 6, "TIMEOUT"),
        (&["deploy", "broken", &syntax], 9, "BUNDLE_INVALID"),
        (&["deploy", "broken", &import], 9, "BUNDLE_LOAD_ERROR"),
    ];
    for (arguments, code, name) in cases {
        let output = daemon.cli(arguments).await;
        assert_eq!((output.code, output.stdout.as_str()), (Some(code), ""), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(name), "{arguments:?}: {output:?}");
        let output = daemon.cli(&[&["--json"], arguments].concat()).await;
        assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
        assert!(output.json()["code"].as_str().unwrap().ends_with(name), "{arguments:?}: {output:?}");
    }
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_json_for_programs() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let hello = samples::folder("hello").display().to_string();
    let cases: [(&[&str], &str); 14] = [
        (&["register", "other"], "/function_id"),
        (&["deploy", "hello", &hello], "/version"),
        (&["invoke", "hello"], "/execution_id"),
        (&["list"], "/functions/1/name"),
        (&["show", "hello"], "/settings/memory_mb"),
        (&["config-of", "hello", "queue_max=5"], "/settings/queue_max"),
        (&["versions", "hello"], "/versions/0/digest"),
        (&["deployments", "hello"], "/deployments/0/actor"),
        (&["alias", "set", "hello", "STAGING", "v1"], "/environment"),
        (&["alias", "list", "hello"], "/aliases/0/number"),
        (&["metrics", "hello"], "/versions/0/p99_ms"),
        (&["logs", "hello"], "/total"),
        (&["warmup", "hello", "2"], "/warm"),
        (&["status"], "/pid"),
    ];
    for (arguments, pointer) in cases {
        for arguments in [[&["--json"], arguments].concat(), [arguments, &["--json"]].concat()] {
            let output = daemon.cli(&arguments).await;
            assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{arguments:?}: {output:?}");
            assert!(output.json().pointer(pointer).is_some(), "{arguments:?}: {output:?}");
        }
    }
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_checked_and_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "[functions]\nqueue_max = 7\n").unwrap();
    let run = async |arguments: &[&str]| {
        let mut command = DaemonProcess::command(folder.path()).await;
        command.args(arguments).env("LEVAIN_FUNCTIONS_MEMORY_MB", "64");
        DaemonProcess::output(command).await
    };
    assert!(run(&["config", "check"]).await.ok().starts_with("ok"));
    assert_eq!(run(&["config", "check", "--json"]).await.json()["ok"], json!(true));
    let printed = run(&["config", "print"]).await.ok();
    let line = |key: &str| printed.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line("queue_max = 7").ends_with("config.toml:2"), "{printed}");
    assert!(line("memory_mb = 64").ends_with("LEVAIN_FUNCTIONS_MEMORY_MB"), "{printed}");
    assert!(line("timeout_seconds = 30").ends_with("default"), "{printed}");
    let rows = run(&["config", "print", "--json"]).await.json();
    let row = rows.as_array().unwrap().iter().find(|row| row["key"] == "functions.queue_max").unwrap();
    assert!(row.to_string().contains('7') && row.to_string().contains("config.toml:2"), "{row}");
    // The printed configuration is valid again.
    fs::write(&file, &printed).unwrap();
    assert!(run(&["config", "check"]).await.ok().starts_with("ok"));
    fs::write(&file, "[functions]\nqueue_max = 7.5\n").unwrap();
    let output = run(&["config", "check", file.to_str().unwrap()]).await;
    assert_eq!(output.code, Some(2));
    assert!(output.stderr.contains("config.toml:2") && output.stderr.contains("functions.queue_max"), "{output:?}");
}

/// `levain … | head -1` ends quietly.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["completions", "bash"][..], &["config", "print"], &["--help"]] {
        let mut command = DaemonProcess::command(folder.path()).await;
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_calls_hello_and_stops() {
    let data = tempfile::tempdir().unwrap();
    // A second demo reuses the functions of the first.
    for _ in 0..2 {
        let mut command = DaemonProcess::command(data.path()).await;
        command.args(["demo", "--once", "--data-dir"]).arg(data.path());
        let output = DaemonProcess::output(command).await;
        let shown = output.ok();
        assert_eq!(shown.matches("Hello, world!").count(), 2, "{shown}");
        assert!(!data.path().join("levain.sock").exists());
        assert_eq!(workers_of(data.path()), [] as [u32; 0]);
    }
}

/// Runs a CLI command until `ready` holds, and interrupts it as Ctrl-C does.
async fn interrupted(
    daemon: &DaemonProcess,
    arguments: &[&str],
    ready: impl AsyncFnOnce(),
    then: impl FnOnce(),
) -> Output {
    let mut command = DaemonProcess::command(daemon.data_dir()).await;
    command.args(arguments).env("LEVAIN_SOCKET", daemon.socket());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    ready().await;
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    then();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_cancels_a_deployment_or_says_that_it_is_done() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start_unconfined(data.path()).await;
    let file = data.path().join("greet.js");
    let path = file.to_str().unwrap();
    let gate = Gate::shut(data.path());
    let write = |word: &str, before: &str| {
        fs::write(&file, format!("{before} export default () => new Response({word:?});")).unwrap();
    };
    write("one", &gate.wait());
    let output = interrupted(&daemon, &["deploy", "greet", path], async || gate.until_reached().await, || {}).await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(130), ""), "{output:?}");
    assert!(output.stderr.contains("cancelled: nothing was changed"), "{output:?}");
    assert_eq!(daemon.cli(&["show", "greet"]).await.code, Some(3), "the function that it made is gone");
    let failed = daemon.cli(&["deployments", "--failed"]).await.ok();
    assert!(failed.contains("greet:LIVE") && failed.contains("cancelled by its client"), "{failed}");

    write("one", "");
    daemon.cli(&["deploy", "greet", path]).await.ok();
    gate.shut_again();
    write("two", &gate.wait());
    let listed = async || {
        gate.until_reached().await;
        let listed = daemon.cli(&["deployments", "greet"]).await.ok();
        assert!(listed.contains("building"), "{listed}");
    };
    let output = interrupted(&daemon, &["--json", "deploy", "greet", path], listed, || {}).await;
    assert_eq!((output.code, output.json()["code"].as_str()), (Some(130), Some("CANCELLED")), "{output:?}");
    assert_eq!(daemon.cli(&["invoke", "greet"]).await.ok(), "one");
    daemon.kill().await;
}
