//! DEPLOY_FUNCTION.

use crate::harness::{TestDaemon, get, is_refused, samples, text};
use levain::{
    config::Verify,
    error::{Error, ErrorCode},
    model::{DeploymentKind, DeploymentStatus, FunctionStatus, SettingsPatch},
    protocol::{
        field::Body,
        message::{DeployRequest, RegisterRequest, WarmupRequest},
    },
};
use std::collections::BTreeMap;

fn body(text: &str) -> Body {
    Body::from(text.as_bytes().to_vec())
}

/// A function that answers with a text.
fn says(word: &str) -> String {
    format!("export default () => new Response({word:?});")
}

fn request(name: &str) -> DeployRequest {
    DeployRequest { function_id: name.into(), ..DeployRequest::default() }
}

fn files(files: &[(&str, &str)]) -> Option<BTreeMap<String, Body>> {
    Some(files.iter().map(|(path, text)| ((*path).to_owned(), body(text))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn code_comes_as_a_file_a_folder_bytes_or_several_files() {
    let daemon = TestDaemon::start().await;
    let lib = "export const word = 'folder';";
    let index = "import { word } from './lib/word.ts'; export default () => new Response(word as string);";
    let folder = samples::folder_of(&[("index.ts", index), ("lib/word.ts", lib), ("one.ts", &says("file"))]);
    daemon.register("f").await;
    let path = |name: &str| Some(folder.path().join(name).to_str().unwrap().to_owned());
    let sources = [
        ("file", DeployRequest { bundle_path: path("one.ts"), ..request("f") }),
        ("folder", DeployRequest { bundle_path: path(""), ..request("f") }),
        ("bytes", DeployRequest { bundle: Some(body(&says("bytes"))), ..request("f") }),
        (
            "typed",
            DeployRequest {
                bundle: Some(body("export default (): Response => new Response('typed' as string);")),
                entry: Some("bundle.ts".into()),
                ..request("f")
            },
        ),
        (
            "several",
            DeployRequest {
                files: files(&[("main.js", "export { default } from './other.js';"), ("other.js", &says("several"))]),
                entry: Some("main.js".into()),
                ..request("f")
            },
        ),
    ];
    for (number, (word, request)) in (1..).zip(sources) {
        let deployed = daemon.call(&request).await.unwrap_or_else(|error| panic!("{word}: {error:?}"));
        assert_eq!((deployed.version.as_str(), deployed.number), (&*format!("v{number}"), number));
        assert_eq!((deployed.status.name(), deployed.published), ("deployed", true));
        assert_eq!(
            deployed.previous_version.map(|it| it.to_string()),
            (number > 1).then(|| format!("v{}", number - 1))
        );
        let answer = daemon.invoke("f").await.unwrap();
        assert_eq!((text(&answer), &answer.version), (word, &deployed.version));
    }
    let info = daemon.info("f").await;
    assert_eq!((info.status, info.active_version.as_deref()), (FunctionStatus::Deployed, Some("v5")));
    assert_eq!((info.aliases[0].name.as_str(), info.aliases[0].version.as_str()), ("LIVE", "v5"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_code_again_publishes_nothing() {
    let daemon = TestDaemon::start().await;
    let first = daemon.deploy_text("f", &says("a")).await;
    for label in [None, Some("v1")] {
        let again = daemon.redeploy_text("f", label, &says("a")).await.unwrap();
        assert_eq!((again.published, again.version.as_str(), again.number), (false, "v1", 1));
        assert_eq!((again.deployment_id, again.digest), (first.deployment_id.clone(), first.digest));
    }
    assert_eq!((daemon.deployments("f").await.len(), daemon.versions("f").await.len()), (1, 1));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_keeps_its_code_and_can_be_activated_again() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    daemon.redeploy_text("f", Some("stable"), &says("a")).await.unwrap();
    let outcome = daemon.redeploy_text("f", Some("stable"), &says("b")).await;
    assert!(is_refused(&outcome, ErrorCode::VersionExists), "{outcome:?}");
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "a");

    daemon.redeploy_text("f", Some("next"), &says("b")).await.unwrap();
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "b");
    let again = daemon.call(&DeployRequest { version: Some("stable".into()), ..request("f") }).await.unwrap();
    assert_eq!(
        (again.published, again.number, again.previous_version.as_ref().map(ToString::to_string).as_deref()),
        (false, 1, Some("next"))
    );
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "a");
    // A label together with its unchanged code is equivalent to the label alone.
    let again = daemon.redeploy_text("f", Some("next"), &says("b")).await.unwrap();
    assert_eq!((again.published, again.number), (false, 2));
    let statuses: Vec<_> = daemon.deployments("f").await.iter().map(|it| (it.number, it.status)).collect();
    use DeploymentStatus::{Active, Superseded};
    assert_eq!(statuses, [(Some(2), Active), (Some(1), Superseded), (Some(2), Superseded), (Some(1), Superseded)]);

    let outcome = daemon.call(&DeployRequest { version: Some("none".into()), ..request("f") }).await;
    assert!(is_refused(&outcome, ErrorCode::VersionNotFound), "{outcome:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_syntax_error_is_refused_with_its_place() {
    let daemon = TestDaemon::start().await;
    let error = daemon.deploy_sample("faulty/syntax-error").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BundleInvalid);
    assert!(error.message.contains("index.js:2:18"), "{}", error.message);
    let details = error.details.unwrap();
    assert_eq!(details["file"], "index.js");
    let place = &details["errors"][0];
    assert_eq!((&place["line"], &place["column"]), (&2.into(), &18.into()), "{details}");
    assert!(place["line_text"].as_str().unwrap().contains("const answer = ;"), "{details}");
    // An error in an imported module is found when the entry is loaded.
    let bad = files(&[("index.js", "import './bad.js'; export default () => {};"), ("bad.js", "let = = 1;\n")]);
    let error = daemon.call(&DeployRequest { files: bad, ..request("syntax-error") }).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BundleInvalid, "{error:?}");
    assert!(error.message.contains("bad.js:1:"), "{}", error.message);
    assert_eq!(daemon.info("syntax-error").await.status, FunctionStatus::Registered);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_without_a_handler_is_refused_with_what_it_exports() {
    let daemon = TestDaemon::start().await;
    let error = daemon.deploy_sample("faulty/no-handler").await.unwrap_err();
    assert_eq!((error.code, &error.details.unwrap()["exports"]), (ErrorCode::BundleInvalid, &["helper"].into()));
    assert!(error.message.contains("helper"), "{}", error.message);
    // Exports that are known only after the module has run are checked then.
    for text in ["module.exports = { helper() {} };", "export default 42;", "export default { helper() {} };"] {
        let error = daemon.redeploy_text("no-handler", None, text).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::BundleInvalid, "{text}: {error:?}");
        assert!(error.message.contains("export"), "{}", error.message);
    }
    assert_eq!(daemon.worker_pids(), [] as [u32; 0]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_load_takes_no_traffic_and_leaves_nothing_but_its_record() {
    let daemon = TestDaemon::start().await;
    let first = daemon.deploy_text("f", &says("good")).await;
    let bad = "console.error('reading the settings');\nprocess.stdout.write('raw words\\n');\n\
               function boot() { throw new RangeError('no database'); }\nboot();\nexport default () => {};";
    let error = daemon.redeploy_text("f", None, bad).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BundleLoadError);
    assert!(error.message.contains("RangeError: no database (bundle.js:3:"), "{}", error.message);
    let details = error.details.unwrap();
    assert!(details["stack"].as_str().unwrap().contains("boot"), "{details}");
    let boot_log = details["boot_log"].to_string();
    assert!(boot_log.contains("reading the settings") && boot_log.contains("raw words"), "{boot_log}");

    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "good");
    let deployments = daemon.deployments("f").await;
    assert_eq!(deployments.len(), 2);
    let failed = &deployments[0];
    assert_eq!((failed.status, failed.version.as_str(), failed.number), (DeploymentStatus::Failed, "v2", None));
    assert_eq!((failed.is_active, deployments[1].is_active), (false, true));
    let log = failed.build_log.as_deref().unwrap();
    assert!(
        log.contains("BUNDLE_LOAD_ERROR") && log.contains("no database") && log.contains("reading the settings"),
        "{log}"
    );
    assert_eq!(daemon.versions("f").await.len(), 1);
    assert!(!daemon.bundle_folder(first.function_id.to_string(), "v2").exists());
    assert_eq!(daemon.worker_pids().len(), 1);
    // The label is free for the corrected code.
    let fixed = daemon.redeploy_text("f", None, &says("fixed")).await.unwrap();
    assert_eq!((fixed.version.as_str(), text(&daemon.invoke("f").await.unwrap())), ("v2", "fixed"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_ends_or_blocks_its_worker_while_it_loads_is_refused() {
    let daemon = TestDaemon::start_with(|config| config.workers.start_timeout_ms = 2_000).await;
    daemon.register("f").await;
    let bad = [
        ("console.error('bye'); process.exit(7); export default () => {};", "bye"),
        ("console.error('spinning'); for (;;); export default () => {};", "spinning"),
        ("console.error('waiting'); await new Promise(() => {}); export default () => {};", "waiting"),
    ];
    let is_refused = async |(text, word): (&str, &str)| {
        daemon.register(word).await;
        let error = daemon.redeploy_text(word, None, text).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::BundleLoadError, "{error:?}");
        assert!(error.details.as_ref().unwrap()["boot_log"].to_string().contains(word), "{word}: {error:?}");
    };
    futures_util::future::join_all(bad.map(is_refused)).await;
    let error = daemon.redeploy_text("f", None, "import 'left-pad'; export default () => {};").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BundleLoadError, "{error:?}");
    assert!(error.message.contains("left-pad"), "{}", error.message);
    assert_eq!(daemon.worker_pids(), [] as [u32; 0]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_bundle_is_refused() {
    let daemon = TestDaemon::start_with(|config| config.limits.bundle_bytes_max = 1024).await;
    daemon.register("f").await;
    let folder = samples::folder_of(&[("notes.txt", "words"), ("sub/a.js", ""), ("sub/b.js", "")]);
    let path = |name: &str| Some(folder.path().join(name).to_str().unwrap().to_owned());
    let code = || Some(body(&says("a")));
    use ErrorCode::{BundleInvalid, BundleNotFound, FunctionNotFound, InvalidRequest, PayloadTooLarge};
    let bad: Vec<(ErrorCode, DeployRequest)> = vec![
        (BundleNotFound, DeployRequest { bundle_path: path("missing.js"), ..request("f") }),
        (InvalidRequest, DeployRequest { bundle_path: Some("index.js".into()), ..request("f") }),
        (BundleInvalid, DeployRequest { bundle_path: path("notes.txt"), ..request("f") }),
        (BundleInvalid, DeployRequest { bundle_path: path("sub"), ..request("f") }),
        (BundleInvalid, DeployRequest { bundle: Some(Body::from(vec![b'/', b'/', 0xff, 0xfe])), ..request("f") }),
        (PayloadTooLarge, DeployRequest { bundle: Some(body(&format!("//{}", "x".repeat(1024)))), ..request("f") }),
        (FunctionNotFound, DeployRequest { bundle: code(), ..request("nobody") }),
        (InvalidRequest, DeployRequest { bundle: code(), bundle_path: path("sub/a.js"), ..request("f") }),
        (InvalidRequest, DeployRequest { bundle: code(), files: files(&[("a.js", "")]), ..request("f") }),
        (InvalidRequest, request("f")),
        (InvalidRequest, DeployRequest { version: Some("no blanks".into()), bundle: code(), ..request("f") }),
        (InvalidRequest, DeployRequest { description: Some("x".repeat(5000)), bundle: code(), ..request("f") }),
        (InvalidRequest, DeployRequest { tags: vec![String::new()], bundle: code(), ..request("f") }),
        (BundleInvalid, DeployRequest { files: files(&[]), ..request("f") }),
        (BundleInvalid, DeployRequest { files: files(&[("index.js", ""), ("../up.js", "")]), ..request("f") }),
        (
            BundleInvalid,
            DeployRequest { files: files(&[("index.js", "")]), entry: Some("b.js".into()), ..request("f") },
        ),
    ];
    for (code, request) in bad {
        let outcome = daemon.call(&request).await;
        assert!(is_refused(&outcome, code), "{code}: {request:?}: {outcome:?}");
    }
    assert_eq!(daemon.versions("f").await.len(), 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_alias_takes_the_version_and_live_stays() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let to = |alias: &str, word: &str| DeployRequest {
        bundle: Some(body(&says(word))),
        alias: Some(alias.into()),
        ..request("f")
    };
    let first = daemon.call(&to("STAGING", "a")).await.unwrap();
    assert_eq!((first.alias.as_str(), first.environment.as_str(), first.published), ("STAGING", "staging", true));
    assert!(is_refused(&daemon.invoke("f").await, ErrorCode::FunctionNotDeployed));
    assert_eq!(daemon.info("f").await.status, FunctionStatus::Built);
    daemon.call(&to("LIVE", "b")).await.unwrap();
    let third = daemon.call(&to("STAGING", "c")).await.unwrap();
    assert_eq!(
        (third.version.as_str(), third.previous_version.as_ref().map(ToString::to_string).as_deref()),
        ("v3", Some("v1"))
    );
    // A version that the alias points at is not published again, wherever LIVE points.
    let again = daemon.call(&to("STAGING", "c")).await.unwrap();
    assert_eq!((again.deployment_id, again.published), (third.deployment_id, false));
    for (function, word) in [("f", "b"), ("f:STAGING", "c"), ("f:v1", "a"), ("f:2", "b")] {
        assert_eq!(text(&daemon.invoke(function).await.unwrap()), word, "{function}");
    }
    let bad = daemon.call(&DeployRequest { alias: Some("a b".into()), ..to("LIVE", "d") }).await;
    assert!(is_refused(&bad, ErrorCode::InvalidRequest), "{bad:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_can_be_built_without_taking_traffic() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let inactive =
        |word: &str| DeployRequest { bundle: Some(body(&says(word))), activate: Some(false), ..request("f") };
    let built = daemon.call(&inactive("a")).await.unwrap();
    assert_eq!((built.status.name(), built.published, built.previous_version), ("built", true, None));
    assert!(is_refused(&daemon.invoke("f").await, ErrorCode::FunctionNotDeployed));
    assert_eq!(daemon.info("f").await.status, FunctionStatus::Built);
    assert_eq!(text(&daemon.invoke("f:v1").await.unwrap()), "a");

    daemon.redeploy_text("f", None, &says("b")).await.unwrap();
    daemon.call(&inactive("c")).await.unwrap();
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "b");
    assert_eq!(text(&daemon.invoke("f:v3").await.unwrap()), "c");
    // Code and labels that exist already are handled likewise.
    let again = daemon.call(&DeployRequest { version: Some("v1".into()), ..inactive("a") }).await.unwrap();
    assert_eq!((again.status.name(), again.published, again.version.as_str()), ("built", false, "v1"));
    let again = DeployRequest { version: Some("v3".into()), activate: Some(false), ..request("f") };
    assert_eq!(daemon.call(&again).await.unwrap().status.name(), "built");
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "b");
    let statuses: Vec<_> = daemon.deployments("f").await.iter().map(|it| it.status).collect();
    use DeploymentStatus::{Active, Built};
    assert_eq!(statuses, [Built, Active, Built]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_checks_everything_and_leaves_nothing() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let dry = |text: &str| DeployRequest { bundle: Some(body(text)), dry_run: true, ..request("f") };
    let checked = daemon.call(&dry(&says("a"))).await.unwrap();
    assert_eq!((checked.status.name(), checked.published, checked.deployment_id.as_str()), ("checked", false, ""));
    let outcome = daemon.call(&dry("throw new Error('no'); export default () => {};")).await;
    assert!(is_refused(&outcome, ErrorCode::BundleLoadError), "{outcome:?}");
    assert_eq!((daemon.versions("f").await.len(), daemon.deployments("f").await.len()), (0, 0));
    assert!(!daemon.bundle_folder(checked.function_id.to_string(), "v1").exists());
    daemon.until_no_workers().await;
    // A dry run does not use up a number, and a dry run of the live version changes nothing either.
    assert_eq!(daemon.redeploy_text("f", None, &says("a")).await.unwrap().number, 1);
    daemon.redeploy_text("f", None, &says("b")).await.unwrap();
    let again = daemon.call(&DeployRequest { version: Some("v1".into()), ..dry(&says("a")) }).await.unwrap();
    assert_eq!((again.status.name(), again.deployment_id.as_str()), ("checked", ""));
    let label = DeployRequest { version: Some("v1".into()), dry_run: true, ..request("f") };
    assert_eq!(daemon.call(&label).await.unwrap().status.name(), "checked");
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "b");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_may_get_a_share_instead_of_all_calls() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", &says("a")).await;
    let share = |percent: u32, word: &str| DeployRequest {
        bundle: Some(body(&says(word))),
        weight: Some(percent),
        ..request("f")
    };
    let shared = daemon.call(&share(100, "b")).await.unwrap();
    assert_eq!((shared.status.name(), shared.published, shared.version.as_str()), ("deployed", true, "v2"));
    assert_eq!(
        (shared.weight, shared.previous_version.as_ref().map(ToString::to_string).as_deref()),
        (Some(100), Some("v1"))
    );
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "b");
    assert_eq!(
        daemon.info("f").await.active_version.as_deref(),
        Some("v1"),
        "the shared version is the alias's second"
    );
    let row = daemon.deployments("f").await.remove(0);
    assert_eq!((row.status, row.weight, row.is_active), (DeploymentStatus::Applied, shared.weight, false));
    // The second version's share may change, by its label; an identical request is the same deployment.
    let own = |percent: u32| DeployRequest { version: Some("v2".into()), bundle: None, ..share(percent, "") };
    let none = daemon.call(&own(0)).await.unwrap();
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "a");
    assert_eq!(daemon.call(&own(0)).await.unwrap().deployment_id, none.deployment_id);

    let staging = DeployRequest { alias: Some("STAGING".into()), ..share(10, "c") };
    let contradiction = DeployRequest { activate: Some(false), ..share(10, "c") };
    daemon.register("g").await;
    let first = DeployRequest { function_id: "g".into(), ..share(10, "c") };
    let target = DeployRequest { version: Some("v1".into()), bundle: None, ..share(10, "") };
    for (code, request, word) in [
        (ErrorCode::Conflict, share(10, "c"), "`v1` and `v2` (0 %)"),
        (ErrorCode::Conflict, target, "points at `v1` already"),
        (ErrorCode::AliasNotFound, staging, "no calls to share"),
        (ErrorCode::FunctionNotDeployed, first, "no calls to share"),
        (ErrorCode::InvalidRequest, contradiction, "`weight`"),
        (ErrorCode::InvalidRequest, share(101, "c"), "101"),
    ] {
        let outcome = daemon.call(&request).await;
        assert!(is_refused(&outcome, code), "{code}: {outcome:?}");
        let message = outcome.unwrap_err().message;
        assert!(message.contains(word), "{message}");
    }
    assert_eq!((daemon.versions("f").await.len(), daemon.versions("g").await.len()), (2, 0));
    // A deploy without a share ends the split.
    daemon.redeploy_text("f", None, &says("c")).await.unwrap();
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "c");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_new_is_made_if_that_is_asked_for() {
    let daemon = TestDaemon::start().await;
    let new = DeployRequest { bundle: Some(body(&says("a"))), create: true, ..request("f") };
    assert_eq!(daemon.call(&new).await.unwrap().version, "v1");
    assert_eq!(daemon.call(&DeployRequest { bundle: Some(body(&says("b"))), ..new.clone() }).await.unwrap().number, 2);
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "b");
    let unnamed = daemon.call(&DeployRequest { function_id: "no name".into(), ..new.clone() }).await;
    assert!(is_refused(&unnamed, ErrorCode::InvalidRequest), "{unnamed:?}");
    for request in [
        DeployRequest { create: false, function_id: "g".into(), ..new.clone() },
        DeployRequest { function_id: "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".into(), ..new.clone() },
        DeployRequest { function_id: "g".into(), bundle: None, version: Some("v1".into()), ..new },
    ] {
        let outcome = daemon.call(&request).await;
        assert!(is_refused(&outcome, ErrorCode::FunctionNotFound), "{outcome:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_syntax_check_only_nothing_is_loaded_before_the_first_call() {
    let daemon = TestDaemon::start_with(|config| config.versioning.verify = Verify::Syntax).await;
    daemon.register("f").await;
    let outcome = daemon.redeploy_text("f", None, "export default ( => 1;").await;
    assert!(is_refused(&outcome, ErrorCode::BundleInvalid), "{outcome:?}");
    daemon.redeploy_text("f", None, "throw new Error('late'); export default () => {};").await.unwrap();
    assert_eq!(daemon.worker_pids(), [] as [u32; 0]);
    let error: Error = daemon.invoke("f").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BundleLoadError);
    assert!(error.message.contains("late"), "{}", error.message);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_warm_before_the_traffic_moves() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let warm = DeployRequest { bundle: Some(body(&says("a"))), warm: Some(3), ..request("f") };
    daemon.call(&warm).await.unwrap();
    assert_eq!(daemon.pools("f").await[0].idle, 3);
    // The function's own floor counts too, and its ceiling limits both.
    daemon
        .register_with(
            "g",
            SettingsPatch { warm_workers: Some(2), max_concurrent_executions: Some(2), ..SettingsPatch::default() },
        )
        .await;
    daemon.call(&DeployRequest { function_id: "g".into(), ..warm }).await.unwrap();
    assert_eq!(daemon.pools("g").await[0].idle, 2);
    let warmup = WarmupRequest { function_id: "g".into(), count: 2, qualifier: None };
    assert_eq!(daemon.call(&warmup).await.unwrap().warm, 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_of_a_version_is_kept() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let request = DeployRequest {
        bundle: Some(body(&says("a"))),
        description: Some("the first — «ok»".into()),
        tags: vec!["blue".into(), "release".into()],
        git_commit: Some("0123abc".into()),
        git_branch: Some("main".into()),
        reason: Some("ticket 7".into()),
        ..request("f")
    };
    let deployed = daemon.call(&request).await.unwrap();
    let version = daemon.versions("f").await.remove(0);
    assert_eq!((version.description, version.tags), (request.description, request.tags));
    assert_eq!((version.git_commit, version.git_branch), (request.git_commit, request.git_branch));
    assert_eq!((version.digest, version.size), (deployed.digest, says("a").len() as u64));
    assert_eq!(std::fs::read_to_string(&version.bundle_path).unwrap(), says("a"));
    let deployment = daemon.deployments("f").await.remove(0);
    assert_eq!((deployment.kind, deployment.reason), (DeploymentKind::Deploy, request.reason));
    assert_eq!(deployment.actor, format!("uid:{}", nix::unistd::geteuid()));
    assert!(deployment.created_at <= deployment.finished_at);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_have_many_forms() {
    let daemon = TestDaemon::start().await;
    let ok = "() => new Response('ok')";
    let forms = [
        ("default", format!("export default {ok};")),
        ("default", format!("const f = {ok}; export {{ f as default }};")),
        ("default", format!("export default {{ fetch: {ok} }};")),
        ("default", "export default { word: 'ok', fetch() { return new Response(this.word); } };".into()),
        ("default", "export default async function (req) { await req.text(); return new Response('ok'); }".into()),
        ("main", format!("export const main = {ok};")),
        ("main", "export function main() { return new Response('ok'); }".into()),
        ("handler", format!("export default {ok};")),
        ("handler", format!("export const handler = {ok};")),
        ("default", format!("module.exports = {ok};")),
        ("default", format!("module.exports = {{ fetch: {ok} }};")),
        ("main", format!("exports.main = {ok};")),
        ("handler", format!("module.exports.handler = {ok};")),
        (
            "default",
            format!("Object.defineProperty(exports, '__esModule', {{ value: true }}); exports.default = {ok};"),
        ),
    ];
    for (number, (handler, code)) in forms.into_iter().enumerate() {
        let name = format!("f{number}");
        let register =
            RegisterRequest { name: name.clone(), handler: Some(handler.into()), ..RegisterRequest::default() };
        daemon.call(&register).await.unwrap();
        let deployed = daemon.redeploy_text(&name, None, &code).await;
        assert!(deployed.is_ok(), "{handler}: {code}: {deployed:?}");
        let answer = daemon.invoke_with(get(&name, "/")).await.unwrap();
        assert_eq!((text(&answer), answer.status), ("ok", 200), "{handler}: {code}: {answer:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_code_is_the_same_version_wherever_it_goes() {
    let daemon = TestDaemon::start().await;
    let first = daemon.deploy_text("f", &says("a")).await;
    let code = || DeployRequest { bundle: Some(body(&says("a"))), ..request("f") };
    let of_preview = DeployRequest { preview: Some("pr".into()), ..code() };
    let told = DeployRequest {
        alias: Some("STAGING".into()),
        description: Some("again".into()),
        tags: vec!["t".into()],
        git_commit: Some("c0ffee".into()),
        ..code()
    };
    for again in [
        of_preview,
        told,
        DeployRequest { alias: Some("DEV".into()), files: files(&[("bundle.js", &says("a"))]), bundle: None, ..code() },
    ] {
        let again = daemon.call(&again).await.unwrap();
        assert_eq!((again.status.name(), again.published, again.version.as_str()), ("deployed", false, "v1"));
    }
    for alias in ["LIVE", "STAGING", "DEV", "preview-pr"] {
        let answer = daemon.invoke(&format!("f:{alias}")).await.unwrap();
        assert_eq!((text(&answer), answer.version.as_str()), ("a", "v1"), "{alias}");
    }
    let versions = daemon.versions("f").await;
    assert_eq!(versions.len(), 1);
    assert_eq!((&versions[0].description, versions[0].tags.len(), &versions[0].git_commit), (&None, 0, &None));
    // Settings belong to the function, not to a version.
    daemon.update("f", SettingsPatch { timeout_seconds: Some(7), ..SettingsPatch::default() }).await.unwrap();
    daemon.redeploy_text("f", None, &says("b")).await.unwrap();
    let back = daemon.call(&code()).await.unwrap();
    assert_eq!(
        (back.published, back.number, back.previous_version.as_ref().map(ToString::to_string).as_deref()),
        (false, 1, Some("v2"))
    );
    // Another label is another version.
    let labelled = daemon.call(&DeployRequest { version: Some("stable".into()), ..code() }).await.unwrap();
    assert_eq!((labelled.published, labelled.number, labelled.digest), (true, 3, first.digest));
    // So is another entry.
    let other = files(&[("main.js", &says("a"))]);
    let other = DeployRequest { files: other, entry: Some("main.js".into()), bundle: None, ..code() };
    assert!(daemon.call(&other).await.unwrap().published);
    // A damaged version is not reused: the code is published again.
    let bundle = daemon.bundle_folder(first.function_id.to_string(), "v1").join("bundle.js");
    let mut permissions = std::fs::metadata(&bundle).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&bundle, permissions).unwrap();
    std::fs::write(&bundle, "export default 1").unwrap();
    let bundle = daemon.bundle_folder(first.function_id.to_string(), "stable");
    std::fs::rename(&bundle, daemon.data_dir().join("away")).unwrap();
    let mended = daemon.call(&DeployRequest { alias: Some("canary".into()), ..code() }).await.unwrap();
    assert_eq!((mended.published, mended.version.as_str()), (true, "v5"));
    std::fs::rename(daemon.data_dir().join("away"), &bundle).unwrap();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_is_not_the_number_of_another_version() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    for label in ["2", "v2", "V2", "02", "v02", "0", "v0", "4294967295"] {
        for dry_run in [true, false] {
            let request = DeployRequest {
                version: Some(label.into()),
                bundle: Some(body(&says(label))),
                dry_run,
                ..request("f")
            };
            let outcome = daemon.call(&request).await;
            assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{label}: {outcome:?}");
            let message = outcome.unwrap_err().message;
            assert!(message.contains(&format!("`{label}`")) && message.contains("number 1"), "{message}");
        }
    }
    for (number, label) in (1..).zip(["v1", "2", "1.4.0", "v4.0", "20260101120000", "v", "v7", "v8b"]) {
        let deployed = daemon.redeploy_text("f", Some(label), &says(label)).await.unwrap();
        assert_eq!((deployed.version.as_str(), deployed.number), (label, number));
        assert_eq!(text(&daemon.invoke(&format!("f:{label}")).await.unwrap()), label);
        assert_eq!(text(&daemon.invoke(&format!("f:{number}")).await.unwrap()), label);
    }
    daemon.stop().await;
}
