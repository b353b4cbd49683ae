//! Builds: projects become functions, mistakes are reported with their place, and forbidden actions fail.

mod hostile;
pub mod project;
mod registry;

use crate::harness::{Gate, TestDaemon, refused, text};
use levain::{
    error::{Error, ErrorCode},
    model::{DeploymentStatus, VersionSource},
    protocol::{
        field::Body,
        message::{DeployProgress, DeployRequest, DeploymentsRequest, InvokeRequest},
    },
};
use project::{at, nothing_is_left, problems, project, with_macro, write};
use registry::Registry;
use std::{fs, path::Path, process::Command};
use tempfile::TempDir;

const PACKAGE: &str = r#"{"name":"p","module":"src/index.ts","dependencies":{"words":"^1.0.0"},
  "devDependencies":{"later":"^1.0.0"}, "scripts":{"preinstall":"exit 1","postinstall":"exit 1","build":"exit 1"}}"#;

const INDEX: &str = r#"import { word } from "words";
import { fail } from "./lib/fail";
import data from "../assets/data.txt" with { type: "file" };

interface Answer { text: string }

export default async function handler(req: Request): Promise<Response> {
  if (new URL(req.url).pathname === "/fail") fail("wanted");
  const answer: Answer = { text: word("you") + " " + (await Bun.file(new URL(data, import.meta.url)).text()) };
  return Response.json({ ...answer, env: process.env.NODE_ENV ?? null });
}
"#;

const FAIL: &str =
    "type Reason = string;\n\nexport function fail(reason: Reason): never {\n  throw new Error(reason);\n}\n";

/// A project with a package from a registry, several files and an asset.
fn with_packages(registry: &Registry) -> TempDir {
    // The packages in `node_modules` come from another machine and are not used.
    project(&[
        ("package.json", PACKAGE),
        ("bun.lock", &registry.lockfile()),
        (".npmrc", &registry.npmrc()),
        ("src/index.ts", INDEX),
        ("src/lib/fail.ts", FAIL),
        ("assets/data.txt", "and data"),
        ("node_modules/words/index.js", "throw new Error('not this one')"),
        ("bunfig.toml", "preload = [\"./steal.ts\"]\n"),
        ("steal.ts", "console.log('PRELOADED'); process.exit(1);"),
        (".env", "NODE_ENV=leaked"),
    ])
}

/// Returns a lockfile that lists the project's development dependency as well.
fn with_development(registry: &Registry) -> String {
    let packages = r#""name": "p", "devDependencies": { "later": "npm:words@1.2.0" },"#;
    let mut lockfile = registry.lockfile().replace("\"name\": \"p\",", packages);
    let words = lockfile.lines().find(|it| it.contains("\"words\": [")).unwrap().to_owned();
    lockfile = lockfile.replace(&words, &format!("{}\n{words}", words.replace("\"words\":", "\"later\":")));
    lockfile
}

async fn failed(daemon: &TestDaemon, request: &DeployRequest) -> Error {
    let error = daemon.call(request).await.expect_err("it cannot be built");
    assert_eq!(error.code, ErrorCode::BuildFailed, "{error:?}");
    error
}

