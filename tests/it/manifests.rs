//! EXPORT_MANIFEST, APPLY_MANIFEST, and the manifests that deployments leave.

use crate::harness::{DaemonProcess, TestDaemon, is_refused, text};
use levain::{
    client::ClientError,
    crash_point::CRASH_AT_VARIABLE,
    error::{Error, ErrorCode},
    model::{DeploymentKind, Digest},
    protocol::{
        field::Body,
        message::{
            ApplyManifestRequest, ApplyManifestResponse, DeployRequest, DeploymentsRequest, ExportManifestRequest,
            Manifest, RegisterRequest, SetAliasRequest, SetTrafficRequest, VersionRef,
        },
    },
};
use std::{fs, path::Path};

fn says(word: &str) -> String {
    format!("export default () => new Response({word:?});")
}

/// Functions `a` and `b` with versions v1 and v2; v2 is live.
async fn two_functions() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    for name in ["a", "b"] {
        daemon.register(name).await;
        for label in ["v1", "v2"] {
            daemon.redeploy_text(name, None, &says(&format!("{name} {label}"))).await.unwrap();
        }
    }
    daemon
}

async fn point(daemon: &TestDaemon, function: &str, alias: &str, version: &str) {
    let request = SetAliasRequest {
        function_id: function.into(),
        name: alias.into(),
        version: VersionRef::Label(version.into()),
        environment: None,
        description: None,
        reason: None,
        dry_run: false,
    };
    daemon.call(&request).await.unwrap();
}

async fn export(daemon: &TestDaemon) -> Manifest {
    daemon.call(&ExportManifestRequest::default()).await.unwrap()
}

fn request(manifest: &Manifest, dry_run: bool) -> ApplyManifestRequest {
    ApplyManifestRequest { manifest: manifest.clone(), dry_run, reason: None }
}

async fn apply(daemon: &TestDaemon, manifest: &Manifest) -> Result<ApplyManifestResponse, Error> {
    daemon.call(&request(manifest, false)).await
}

/// Serialises a manifest without its time.
fn state(manifest: &Manifest) -> String {
    serde_json::to_string(&manifest.functions).unwrap()
}

