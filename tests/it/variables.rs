//! SET_VARIABLES, LIST_VARIABLES and DELETE_VARIABLES; which values functions find, and when.

mod between;
mod kinds;

use crate::harness::{DaemonProcess, Gate, Load, TestDaemon, get, is_refused, json, repetitions, until};
use levain::{
    error::{Error, ErrorCode},
    model::{SecretText, SettingsPatch},
    protocol::{
        field::Body,
        message::{
            ChangeVariablesResponse, DeleteVariablesRequest, DeployRequest, ListVariablesRequest, SetVariablesRequest,
            VariableInfo, VariableInput, WarmupRequest,
        },
    },
};
use std::collections::BTreeMap;

/// Answers with the variables named in its query, as found in each place and at import.
const READER: &str = "const atImport = { ...process.env };
    export default (req, ctx) => {
        const keys = new URL(req.url).searchParams.getAll('k');
        return Response.json(Object.fromEntries(keys.map((k) => {
            const found = [process.env[k], Bun.env[k], ctx.env[k], atImport[k], import.meta.env[k]];
            return [k, found.every((it) => it === found[0]) ? (found[0] ?? null) : found];
        })));
    };";

pub fn input(key: &str, value: &str) -> VariableInput {
    VariableInput { key: key.into(), value: Some(value.into()), ..VariableInput::default() }
}

pub fn set(function: Option<&str>, environment: Option<&str>, pairs: &[(&str, &str)]) -> SetVariablesRequest {
    SetVariablesRequest {
        function_id: function.map(Into::into),
        environment: environment.map(Into::into),
        variables: pairs.iter().map(|(key, value)| input(key, value)).collect(),
        ..SetVariablesRequest::default()
    }
}

fn delete(function: Option<&str>, environment: Option<&str>, keys: &[&str]) -> DeleteVariablesRequest {
    DeleteVariablesRequest {
        function_id: function.map(Into::into),
        environment: environment.map(Into::into),
        key: None,
        keys: keys.iter().map(|it| (*it).to_owned()).collect(),
        only_secrets: false,
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|it| (*it).to_owned()).collect()
}

async fn found(daemon: &TestDaemon, function: &str, key: &str) -> serde_json::Value {
    json(&daemon.get(function, &format!("/?k={key}")).await)[key].clone()
}

async fn list(daemon: &TestDaemon, request: ListVariablesRequest) -> Vec<VariableInfo> {
    daemon.call(&request).await.expect("a list").variables
}

