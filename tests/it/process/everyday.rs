//! The command line in everyday use: what it says without being asked, and what it says when a name is misspelt.

use crate::harness::{DaemonProcess, Output, samples, until};
use nix::pty::openpty;
use serde_json::json;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::Stdio,
    time::Duration,
};

async fn with_http(data: &Path) -> DaemonProcess {
    let mut command = DaemonProcess::serve(data).await;
    command.env("LEVAIN_HTTP_ADDRESS", "127.0.0.1:0");
    DaemonProcess::spawn(command, data).await
}

/// Writes and deploys a function of one file.
async fn deploy(daemon: &DaemonProcess, name: &str, file: &str, code: &str) -> Output {
    let path = daemon.data_dir().join(file);
    fs::write(&path, code).unwrap();
    daemon.cli(&["deploy", name, path.to_str().unwrap()]).await
}

fn answers(status: u16) -> String {
    format!("export default () => new Response('body', {{ status: {status} }});")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_says_where_the_function_answers() {
    let data = tempfile::tempdir().unwrap();
    let daemon = with_http(data.path()).await;
    let base = format!("http://{}", daemon.http().await);
    let deployed = deploy(&daemon, "greet", "greet.js", &answers(200)).await.ok();
    assert!(deployed.contains(&format!("\n   {base}/functions/greet\n")), "{deployed}");
    let file = daemon.data_dir().join("greet.js");
    let staged = daemon.cli(&["--json", "deploy", "greet", file.to_str().unwrap(), "--alias", "STAGING"]).await.json();
    assert_eq!(staged["url"], json!(format!("{base}/functions/greet:STAGING")));
    assert_eq!((&staged["function"], staged.get("host_url")), (&json!("greet"), None));
    let status = daemon.cli(&["status"]).await.ok();
    assert!(status.contains(&format!("http       {base}\n")), "{status}");
    daemon.kill().await;

    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let deployed = deploy(&daemon, "greet", "greet.js", &answers(200)).await.ok();
    assert!(!deployed.contains("http"), "HTTP is off: {deployed}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_an_answer_is_seen_and_may_fail_the_command() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    for status in [204, 404, 500] {
        let code =
            if status == 204 { "export default () => new Response(null, { status: 204 });" } else { &answers(status) };
        deploy(&daemon, &format!("s{status}"), "s.js", code).await.ok();
    }
    let plain = daemon.cli(&["invoke", "s500"]).await;
    assert_eq!((plain.code, plain.stdout.as_str(), plain.stderr.as_str()), (Some(0), "body", ""), "{plain:?}");
    let included = daemon.cli(&["invoke", "s500", "--include"]).await.ok();
    assert!(included.starts_with("HTTP 500\n") && included.ends_with("\n\nbody"), "{included}");
    for stream in [&["--stream"][..], &[]] {
        for (name, code) in [("s204", 0), ("s404", 11), ("s500", 11)] {
            let output = daemon.cli(&[&["invoke", name, "--fail"], stream].concat()).await;
            assert_eq!(output.code, Some(code), "{output:?}");
            let is_said = output.stderr == format!("error: the function answered with status {}\n", &name[1..]);
            assert_eq!(is_said, code != 0, "{output:?}");
        }
    }
    let json = daemon.cli(&["--json", "invoke", "s404", "--fail"]).await;
    assert_eq!((json.code, json.json()["status"].as_u64()), (Some(11), Some(404)), "{json:?}");

    let metrics = daemon.cli(&["--json", "metrics", "s500"]).await.json();
    assert_eq!((&metrics["answers_by_class"], &metrics["errors"]), (&json!({ "5xx": 4 }), &json!(0)), "{metrics}");
    let all = daemon.cli(&["metrics"]).await.ok();
    assert!(["s204", "s404", "s500", ">"].iter().filter(|it| all.contains(*it)).count() == 3, "{all}");
    daemon.kill().await;
}

/// A person sees a status other than 2xx; a program that reads the terminal's place does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_an_unusual_status() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    deploy(&daemon, "missing", "m.js", &answers(404)).await.ok();
    let terminal = openpty(None, None).unwrap();
    let mut command = DaemonProcess::command(data.path()).await;
    command.env("LEVAIN_SOCKET", daemon.socket()).args(["invoke", "missing"]);
    let child = command.stdout(Stdio::piped()).stderr(terminal.slave).spawn().unwrap();
    drop(command);
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"body".as_slice()));
    let mut shown = Vec::new();
    // The end of a terminal is an error of the system.
    let _ = fs::File::from(terminal.master).read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(shown.contains("the function answered with status 404"), "{shown}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_of_built_versions_has_no_source_map() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let project = data.path().join("project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("package.json"), "{}").unwrap();
    for (word, gap) in [("one", ""), ("two", "\n\n")] {
        fs::write(project.join("index.ts"), format!("{gap}export default () => new Response({word:?});\n")).unwrap();
        daemon.cli(&["deploy", "built", project.to_str().unwrap(), "--build"]).await.ok();
    }
    let shown = daemon.cli(&["compare", "built", "1", "2"]).await.ok();
    assert!(shown.contains("changed bundle.js.map: source map\n"), "{shown}");
    assert!(shown.contains("two") && !shown.contains("mappings"), "{shown}");
    let json = daemon.cli(&["--json", "compare", "built", "1", "2"]).await.json();
    assert!(!json.to_string().contains("mappings"), "{json}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_name_is_answered_with_the_one_that_was_meant() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let file = data.path().join("checkout.js");
    fs::write(&file, answers(200)).unwrap();
    daemon.cli(&["deploy", "checkout", file.to_str().unwrap(), "--alias", "STAGING"]).await.ok();
    for (arguments, meant) in [
        (&["invoke", "chekout"][..], "checkout"),
        (&["show", "Checkout"], "checkout"),
        (&["invoke", "checkout:STAGNIG"], "STAGING"),
        (&["traffic", "show", "checkout", "--alias", "stageing"], "STAGING"),
        (&["environments", "show", "prodution"], "production"),
        (&["alias", "set", "checkout", "A", "v1", "--environment", "stagin"], "staging"),
    ] {
        let output = daemon.cli(arguments).await;
        let hint = format!("\ndid you mean `{meant}`?\n");
        assert!(output.code == Some(3) && output.stderr.contains(&hint), "{arguments:?}: {output:?}");
        let json = daemon.cli(&[&["--json"], arguments].concat()).await;
        assert!(!json.stdout.contains("did you mean"), "programs get the daemon's words: {json:?}");
    }
    for arguments in [&["invoke", "resize"][..], &["environments", "show", "qa"]] {
        let output = daemon.cli(arguments).await;
        assert!(output.code == Some(3) && !output.stderr.contains("did you mean"), "{output:?}");
    }
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_all_functions_name_each_and_are_followed() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    for name in ["first", "second"] {
        let code = format!("export default () => {{ console.log('this is {name}'); return new Response(''); }};");
        deploy(&daemon, name, &format!("{name}.js"), &code).await.ok();
        daemon.cli(&["invoke", name]).await.ok();
    }
    let all = daemon.cli(&["logs"]).await.ok();
    let line =
        |name: &str| all.lines().any(|it| it.contains(&format!(" {name:16} ")) && it.contains(&format!("is {name}")));
    assert!(line("first") && line("second"), "{all}");
    let json = daemon.cli(&["--json", "logs"]).await.json();
    assert_eq!(json["logs"].as_array().unwrap().iter().filter(|it| it["function"] == "second").count(), 1, "{json}");
    daemon.cli(&["delete", "second", "--yes"]).await.ok();
    let all = daemon.cli(&["logs"]).await.ok();
    assert!(all.contains("second"), "lines of a deleted function keep its name: {all}");

    let mut command = DaemonProcess::command(data.path()).await;
    command.env("LEVAIN_SOCKET", daemon.socket()).args(["logs", "-f"]);
    let mut follower = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("is first"));
    daemon.cli(&["invoke", "first"]).await.ok();
    let news =
        tokio::task::spawn_blocking(move || lines.map_while(Result::ok).find(|it| it.contains("is first"))).await;
    assert!(news.unwrap().unwrap().contains(" first "));
    follower.kill().unwrap();
    follower.wait().unwrap();
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_values_are_printed_alone() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    deploy(&daemon, "greet", "greet.js", &answers(200)).await.ok();
    daemon.cli(&["env", "set", "greet", "A=two words", "B=1"]).await.ok();
    daemon.cli(&["env", "set", "greet", "A=other", "--environment", "staging"]).await.ok();
    daemon.cli(&["env", "set", "--all", "C=all", "D=more"]).await.ok();
    let mut command = daemon.shell("printf hunter2 | levain secret set greet KEY", binaries()).await;
    command.env("LEVAIN_SOCKET", daemon.socket());
    DaemonProcess::output(command).await.ok();
    for (arguments, value) in [
        (&["greet", "A"][..], "two words\n"),
        (&["greet", "A", "-e", "staging"], "other\n"),
        (&["--all", "C"], "all\n"),
        (&["greet", "C", "--resolved"], "all\n"),
    ] {
        let output = daemon.cli(&[&["env", "get"], arguments].concat()).await;
        assert_eq!(output.ok(), value, "{arguments:?}");
    }
    let secret = daemon.cli(&["env", "get", "greet", "KEY"]).await;
    assert!(secret.code == Some(8) && secret.stderr.contains("is a secret") && secret.stdout.is_empty(), "{secret:?}");
    let missing = daemon.cli(&["--json", "env", "get", "greet", "C"]).await;
    assert_eq!((missing.code, missing.json()["code"].as_str()), (Some(3), Some("VARIABLE_NOT_FOUND")), "{missing:?}");
    for arguments in [&["env", "set", "greet"][..], &["env", "set", "A=1"], &["env", "get", "greet"], &["env", "get"]] {
        assert_eq!(daemon.cli(arguments).await.code, Some(2), "{arguments:?}");
    }

    daemon.cli(&["config-of", "greet", "timeout_seconds=7"]).await.ok();
    assert_eq!(daemon.cli(&["config-of", "greet", "timeout-seconds"]).await.ok(), "7\n");
    assert_eq!(daemon.cli(&["config-of", "greet", "network"]).await.ok(), "on\n");
    let json = daemon.cli(&["--json", "config-of", "greet", "timeout_seconds", "auth"]).await.json();
    assert_eq!(json, json!({ "timeout_seconds": 7, "auth": "public" }));
    for wrong in [&["timeout_second"][..], &["queue_max", "timeout_seconds=1"], &["memory_mb=1"]] {
        assert_eq!(daemon.cli(&[&["config-of", "greet"], wrong].concat()).await.code, Some(2), "{wrong:?}");
    }
    let version = daemon.cli(&["--json", "versions", "show", "greet", "LIVE"]).await.json();
    assert_eq!(version["version"], json!("v1"));
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_users_file_and_says_each_thing_once() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let syntax = deploy(&daemon, "syn", "syn.ts", "export default () => {\n  let a: = 1;\n};").await;
    assert!(syntax.code == Some(9) && syntax.stderr.contains("syn.ts"), "{syntax:?}");
    let import = deploy(&daemon, "imp", "imp.ts", "throw new Error('no database');\nexport default () => 1;").await;
    assert!(import.code == Some(9) && import.stderr.contains("imp.ts"), "{import:?}");
    assert_eq!(import.stderr.matches("no database").count(), 1, "{}", import.stderr);
    let module = deploy(&daemon, "mod", "mod.ts", "import 'not-there';\nexport default () => 1;").await;
    assert!(module.code == Some(9) && module.stderr.contains("mod.ts"), "{module:?}");
    assert_eq!(module.stderr.matches("not-there").count(), 1, "{}", module.stderr);
    deploy(&daemon, "thr", "thr.ts", "export default () => { throw new TypeError('too late'); };").await.ok();
    let thrown = daemon.cli(&["invoke", "thr"]).await;
    assert!(thrown.stderr.starts_with("error[HANDLER_ERROR]: TypeError: too late\n"), "{}", thrown.stderr);
    assert!(thrown.stderr.contains("thr.ts:1") && thrown.stderr.matches("too late").count() == 1, "{}", thrown.stderr);
    for output in [syntax, import, module, thrown] {
        assert!(!output.stderr.contains("bundle.ts"), "{}", output.stderr);
    }
    // Equal code under another name is the same version still.
    let again =
        deploy(&daemon, "thr", "other.ts", "export default () => { throw new TypeError('too late'); };").await.ok();
    assert!(again.contains("v1 is live already"), "{again}");
    let sleep = samples::folder("sleep").display().to_string();
    daemon.cli(&["deploy", "sleep", &sleep]).await.ok();
    let late = daemon.cli(&["invoke", "sleep", "--query", "ms=60000", "--timeout-ms", "50"]).await;
    assert!(late.code == Some(6) && late.stderr.starts_with("error[TIMEOUT]: "), "{late:?}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_names_the_flag_that_helps() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.arg("--http").arg(taken.local_addr().unwrap().to_string());
    let refused = DaemonProcess::output(command).await;
    assert!(refused.code == Some(4) && refused.stderr.contains("--http off"), "{refused:?}");
    assert!(!refused.stderr.contains("http.address"), "{refused:?}");
}

