//! Bytecode beside the bundles: which bundles are compiled, that they behave as before, and the life of the cache.

use crate::harness::{DaemonProcess, TestDaemon, json, text, until};
use levain::{
    client::Client,
    config::Bytecode,
    protocol::{
        field::Body,
        message::{DeleteRequest, DeleteVersionRequest, DeployRequest, RegisterRequest, VersionsRequest},
    },
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// End of a bundle: its handler, which reports how it was loaded. Comments survive only where Bun runs the source.
const HANDLER: &str = r#"
function form() { /* as it stands */ }
class Failure extends Error {}
function fail(depth) {
  if (depth > 0) return [fail(depth - 1)];
  throw new Failure("failed");
}
async function later() { await 1; return [fail(1)]; }
const surroundings = () => ({
  strict: (function () { return this === undefined; })(),
  env: process.env.NODE_ENV ?? null,
  argv: process.argv[1],
  names: [form.name, Failure.name, handler.name],
  counter: ++counter,
});
export let counter = 0;
async function handler(req) {
  const { pathname } = new URL(req.url);
  if (pathname === "/form") return new Response(form.toString().includes("as it stands") ? "source" : "bytecode");
  if (pathname === "/fail") return [fail(2)];
  if (pathname === "/later") return await later();
  if (pathname === "/exit") process.exit(0);
  return Response.json(surroundings());
}
export { handler as default };
"#;

/// A few hundred kilobytes of code that only take time to load.
fn ballast() -> String {
    let function = |number: usize| {
        format!(
            "function step{number}(value, options = {{}}) {{
  const {{ limit = {number}, names = [\"a{number}\", 'b'] }} = options;
  for (let index = 0; index < limit; index++) if (names.includes(`${{value}}-${{index}}`)) return {{ index, names }};
  return [...names, value].map((name) => ({{ name, length: name.length, key: name ?? limit }}));
}}\n"
        )
    };
    let calls = (0..1_500).map(|number| format!("step{number},")).collect::<String>();
    (0..1_500).map(function).collect::<String>() + &format!("globalThis.steps = [{calls}].length;\n")
}

/// A bundle that is large enough to be compiled.
pub fn large() -> String {
    format!("// @bun\n{}{HANDLER}", ballast())
}

/// Entries of the cache, for every runtime.
pub fn cached(data_dir: &Path) -> Vec<PathBuf> {
    files(data_dir).into_iter().filter(|path| !is_draft(path)).collect()
}

fn is_draft(path: &Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with('.')
}

/// Entries of the cache, including unfinished ones.
fn files(data_dir: &Path) -> Vec<PathBuf> {
    let children = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    children(&data_dir.join("bytecode")).iter().flat_map(|runtime| children(runtime)).collect()
}

/// Waits until the newest version of a function is compiled.
pub async fn until_compiled(daemon: &TestDaemon, name: &str) {
    until("the version is compiled", || async { daemon.versions(name).await[0].bytecode.then_some(()) }).await;
}

/// Ends the function's worker, so that the next call starts another, and returns the form that this one has loaded.
async fn form_of_next(daemon: &TestDaemon, name: &str) -> String {
    if !daemon.worker_pids().is_empty() {
        daemon.get(name, "/exit").await;
    }
    daemon.until_no_workers().await;
    text(&daemon.get(name, "/form").await).to_owned()
}

/// Overwrites half of a file in the cache.
fn damage(file: &Path) {
    let folder = file.parent().unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[..middle].fill(b'x');
    fs::write(file, bytes).unwrap();
}

/// A stack without columns, which may differ by a few characters.
fn lines(stack: &str) -> Vec<String> {
    stack.lines().map(|line| line.rsplit_once(':').map_or(line, |(line, _)| line).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compiled_does_the_same() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", &large()).await;
    assert_eq!(text(&daemon.get("f", "/form").await), "source", "the deployment's worker loads the source");
    let mut seen = Vec::new();
    for form in ["source", "bytecode"] {
        let mut errors = Vec::new();
        for path in ["/fail", "/later"] {
            let answer = daemon.get("f", path).await;
            let details = answer.details.expect("it fails");
            let stack = details["stack"].as_str().unwrap();
            assert!(stack.contains("/bundle/bundle.js:"), "{form}: {stack}");
            errors.push((answer.error, lines(stack)));
        }
        let answer = daemon.get("f", "/").await;
        seen.push((errors, json(&answer)));
        until_compiled(&daemon, "f").await;
        if form == "source" {
            assert_eq!(form_of_next(&daemon, "f").await, "bytecode");
        }
    }
    assert_eq!(seen[0], seen[1]);
    let facts = &seen[1].1;
    assert_eq!(facts["argv"], "/bundle/bundle.js");
    assert_eq!((&facts["strict"], facts["env"].is_null()), (&true.into(), true));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_do_something_else_runs_from_its_source() {
    let daemon = TestDaemon::start().await;
    let body = ballast();
    let ends = [
        ("await", "await 0; export default function f() { return new Response('ok'); }"),
        ("meta", "export default function f() { return new Response(import.meta.url ? 'ok' : ''); }"),
        ("folder", "export default function f() { return new Response(__dirname ? 'ok' : ''); }"),
        ("commonjs", "module.exports = () => new Response('ok');"),
        ("eval", "export default function f() { return new Response(eval('typeof step1') && 'ok'); }"),
        ("exports", "export default function f() { return new Response(typeof exports && 'ok'); }"),
        ("unnamed", "export default () => new Response('ok');"),
    ];
    for (name, end) in ends {
        daemon.deploy_text(name, &format!("{body}{end}")).await;
    }
    daemon.deploy_text("small", "export default function f() { return new Response('ok'); }").await;
    daemon.register("several").await;
    let files = [("bundle.js", large()), ("other.txt", "x".into())];
    let files = files.map(|(path, text)| (path.to_owned(), Body::from(text.into_bytes())));
    let several =
        DeployRequest { function_id: "several".into(), files: Some(files.into()), ..DeployRequest::default() };
    daemon.call(&several).await.unwrap();
    // Versions are compiled one at a time, by name, so the others have been considered before this one.
    daemon.deploy_text("z-last", &large()).await;
    until_compiled(&daemon, "z-last").await;
    for name in ends.map(|(name, _)| name).into_iter().chain(["small"]) {
        assert!(!daemon.versions(name).await[0].bytecode, "{name}");
        assert_eq!(text(&daemon.get(name, "/").await), "ok", "{name}");
    }
    assert_eq!(
        (text(&daemon.get("several", "/form").await), daemon.versions("several").await[0].bytecode),
        ("source", false)
    );
    assert_eq!(cached(daemon.data_dir()).len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_cache_does_no_harm() {
    let mut daemon = TestDaemon::start().await;
    daemon.deploy_text("f", &large()).await;
    until_compiled(&daemon, "f").await;
    let code = |folder: &Path| folder.join("levain_compiled.js.jsc");
    let [folder] = cached(daemon.data_dir()).try_into().unwrap();
    // Damaged while the daemon runs: new workers do not use it.
    damage(&code(&folder));
    assert_eq!(form_of_next(&daemon, "f").await, "source");
    assert!(json(&daemon.get("f", "/").await)["strict"].as_bool().unwrap());
    // Removed while the daemon runs.
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(form_of_next(&daemon, "f").await, "source");

    // The next start compiles again; the start after that finds the damage and compiles once more.
    daemon.restart().await;
    until_compiled(&daemon, "f").await;
    assert!(cached(daemon.data_dir()).contains(&folder), "the same text is compiled to the same bytes");
    let whole = fs::read(code(&folder)).unwrap();
    daemon.restart_with(|_| damage(&code(&folder))).await;
    until_compiled(&daemon, "f").await;
    assert!(fs::read(code(&folder)).unwrap() == whole);
    assert_eq!(form_of_next(&daemon, "f").await, "bytecode");
    // An undamaged entry is used as it is.
    let made = fs::metadata(&folder).unwrap().modified().unwrap();
    daemon.restart().await;
    until_compiled(&daemon, "f").await;
    assert_eq!(fs::metadata(&folder).unwrap().modified().unwrap(), made);
    assert_eq!(form_of_next(&daemon, "f").await, "bytecode");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_of_another_bun_is_removed_and_not_used() {
    let mut daemon = TestDaemon::start().await;
    daemon.deploy_text("f", &large()).await;
    until_compiled(&daemon, "f").await;
    let [folder] = cached(daemon.data_dir()).try_into().unwrap();
    let own = folder.parent().unwrap();
    let other = own.with_file_name("bun-1.0.0-shim-0");
    daemon.restart_with(|_| fs::rename(own, &other).unwrap()).await;
    assert!(!other.exists());
    until_compiled(&daemon, "f").await;
    assert!(folder.exists());

    // The cache is switched off, and on again.
    daemon.restart_with(|config| config.versioning.bytecode = Bytecode::Off).await;
    assert!(cached(daemon.data_dir()).is_empty() && !daemon.versions("f").await[0].bytecode);
    assert_eq!(form_of_next(&daemon, "f").await, "source");
    daemon.redeploy_text("f", None, &large().replace("failed", "changed")).await.unwrap();
    assert!(cached(daemon.data_dir()).is_empty());
    daemon.restart_with(|config| config.versioning.bytecode = Bytecode::Auto).await;
    until_compiled(&daemon, "f").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_goes_with_the_version_and_with_the_function() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", &large()).await;
    until_compiled(&daemon, "f").await;
    let [first] = cached(daemon.data_dir()).try_into().unwrap();
    daemon.redeploy_text("f", None, &large().replace("failed", "changed")).await.unwrap();
    until_compiled(&daemon, "f").await;
    assert_eq!(cached(daemon.data_dir()).len(), 2, "the previous version keeps its bytecode for a rollback");
    daemon.call(&DeleteVersionRequest { function_id: "f".into(), version: "v1".into() }).await.unwrap();
    assert!(!first.exists());
    assert_eq!(cached(daemon.data_dir()).len(), 1);
    daemon.call(&DeleteRequest { function_id: "f".into() }).await.unwrap();
    assert!(cached(daemon.data_dir()).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_the_compilation_leaves_nothing_but_work() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    client.call(&RegisterRequest { name: "f".into(), ..RegisterRequest::default() }).await.unwrap();
    let bundle = Some(Body::from(large().into_bytes()));
    let deploy = DeployRequest { function_id: "f".into(), bundle, ..DeployRequest::default() };
    client.call(&deploy).await.unwrap();
    until("the compilation has begun", || async { (!files(data.path()).is_empty()).then_some(()) }).await;
    daemon.kill().await;

    let daemon = DaemonProcess::start(data.path()).await;
    let client: &Client = &daemon.client().await;
    until("the version is compiled", || async {
        let versions = client
            .call(&VersionsRequest { function_id: "f".into(), ..VersionsRequest::default() })
            .await
            .unwrap()
            .versions;
        versions[0].bytecode.then_some(())
    })
    .await;
    assert_eq!(files(data.path()).len(), 1);
}