fn tar_gz(folder: &Path) -> Vec<u8> {
    let output = Command::new("tar").arg("czf").arg("-").arg("-C").arg(folder).arg(".").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_with_packages_and_several_files_answers() {
    let (daemon, registry) = (TestDaemon::start().await, Registry::start().await);
    let folder = with_packages(&registry);
    fs::write(
        folder.path().join("package.json"),
        PACKAGE.replace(r#"{"later":"^1.0.0"}"#, r#"{"later":"npm:words@1.2.0"}"#),
    )
    .unwrap();
    fs::write(folder.path().join("bun.lock"), with_development(&registry)).unwrap();
    let mut answer =
        daemon.client().call_streaming(&DeployRequest { follow: true, ..at("p", &folder) }).expect("it is sent");
    let mut told = Vec::new();
    while let Some(DeployProgress { line }) = answer.next_partial().await.map_err(refused).unwrap() {
        told.push(line);
    }
    let first = answer.finish().await.expect("it is deployed");
    assert_eq!((first.version.as_str(), first.published), ("v1", true));
    assert!(told.contains(&"building src/index.ts".to_owned()), "{told:?}");
    assert!(told.iter().any(|it| it.contains("words@1.2.0")), "{told:?}");
    assert!(!told.iter().any(|it| it.contains("PRELOADED")), "{told:?}");
    let answered = daemon.get("p", "/").await;
    assert_eq!(text(&answered), r#"{"text":"a word for you and data","env":null}"#);
    let failure = daemon.get("p", "/fail").await;
    let stack = failure.details.unwrap()["stack"].as_str().unwrap().to_owned();
    assert!(stack.contains("/src/lib/fail.ts:4:13") && stack.contains("/src/index.ts:8:"), "{stack}");

    let version = daemon.versions("p").await.remove(0);
    assert_eq!(version.source, VersionSource::Build);
    let deployment = daemon.deployments("p").await.remove(0);
    assert_eq!(deployment.build_log.unwrap().lines().collect::<Vec<_>>(), told);

    // An unchanged project becomes the same version, however it is sent, and its packages are cached.
    let asked = registry.requests();
    assert!(asked > 0);
    let archive = Some(Body::from(tar_gz(folder.path())));
    let packed = DeployRequest { archive, bundle_path: None, ..at("p", &folder) };
    for request in [at("p", &folder), packed] {
        let again = daemon.call(&request).await.unwrap();
        assert_eq!((again.published, again.digest), (false, first.digest));
    }
    assert_eq!(registry.requests(), asked);
    // Changed sources with the same packages do not need the registry either.
    fs::write(folder.path().join("assets/data.txt"), "and more").unwrap();
    let second = daemon.call(&at("p", &folder)).await.unwrap();
    assert!(second.published && second.digest != first.digest);
    assert_eq!(registry.requests(), asked);
    let request =
        DeploymentsRequest { function_id: "p".into(), version: Some("2".into()), ..DeploymentsRequest::default() };
    let deployments = daemon.call(&request).await.unwrap().deployments;
    assert_eq!(deployments.len(), 1);
    assert!(deployments[0].build_log.as_ref().unwrap().contains("from an earlier build"), "{deployments:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_with_their_place_and_leave_nothing_but_a_word() {
    let (daemon, registry) = (TestDaemon::start().await, Registry::start().await);
    daemon.register("p").await;
    let base = [("package.json", r#"{"name":"p","module":"src/index.ts"}"#), ("src/lib.ts", "export const a = 1;")];
    let folder = project(&base);
    let cases = [
        ("// first\nconst x = ;\n", vec![("src/index.ts", 2, 11, "Unexpected ;")]),
        (
            "import { b } from './gone';\nimport c from \"nowhere/c\";\nexport default () => b + c;",
            vec![
                ("src/index.ts", 1, 19, "Could not resolve: \"./gone\""),
                (
                    "src/index.ts",
                    2,
                    15,
                    "Could not resolve: \"nowhere/c\"; for a package, list `nowhere` in the dependencies of a \
                     package.json, with a lockfile",
                ),
            ],
        ),
    ];
    for (source, expected) in cases {
        write(folder.path(), &[("src/index.ts", source)]);
        let error = failed(&daemon, &at("p", &folder)).await;
        let told = problems(error.details.as_ref());
        let told: Vec<_> = told.iter().map(|it| (it.0.as_str(), it.1, it.2, it.3.as_str())).collect();
        assert_eq!(told, expected);
        let first = &expected[0];
        assert!(error.message.contains(&format!("{}:{}:{}: {}", first.0, first.1, first.2, first.3)), "{error:?}");
        let row = daemon.deployments("p").await.remove(0);
        assert_eq!((row.status, row.version.as_str(), row.number), (DeploymentStatus::Failed, "v1", None));
        let log = row.build_log.unwrap();
        assert_eq!(Some(log.as_str()), error.details.as_ref().unwrap()["log"].as_str());
        assert!(log.contains(&format!("error: {}:{}:{}: {}", first.0, first.1, first.2, first.3)), "{log}");
        nothing_is_left(&daemon).await;
    }

    // Failures that concern packages.
    let folder = with_packages(&registry);
    let message = |error: &Error| error.message.clone();
    fs::write(
        folder.path().join("package.json"),
        PACKAGE.replace(r#"{"later":"^1.0.0"}"#, r#"{"later":"npm:words@1.2.0"}"#),
    )
    .unwrap();
    let error = failed(&daemon, &at("p", &folder)).await;
    assert!(message(&error).contains("lockfile had changes"), "{error:?}");
    assert_eq!(error.details.as_ref().unwrap()["step"], "install");
    fs::write(folder.path().join("package.json"), PACKAGE.replace(r#""devDependencies":{"later":"^1.0.0"},"#, ""))
        .unwrap();
    let lockfile = registry.lockfile();
    let start = lockfile.find("sha512-").unwrap();
    let other = lockfile.replace(&lockfile[start..start + 40], &format!("sha512-{}", "A".repeat(33)));
    fs::write(folder.path().join("bun.lock"), other).unwrap();
    let error = failed(&daemon, &at("p", &folder)).await;
    assert!(message(&error).to_lowercase().contains("integrity"), "{error:?}");
    fs::remove_file(folder.path().join("bun.lock")).unwrap();
    let error = failed(&daemon, &at("p", &folder)).await;
    assert!(message(&error).contains("run `bun install`"), "{error:?}");
    fs::write(folder.path().join("bun.lock"), lockfile).unwrap();
    fs::write(folder.path().join("src/index.ts"), "import 'later'; export default 1").unwrap();
    fs::write(
        folder.path().join("package.json"),
        r#"{"name":"p","module":"src/index.ts","dependencies":{"words":"^1.0.0"}}"#,
    )
    .unwrap();
    let error = failed(&daemon, &at("p", &folder)).await;
    assert!(message(&error).contains("is `later` among the dependencies in package.json?"), "{error:?}");
    nothing_is_left(&daemon).await;
    assert_eq!(daemon.versions("p").await, []);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_built_is_for_the_request_to_say_in_the_end() {
    let daemon = TestDaemon::start().await;
    let one = project(&[
        ("index.ts", "import { a } from './a';\nexport default () => new Response(a);"),
        ("a.ts", "export const a: string = 'a';"),
    ]);
    let as_it_is = daemon.call(&at("f", &one)).await.unwrap();
    assert_eq!(daemon.versions("f").await[0].source, VersionSource::Path);
    let rehearsed = daemon.call(&DeployRequest { build: Some(true), dry_run: true, ..at("f", &one) }).await.unwrap();
    assert!(rehearsed.status.name() == "checked" && rehearsed.digest != as_it_is.digest);
    assert_eq!((daemon.versions("f").await.len(), daemon.deployments("f").await.len()), (1, 1));
    let built = daemon.call(&DeployRequest { build: Some(true), ..at("f", &one) }).await.unwrap();
    assert_eq!(built.digest, rehearsed.digest);
    let files: Vec<_> =
        fs::read_dir(daemon.bundle_folder(built.function_id.to_string(), "v2")).unwrap().flatten().collect();
    let mut names: Vec<_> = files.iter().map(|it| it.file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["bundle.js", "bundle.js.map"]);
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "a");
    let code = Some(Body::from(b"export default () => new Response('bytes')".to_vec()));
    let bytes = DeployRequest { build: Some(true), bundle: code, bundle_path: None, ..at("f", &one) };
    daemon.call(&bytes).await.unwrap();
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "bytes");
    // A project with its packages beside it deploys without a build as before.
    let vendored = project(&[
        ("package.json", r#"{"dependencies":{"words":"1"}}"#),
        ("index.js", "import { word } from 'words'; export default () => new Response(word);"),
        ("node_modules/words/index.js", "exports.word = 'vendored';"),
    ]);
    failed(&daemon, &at("f", &vendored)).await;
    daemon.call(&DeployRequest { build: Some(false), ..at("f", &vendored) }).await.unwrap();
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "vendored");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lockfiles_of_others_and_local_packages_will_do() {
    let (daemon, registry) = (TestDaemon::start().await, Registry::start().await);
    let address = registry.address;
    let yarn = format!(
        "# yarn lockfile v1\n\n\nwords@^1.0.0:\n  version \"1.2.0\"\n  resolved \"http://{address}/words/-/words-1.2.0.tgz\"\n"
    );
    let npm = format!(
        r#"{{"name":"p","lockfileVersion":3,"packages":{{"":{{"name":"p","dependencies":{{"words":"^1.0.0"}}}},
        "node_modules/words":{{"version":"1.2.0","resolved":"http://{address}/words/-/words-1.2.0.tgz"}}}}}}"#
    );
    let package = r#"{"name":"p","dependencies":{"words":"^1.0.0"}}"#;
    let index = "import { word } from 'words'; export default () => new Response(word('all'));";
    for (name, lockfile) in [("yarn.lock", yarn), ("package-lock.json", npm)] {
        let npmrc = registry.npmrc();
        let folder = project(&[("package.json", package), (name, &lockfile), (".npmrc", &npmrc), ("index.ts", index)]);
        daemon.call(&at("p", &folder)).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(text(&daemon.invoke("p").await.unwrap()), "a word for all");
    }
    let workspace = project(&[
        ("package.json", r#"{"name":"w","workspaces":["packages/*"],"dependencies":{"inner":"workspace:*"}}"#),
        (
            "bun.lock",
            r#"{"lockfileVersion": 1, "workspaces": {"": {"name": "w", "dependencies": {"inner": "workspace:*"}},
                "packages/inner": {"name": "inner", "version": "1.0.0"}}, "packages": {"inner": ["inner@workspace:packages/inner"]}}"#,
        ),
        ("index.ts", "import { inner } from 'inner'; export default () => new Response(inner);"),
        ("packages/inner/package.json", r#"{"name":"inner","version":"1.0.0","module":"index.ts"}"#),
        ("packages/inner/index.ts", "export const inner: string = 'from a workspace';"),
    ]);
    daemon.call(&at("w", &workspace)).await.unwrap();
    assert_eq!(text(&daemon.invoke("w").await.unwrap()), "from a workspace");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_wait_for_each_other_and_nobody_else_for_them() {
    let daemon = TestDaemon::start_gated(|config| config.build.builds_max = 1).await;
    daemon.deploy_text("f", "export default () => new Response('one');").await;
    daemon.redeploy_text("f", None, "export default () => new Response('two');").await.unwrap();
    let gate = Gate::shut(daemon.data_dir());
    let slow = with_macro(&format!("{} return 'slow';", gate.wait()));
    let (one, first) = (daemon.connect().await, at("f", &slow));
    let first = tokio::spawn(async move { one.call(&first).await.unwrap() });
    gate.until_reached().await;
    let request = DeployRequest { follow: true, ..at("g", &slow) };
    let mut second = daemon.client().call_streaming(&request).expect("it is sent");
    let DeployProgress { line } = second.next_partial().await.map_err(refused).unwrap().expect("a line");
    assert_eq!(line, "waiting for other builds");
    let request = levain::protocol::message::RollbackRequest {
        function_id: "f".into(),
        ..levain::protocol::message::RollbackRequest::default()
    };
    daemon.call(&request).await.unwrap();
    assert!(!first.is_finished(), "a rollback does not wait for a build");
    let request = InvokeRequest { function_id: "f".into(), ..InvokeRequest::default() };
    assert_eq!(text(&daemon.invoke_with(request).await.unwrap()), "one");
    gate.open();
    first.await.unwrap();
    while second.next_partial::<DeployProgress>().await.map_err(refused).unwrap().is_some() {}
    second.finish().await.expect("it is deployed");
    assert_eq!(text(&daemon.invoke("g").await.unwrap()), "slow");
    let waited = |log: Option<&String>| log.is_some_and(|it| it.starts_with("waiting for other builds\n"));
    let logs = [daemon.deployments("f").await.remove(0).build_log, daemon.deployments("g").await.remove(0).build_log];
    assert_eq!(logs.each_ref().map(|it| waited(it.as_ref())), [false, true], "{logs:?}");
    daemon.stop().await;
}