async fn answers(daemon: &TestDaemon, function: &str) -> String {
    text(&daemon.invoke(function).await.unwrap()).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_brings_back_the_state_it_was_made_of() {
    let daemon = two_functions().await;
    point(&daemon, "a", "STAGING", "v1").await;
    let traffic = SetTrafficRequest {
        function_id: "b".into(),
        version: Some(VersionRef::Number(1)),
        weight: Some(30),
        sticky: Some("cookie:sid".into()),
        ..SetTrafficRequest::default()
    };
    daemon.call(&traffic).await.unwrap();
    let before = export(&daemon).await;
    assert!(state(&before).contains(r#""weight":30"#) && !state(&before).contains("ROLLBACK"), "{before:?}");
    let unchanged = apply(&daemon, &before).await.unwrap();
    assert_eq!((unchanged.changes.len(), unchanged.unchanged), (0, 3));

    point(&daemon, "a", "LIVE", "v1").await;
    point(&daemon, "a", "STAGING", "v2").await;
    point(&daemon, "a", "DEV", "v2").await;
    daemon.redeploy_text("b", None, &says("b v3")).await.unwrap();
    let between = state(&export(&daemon).await);
    let rows = daemon.deployments("a").await.len();
    let shown = daemon.call(&request(&before, true)).await.unwrap();
    let change = |it: &levain::protocol::message::ManifestChange| {
        format!("{}:{} {} -> {}", it.function, it.alias, it.from.as_deref().unwrap_or("-"), it.to)
    };
    let changes: Vec<_> = shown.changes.iter().map(change).collect();
    assert_eq!(changes, ["a:LIVE v1 -> v2", "a:STAGING v2 -> v1", "b:LIVE v3 -> v2 70 %, v1 30 %"]);
    assert_eq!((shown.others.len(), shown.others[0].alias.as_str()), (1, "DEV"));
    assert_eq!(
        (state(&export(&daemon).await), daemon.deployments("a").await.len()),
        (between, rows),
        "a dry run changes nothing"
    );

    let applied = apply(&daemon, &before).await.unwrap();
    assert_eq!(applied.changes.iter().map(change).collect::<Vec<_>>(), changes);
    assert_eq!(applied.changes.iter().map(|it| it.deployments.len()).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!((answers(&daemon, "a").await, answers(&daemon, "a:STAGING").await), ("a v2".into(), "a v1".into()));
    let mut after = export(&daemon).await;
    after.functions[0].aliases.retain(|it| it.name != "DEV");
    assert_eq!(state(&after), state(&before));
    let row = daemon.deployments("a").await.remove(0);
    assert_eq!(row.kind, DeploymentKind::Promote);
    assert_eq!(row.reason.unwrap(), format!("manifest of {}", before.created_at));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_aliases_move_or_none_does() {
    let daemon = two_functions().await;
    let good = export(&daemon).await;
    point(&daemon, "a", "LIVE", "v1").await;
    let before = (state(&export(&daemon).await), daemon.deployments("a").await.len());
    let changed = |change: fn(&mut Manifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        manifest
    };
    let cases: [(Manifest, ErrorCode, &str); 7] = [
        (changed(|it| it.manifest = 2), ErrorCode::InvalidRequest, "form 2"),
        (changed(|it| it.functions[1].name = "gone".into()), ErrorCode::FunctionNotFound, "gone"),
        (changed(|it| it.functions[1].aliases[0].digest = Digest([7; 32])), ErrorCode::VersionNotFound, "other code"),
        (
            changed(|it| {
                it.functions[1].aliases[0].digest = Digest([7; 32]);
                it.functions[1].aliases[0].version = "v7".into();
            }),
            ErrorCode::VersionNotFound,
            "b:LIVE: `b` has no version `v7`",
        ),
        (changed(|it| it.functions[1].aliases[0].name = "ROLLBACK".into()), ErrorCode::Conflict, "ROLLBACK"),
        (changed(|it| it.functions[1].aliases[0].environment = "moon".into()), ErrorCode::InvalidRequest, "LIVE runs"),
        (
            changed(|it| {
                let again = it.functions[1].aliases[0].clone();
                it.functions[1].aliases.push(again);
            }),
            ErrorCode::InvalidRequest,
            "twice",
        ),
    ];
    for (manifest, code, part) in cases {
        let outcome = apply(&daemon, &manifest).await;
        assert!(is_refused(&outcome, code), "{part}: {outcome:?}");
        let message = outcome.unwrap_err().message;
        assert!(message.contains(part), "{message}");
    }
    // All problems are reported at once.
    let twice = changed(|it| it.functions.iter_mut().for_each(|it| it.aliases[0].digest = Digest([7; 32])));
    let problems = apply(&daemon, &twice).await.unwrap_err().details.unwrap();
    assert_eq!(problems["problems"].as_array().unwrap().len(), 2, "{problems}");
    assert_eq!((state(&export(&daemon).await), daemon.deployments("a").await.len()), before);

    // A version that exists but fails to load.
    let id = daemon.info("b").await.function_id;
    point(&daemon, "b", "LIVE", "v1").await;
    let bundle = daemon.bundle_folder(id.to_string(), "v2").join("bundle.js");
    fs::remove_file(&bundle).unwrap();
    fs::write(&bundle, "export default () => 1;").unwrap();
    let outcome = apply(&daemon, &good).await;
    assert!(is_refused(&outcome, ErrorCode::BundleInvalid), "{outcome:?}");
    assert!(outcome.unwrap_err().message.starts_with("nothing is applied: b:LIVE"));
    assert_eq!(answers(&daemon, "a").await, "a v1");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_tells_which_version_is_meant() {
    let daemon = two_functions().await;
    let mut manifest = export(&daemon).await;
    // On another node, equal code may have another label.
    manifest.functions[0].aliases[0].version = "release-7".into();
    point(&daemon, "a", "LIVE", "v1").await;
    apply(&daemon, &manifest).await.unwrap();
    assert_eq!(answers(&daemon, "a").await, "a v2");
    daemon.stop().await;
}

fn files(data: &Path) -> Vec<String> {
    let files = fs::read_dir(data.join("deployments")).unwrap();
    let mut files: Vec<_> = files.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn each_deployment_leaves_its_manifest() {
    let mut daemon = TestDaemon::start_with(|config| config.versioning.manifests_max = 100).await;
    let first = daemon.deploy_text("a", &says("one")).await;
    let second = daemon.redeploy_text("a", None, &says("two")).await.unwrap();
    let of = |id: &str| ExportManifestRequest { function_id: None, deployment_id: Some(id.into()) };
    let manifest = daemon.call(&of(&first.deployment_id)).await.unwrap();
    assert_eq!(manifest.functions[0].aliases[0].version, "v1");
    let about = manifest.deployment.clone().unwrap();
    assert_eq!(
        (about.deployment_id.as_str(), about.function.as_str(), about.alias.as_str()),
        (&*first.deployment_id, "a", "LIVE")
    );
    assert_eq!((about.kind, about.previous_version), (DeploymentKind::Deploy, None));
    let names = [&first, &second].map(|it| format!("manifest-{}.json", it.deployment_id));
    assert_eq!(files(daemon.data_dir()), names);
    assert!(daemon.redeploy_text("a", None, "export default 1").await.is_err());
    assert_eq!(files(daemon.data_dir()), names, "a failed deployment leaves no manifest");
    let missing = daemon.call(&of(&first.function_id.to_string().replace("func", "deploy"))).await;
    assert!(is_refused(&missing, ErrorCode::DeploymentNotFound), "{missing:?}");

    // Returns to the state of the first manifest.
    apply(&daemon, &manifest).await.unwrap();
    assert_eq!(answers(&daemon, "a").await, "one");
    for _ in 0..50 {
        point(&daemon, "a", "STAGING", "v1").await;
        point(&daemon, "a", "STAGING", "v2").await;
    }
    let kept = files(daemon.data_dir());
    assert_eq!(kept.len(), 100, "the oldest manifest is removed");
    assert!(!kept.contains(&names[0]), "{kept:?}");
    // A missing manifest is written when the daemon starts, since the state has not changed.
    let last = kept.last().unwrap();
    fs::remove_file(daemon.data_dir().join("deployments").join(last)).unwrap();
    daemon.restart().await;
    assert_eq!(files(daemon.data_dir()).last(), Some(last));
    daemon.stop().await;
}

/// A daemon that is killed around the manifest's one transaction has moved all aliases or none.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_all_aliases_moved_or_none() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    let live = |document: &Manifest| -> Vec<String> {
        document.functions.iter().map(|it| it.aliases[0].version.clone()).collect()
    };
    let mut first = None;
    for name in ["a", "b", "c"] {
        client.call(&RegisterRequest { name: name.into(), ..RegisterRequest::default() }).await.unwrap();
    }
    for label in ["v1", "v2"] {
        for name in ["a", "b", "c"] {
            let bundle = Some(Body::from(says(label).into_bytes()));
            let request = DeployRequest { function_id: name.into(), bundle, ..DeployRequest::default() };
            client.call(&request).await.unwrap();
        }
        first = first.or(Some(client.call(&ExportManifestRequest::default()).await.unwrap()));
    }
    let first = first.unwrap();
    daemon.kill().await;
    for (step, expected) in [("store.before_commit", "v2"), ("store.committed", "v1")] {
        let mut command = DaemonProcess::serve(data.path()).await;
        command.env(CRASH_AT_VARIABLE, step);
        let daemon = DaemonProcess::spawn(command, data.path()).await;
        let outcome = daemon.client().await.call(&request(&first, false)).await;
        assert!(matches!(outcome, Err(ClientError::Disconnected)), "{step}: {outcome:?}");
        daemon.ended().await;
        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        let found = client.call(&ExportManifestRequest::default()).await.unwrap();
        assert_eq!(live(&found), [expected; 3], "{step}");
        // A committed deployment has its manifest, whenever the daemon died.
        let last = DeploymentsRequest { function_id: "c".into(), limit: Some(1), ..DeploymentsRequest::default() };
        let deployment_id = client.call(&last).await.unwrap().deployments.remove(0).deployment_id;
        let kept = ExportManifestRequest { function_id: None, deployment_id: Some(deployment_id) };
        assert_eq!(live(&client.call(&kept).await.unwrap()).last().unwrap(), expected, "{step}");
        daemon.kill().await;
    }
}