/// Checks that the change has replaced this many pools, and that no worker is pending when it answers.
fn is_renewed(response: &ChangeVariablesResponse, pools: u32) {
    assert_eq!((response.workers.pools, response.workers.pending), (pools, 0), "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_finds_its_variables_and_nothing_of_the_daemon() {
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("PLANTED_IN_THE_DAEMON", "planted");
    let daemon = DaemonProcess::spawn(command, data.path()).await;
    let client = daemon.client().await;
    let code = "export default () => Response.json({ ...process.env });";
    let request = DeployRequest {
        function_id: "f".into(),
        bundle: Some(Body::from(code.as_bytes().to_vec())),
        create: true,
        ..DeployRequest::default()
    };
    client.call(&request).await.unwrap();
    client
        .call(&set(Some("f"), None, &[("A", "1"), ("EMPTY", ""), ("TEXT", "two\nlines \"ü\" 'x' $A")]))
        .await
        .unwrap();
    let answer = client.call(&get("f", "/")).await.unwrap();
    let environment: BTreeMap<String, String> = serde_json::from_slice(&answer.body.0).unwrap();
    let own: Vec<_> = environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    for wanted in [("A", "1"), ("EMPTY", ""), ("TEXT", "two\nlines \"ü\" 'x' $A")] {
        assert!(own.contains(&wanted), "{own:?}");
    }
    let others = ["PATH", "HOME", "TMPDIR", "BUN_RUNTIME_TRANSPILER_CACHE_PATH", "DO_NOT_TRACK", "PWD"];
    let strange: Vec<_> =
        own.iter().filter(|(key, _)| !others.contains(key) && !["A", "EMPTY", "TEXT"].contains(key)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    // The variables survive a restart.
    daemon.kill().await;
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    let answer = client.call(&get("f", "/")).await.unwrap();
    assert_eq!(serde_json::from_slice::<BTreeMap<String, String>>(&answer.body.0).unwrap()["A"], "1");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_place_counts() {
    let mut daemon = TestDaemon::start().await;
    daemon.deploy_text("f", READER).await;
    daemon.deploy_text("other", READER).await;
    // production inherits from staging, and staging from production: the cycle ends.
    daemon
        .restart_with(|config| {
            let connection = rusqlite::Connection::open(config.data_dir().join("levain.db")).unwrap();
            let parents = "UPDATE environments SET parent = CASE name WHEN 'production' THEN 'staging' ELSE 'production' END \
                WHERE name IN ('production', 'staging')";
            connection.execute(parents, []).unwrap();
        })
        .await;
    let places = [
        (None, None),
        (None, Some("staging")),
        (None, Some("production")),
        (Some("f"), None),
        (Some("f"), Some("staging")),
        (Some("f"), Some("production")),
    ];
    // Values for another environment or function do not apply.
    daemon.call(&set(Some("f"), Some("dev"), &[("K", "wrong")])).await.unwrap();
    daemon.call(&set(Some("other"), Some("production"), &[("K", "of other")])).await.unwrap();
    assert_eq!(found(&daemon, "f", "K").await, serde_json::Value::Null);
    for (index, (function, environment)) in places.into_iter().enumerate() {
        let value = format!("{function:?} {environment:?}");
        let response = daemon.call(&set(function, environment, &[("K", &value)])).await.unwrap();
        is_renewed(&response, 1);
        assert_eq!(found(&daemon, "f", "K").await, value.as_str());
        let request =
            ListVariablesRequest { function_id: Some("f".into()), resolved: true, ..ListVariablesRequest::default() };
        let listed = list(&daemon, request).await;
        assert_eq!((listed.len(), listed[0].value.as_deref()), (1, Some(value.as_str())));
        assert_eq!(listed[0].hides.len(), index, "{listed:?}");
        assert_eq!(listed[0].place.environment.as_ref().map(ToString::to_string).as_deref(), environment);
        assert_eq!(listed[0].place.function_id.is_some(), function.is_some());
    }
    assert_eq!(found(&daemon, "other", "K").await, "of other");
    // A hidden value applies again when the value that hides it is deleted, and changing a hidden value replaces no
    // worker.
    for (function, environment) in places.into_iter().rev() {
        assert_eq!(found(&daemon, "f", "K").await, format!("{function:?} {environment:?}"));
        is_renewed(&daemon.call(&delete(function, environment, &["K"])).await.unwrap(), 1);
    }
    assert_eq!(found(&daemon, "f", "K").await, serde_json::Value::Null);
    is_renewed(&daemon.call(&set(Some("f"), Some("preview"), &[("K", "elsewhere")])).await.unwrap(), 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_fail_no_call_and_each_sees_one_set() {
    let daemon = TestDaemon::start_with(|config| {
        config.workers.prewarmed_workers = 1;
        config.variables.renew_timeout_ms = 60_000;
    })
    .await;
    let settings = SettingsPatch { max_concurrent_executions: Some(3), ..SettingsPatch::default() };
    daemon.register_with("f", settings).await;
    daemon.redeploy_text("f", None, READER).await.unwrap();
    daemon.call(&set(Some("f"), None, &[("LEFT", "0"), ("RIGHT", "0")])).await.unwrap();
    let load = Load::start(&daemon, "f", "/?k=LEFT&k=RIGHT", 3).await;
    let client = daemon.connect().await;
    load.until_answered(3).await;
    for number in 1..=repetitions(12, 50) {
        let number = number.to_string();
        let response = client.call(&set(Some("f"), None, &[("LEFT", &number), ("RIGHT", &number)])).await.unwrap();
        assert_eq!(response.changed, ["LEFT", "RIGHT"]);
        assert_eq!(response.workers.pending, 0, "{response:?}");
        // From now on only the new values are visible.
        let answer = json(&daemon.get("f", "/?k=LEFT&k=RIGHT").await);
        assert_eq!(answer, serde_json::json!({ "LEFT": number, "RIGHT": number }));
    }
    let answers = load.stop().await;
    let mut seen = BTreeMap::<u32, usize>::new();
    for answer in &answers {
        let pair = json(answer);
        assert_eq!(pair["LEFT"], pair["RIGHT"], "{pair}");
        *seen.entry(pair["LEFT"].as_str().unwrap().parse().unwrap()).or_default() += 1;
    }
    assert!(seen.len() > 5, "calls went on meanwhile: {seen:?}");
    // Each caller, on a connection of its own, never sees an older value again.
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_does_not_load_takes_no_call() {
    let daemon = TestDaemon::start().await;
    let code = "if (process.env.MODE === 'bad') throw new Error('a bad mode');
        export default () => new Response(process.env.MODE);";
    daemon.register("f").await;
    daemon.call(&set(Some("f"), None, &[("MODE", "good")])).await.unwrap();
    daemon.redeploy_text("f", None, code).await.unwrap();
    let response = daemon.call(&set(Some("f"), None, &[("MODE", "bad")])).await.unwrap();
    assert_eq!((response.workers.pools, response.workers.pending), (1, 1), "{response:?}");
    assert!(response.workers.failure.unwrap().contains("a bad mode"));
    assert_eq!(daemon.invoke("f").await.unwrap().body.0, "good");
    let response = daemon.call(&set(Some("f"), None, &[("MODE", "better")])).await.unwrap();
    // The back-off of the failed start may take long.
    assert!(response.workers.failure.is_none(), "{response:?}");
    until("the present value is there", || async {
        (daemon.invoke("f").await.unwrap().body.0 == "better").then_some(())
    })
    .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prewarmed_workers_have_none_and_wear_nothing_of_others() {
    let daemon = TestDaemon::start_with(|config| config.workers.prewarmed_workers = 2).await;
    for name in ["one", "two"] {
        daemon.register(name).await;
        daemon
            .call(&set(Some(name), None, &[(&format!("OF_{}", name.to_uppercase()), "x"), ("BOTH", name)]))
            .await
            .unwrap();
        daemon.redeploy_text(name, None, READER).await.unwrap();
    }
    for name in ["one", "two"] {
        daemon.call(&WarmupRequest { function_id: name.into(), count: 2, qualifier: None }).await.unwrap();
        let answer = json(&daemon.get(name, "/?k=OF_ONE&k=OF_TWO&k=BOTH").await);
        let own = |of: &str| if of == name { "x".into() } else { serde_json::Value::Null };
        assert_eq!(answer, serde_json::json!({ "OF_ONE": own("one"), "OF_TWO": own("two"), "BOTH": name }));
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_runs_with_the_variables_of_its_environment() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    daemon.call(&set(Some("f"), Some("staging"), &[("K", "staging")])).await.unwrap();
    daemon.call(&set(Some("f"), Some("production"), &[("K", "production")])).await.unwrap();
    daemon.redeploy_text("f", None, READER).await.unwrap();
    let request = DeployRequest {
        function_id: "f".into(),
        alias: Some("STAGING".into()),
        bundle: Some(Body::from(READER.as_bytes().to_vec())),
        ..DeployRequest::default()
    };
    daemon.call(&request).await.unwrap();
    assert_eq!(found(&daemon, "f", "K").await, "production");
    assert_eq!(found(&daemon, "f:STAGING", "K").await, "staging");
    // A change in staging does not affect production.
    is_renewed(&daemon.call(&set(Some("f"), Some("staging"), &[("K", "changed")])).await.unwrap(), 1);
    assert_eq!(found(&daemon, "f:STAGING", "K").await, "changed");
    assert_eq!(found(&daemon, "f", "K").await, "production");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_told_at_once_and_nothing_is_set() {
    let daemon = TestDaemon::start_with(|config| {
        config.variables.count_max = 3;
        config.variables.value_bytes_max = 64;
        config.variables.total_bytes_max = 1_024;
    })
    .await;
    daemon.deploy_text("f", READER).await;
    let text = "GOOD=1\nLEVAIN_X=1\nBUN_OPTIONS=--smol\nexport NODE_OPTIONS=x\nLD_PRELOAD=/x\n9A=1\nA-B=1\n";
    let request = SetVariablesRequest {
        function_id: Some("f".into()),
        dotenv: Some(SecretText::from(format!("{text}LONG={}\nGOOD=2\n", "x".repeat(65)))),
        variables: vec![VariableInput { key: "NONE".into(), ..VariableInput::default() }],
        ..SetVariablesRequest::default()
    };
    let error = daemon.call(&request).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    let refused = error.details.as_ref().unwrap()["refused"].as_array().unwrap().clone();
    let keys: Vec<_> = refused.iter().map(|it| it["key"].as_str().unwrap()).collect();
    let expected = ["NONE", "LEVAIN_X", "BUN_OPTIONS", "NODE_OPTIONS", "LD_PRELOAD", "9A", "A-B", "LONG", "GOOD"];
    assert_eq!(keys, expected, "{error:?}");
    assert!(expected.iter().all(|key| error.message.contains(key)), "{}", error.message);
    let all = || ListVariablesRequest { function_id: Some("f".into()), ..ListVariablesRequest::default() };
    assert!(list(&daemon, all()).await.is_empty(), "a refused change sets no variable");
    let refusals: [(SetVariablesRequest, ErrorCode); 7] = [
        (set(Some("f"), None, &[]), ErrorCode::InvalidRequest),
        (set(Some("f"), None, &[("A", "\0")]), ErrorCode::InvalidRequest),
        (set(Some("f"), None, &[("A", "1"), ("B", "1"), ("C", "1"), ("D", "1")]), ErrorCode::PayloadTooLarge),
        (set(Some("nobody"), None, &[("A", "1")]), ErrorCode::FunctionNotFound),
        (set(Some("f"), Some("nowhere"), &[("A", "1")]), ErrorCode::EnvironmentNotFound),
        (
            SetVariablesRequest { only_existing: true, ..set(Some("f"), None, &[("A", "1")]) },
            ErrorCode::VariableNotFound,
        ),
        (SetVariablesRequest { key: Some("A".into()), ..set(Some("f"), None, &[]) }, ErrorCode::InvalidRequest),
    ];
    for (request, code) in refusals {
        let outcome = daemon.call(&request).await;
        assert!(is_refused(&outcome, code), "{request:?}: {outcome:?}");
    }
    assert!(list(&daemon, all()).await.is_empty());
    daemon.call(&set(Some("f"), None, &[("A", "1"), ("B", "1"), ("C", "1")])).await.unwrap();
    let again = daemon.call(&set(Some("f"), None, &[("A", "1"), ("B", "2")])).await.unwrap();
    assert_eq!((again.unchanged, again.changed), (strings(&["A"]), strings(&["B"])));
    // A deletion with an unknown name deletes nothing.
    let outcome = daemon.call(&delete(Some("f"), None, &["A", "NOT"])).await;
    assert!(is_refused(&outcome, ErrorCode::VariableNotFound), "{outcome:?}");
    assert_eq!(list(&daemon, all()).await.len(), 3);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_gone_leaves_none_to_its_successor() -> Result<(), Error> {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", READER).await;
    daemon.call(&set(Some("f"), None, &[("K", "of the first")])).await?;
    daemon.call(&levain::protocol::message::DeleteRequest { function_id: "f".into() }).await?;
    let database = rusqlite::Connection::open(daemon.data_dir().join("levain.db")).unwrap();
    let left: u32 = database.query_row("SELECT count(*) FROM variables", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0, "variables of a deleted function are removed, or nobody could delete them");
    daemon.deploy_text("f", READER).await;
    assert_eq!(found(&daemon, "f", "K").await, serde_json::Value::Null);
    let request = ListVariablesRequest { function_id: Some("f".into()), ..ListVariablesRequest::default() };
    assert!(list(&daemon, request).await.is_empty());
    daemon.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_out_on_the_command_line() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    daemon.cli(&["register", "f"]).await.ok();
    let text = "# what the shop needs\nexport A=1\nB='two words # not a comment'\nKEY=\"-----BEGIN\nline\n-----END\"\n\
        C=plain # a comment\nEMPTY=\nQUOTED=\"a \\\"b\\\" \\$A\\n\"\n";
    std::fs::write(data.path().join("in.env"), text).unwrap();
    let shown = daemon.cli(&["env", "import", "f", "in.env"]).await.ok();
    assert!(shown.contains("ok set A, B, C, EMPTY, KEY, QUOTED"), "{shown}");
    let exported = daemon.cli(&["env", "export", "f"]).await.ok();
    let expected = "A=1\nB=\"two words # not a comment\"\nC=plain\nEMPTY=\nKEY=\"-----BEGIN\\nline\\n-----END\"\n\
        QUOTED=\"a \\\"b\\\" \\$A\\n\"\n";
    assert_eq!(exported, expected);
    std::fs::write(data.path().join("out.env"), &exported).unwrap();
    let again = daemon.cli(&["env", "import", "f", "out.env"]).await.ok();
    assert!(again.contains("unchanged: A, B, C, EMPTY, KEY, QUOTED"), "{again}");
    daemon.cli(&["env", "set", "--all", "REGION=eu", "A=0"]).await.ok();
    daemon.cli(&["env", "set", "f", "A=2", "-e", "staging"]).await.ok();
    let resolved = daemon.cli(&["env", "list", "f", "--resolved", "-e", "staging"]).await.ok();
    let row = resolved.lines().find(|it| it.starts_with("A ")).unwrap();
    let words = row.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.starts_with("A 2 this function in staging this function; all functions"), "{resolved}");
    assert!(resolved.contains("REGION"), "{resolved}");
    let broken = "A=1\nsome words\n";
    std::fs::write(data.path().join("bad.env"), broken).unwrap();
    let refused = daemon.cli(&["env", "import", "f", "bad.env"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("line 2") && !refused.stderr.contains("some words"), "{refused:?}");
    daemon.cli(&["env", "delete", "f", "A", "B", "--yes"]).await.ok();
    assert_eq!(daemon.cli(&["env", "delete", "f", "A", "--yes"]).await.code, Some(3));
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_no_change_of_another_function() {
    let daemon = TestDaemon::start_gated(|config| config.variables.renew_timeout_ms = 60_000).await;
    daemon.deploy_text("f", READER).await;
    // The new workers load until the test opens the gate.
    let gate = Gate::shut(daemon.data_dir());
    let slow = format!("if (process.env.SLOW) {{ {} }} export default () => new Response('ok');", gate.wait());
    daemon.deploy_text("slow", &slow).await;
    let client = daemon.connect().await;
    let change = tokio::spawn(async move { client.call(&set(Some("slow"), None, &[("SLOW", "1")])).await.unwrap() });
    gate.until_reached().await;
    let load = Load::start(&daemon, "slow", "/", 1).await;
    load.until_answered(20).await;
    let client = daemon.connect().await;
    let other = tokio::spawn(async move { client.call(&set(Some("f"), None, &[("K", "1")])).await.unwrap() });
    until("the other function has its value", || async { (found(&daemon, "f", "K").await == "1").then_some(()) }).await;
    assert!(!change.is_finished(), "new workers still load");
    gate.open();
    is_renewed(&change.await.unwrap(), 1);
    other.await.unwrap();
    load.stop().await;
    daemon.stop().await;
}