fn binaries() -> &'static str {
    Path::new(env!("CARGO_BIN_EXE_levain")).parent().unwrap().to_str().unwrap()
}

/// The lines that the demo prints work as they are, `curl` included, although `levain` is not on PATH.
#[tokio::test(flavor = "multi_thread")]
async fn the_suggestions_of_the_demo_work_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::command(folder.path()).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    command.arg("demo").env("LEVAIN_HTTP_ADDRESS", format!("127.0.0.1:{port}")).stdout(Stdio::piped());
    let environment: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.unwrap().to_owned())).collect();
    let mut demo = command.spawn().unwrap();
    let mut printed = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut lines = Vec::new();
    let read = tokio::task::spawn_blocking(move || {
        for line in printed.by_ref().skip_while(|it| !it.contains("In another terminal")).skip(1) {
            let is_last = line.contains(" stop ");
            lines.push(line);
            if is_last {
                break;
            }
        }
        lines
    });
    let lines = tokio::time::timeout(Duration::from_secs(60), read).await.unwrap().unwrap();
    assert_eq!(lines.len(), 8, "{lines:?}");
    assert!(lines[0].contains(&format!("curl http://127.0.0.1:{port}/functions/hello")), "{lines:?}");
    for line in &lines {
        let mut command = std::process::Command::new("/bin/sh");
        command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command.args(["-e", "-c", line]).current_dir(folder.path()).stdin(Stdio::null());
        let output = DaemonProcess::output(command).await;
        assert_eq!(output.code, Some(0), "{line}: {output:?}");
        assert!(!output.stdout.is_empty(), "{line}");
    }
    let ended = until("the demo ends", || {
        let status = demo.try_wait().unwrap();
        async move { status }
    });
    assert!(ended.await.success());
}
