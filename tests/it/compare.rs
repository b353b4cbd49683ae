//! COMPARE_VERSIONS.

use crate::harness::{TestDaemon, is_refused};
use levain::{
    error::{Error, ErrorCode},
    model::{Network, SettingsPatch, VersionSource},
    protocol::message::{CompareRequest, CompareResponse, DeployRequest, VersionRef},
};
use serde_json::json;
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

const V1: &str = "export default () =>\n  new Response('one');\n";
const V2: &str = "export default () =>\n  new Response('two');\n";

fn request(from: impl Into<VersionRef>, to: impl Into<VersionRef>) -> CompareRequest {
    CompareRequest { function_id: "f".into(), from: from.into(), to: to.into() }
}

async fn compare(daemon: &TestDaemon, from: &str, to: &str) -> Result<CompareResponse, Error> {
    daemon.call(&request(from, to)).await
}

fn files(files: &[(&str, &[u8])]) -> DeployRequest {
    let files: BTreeMap<_, _> = files.iter().map(|(path, bytes)| ((*path).into(), bytes.to_vec().into())).collect();
    DeployRequest { function_id: "f".into(), files: Some(files), ..DeployRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_settings_and_files_that_differ_are_shown() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let logo = b"\x89PNG\0\xff";
    let first = DeployRequest {
        git_branch: Some("main".into()),
        ..files(&[("index.js", V1.as_bytes()), ("lib/old.js", b"1;\n"), ("same.txt", b"same"), ("logo.png", b"\0")])
    };
    daemon.call(&first).await.unwrap();
    let patch = SettingsPatch { timeout_seconds: Some(5), network: Some(Network::Off), ..SettingsPatch::default() };
    daemon.update("f", patch).await.unwrap();
    let second = DeployRequest {
        description: Some("second".into()),
        tags: vec!["t".into()],
        git_commit: Some("0123".into()),
        ..files(&[("index.js", V2.as_bytes()), ("lib/new.js", b"1;\n"), ("same.txt", b"same"), ("logo.png", logo)])
    };
    daemon.call(&second).await.unwrap();

    let response = compare(&daemon, "v1", "v2").await.unwrap();
    let versions = daemon.versions("f").await;
    for (side, version) in [(&response.from, &versions[1]), (&response.to, &versions[0])] {
        assert_eq!((&side.version, side.number, side.digest), (&version.version, version.number, version.digest));
        assert_eq!((side.size, side.created_at, &side.tags), (version.size, version.created_at, &version.tags));
        assert_eq!((&side.description, &side.bun_version), (&version.description, &version.bun_version));
        assert_eq!((&side.git_commit, &side.git_branch), (&version.git_commit, &version.git_branch));
        assert_eq!((side.entry.as_str(), side.source), ("index.js", VersionSource::Upload));
    }
    assert!(!response.same_code && !response.truncated);
    let settings: Vec<_> = response.settings.iter().map(|it| (it.key.as_str(), &it.from, &it.to)).collect();
    assert_eq!(settings, [("network", &json!("on"), &json!("off")), ("timeout_seconds", &json!(30), &json!(5))]);
    let shown: Vec<_> = response.files.iter().map(|it| (it.path.as_str(), it.change.as_str(), it.binary)).collect();
    assert_eq!(
        shown,
        [("index.js", "changed", false), ("lib/new.js", "renamed", false), ("logo.png", "changed", true)]
    );
    let diff = "--- v1/index.js\n+++ v2/index.js\n@@ -1,2 +1,2 @@\n export default () =>\n-  new Response('one');\n\
                +  new Response('two');\n";
    assert_eq!(response.files[0].diff.as_deref(), Some(diff));
    assert_eq!(response.files[1].renamed_from.as_deref(), Some("lib/old.js"));
    assert_eq!(
        (response.files[2].from_size, response.files[2].to_size, &response.files[2].diff),
        (Some(1), Some(6), &None)
    );

    // Numbers and aliases are equivalent to labels, and swapping the sides swaps the answer.
    assert_eq!(daemon.call(&request(VersionRef::Number(1), "2")).await.unwrap(), response);
    assert_eq!(compare(&daemon, "ROLLBACK", "LIVE").await.unwrap(), response);
    let back = compare(&daemon, "LIVE", "ROLLBACK").await.unwrap();
    assert_eq!((&back.from, &back.to), (&response.to, &response.from));
    assert!(back.files[0].diff.as_ref().is_some_and(|it| it.contains("-  new Response('two')")));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_code_differs_in_nothing_but_its_settings() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", V1).await;
    let patch = SettingsPatch { memory_mb: Some(128), ..SettingsPatch::default() };
    daemon.update("f", patch).await.unwrap();
    daemon.redeploy_text("f", Some("again"), V1).await.unwrap();
    let response = compare(&daemon, "v1", "again").await.unwrap();
    assert!(response.same_code && response.files.is_empty(), "{response:?}");
    assert_eq!(response.settings.len(), 1);
    let itself = compare(&daemon, "LIVE", "again").await.unwrap();
    assert!(itself.same_code && itself.settings.is_empty() && itself.from == itself.to);
    // A single file has the same digest under any name.
    daemon.call(&files(&[("index.js", V1.as_bytes())])).await.unwrap();
    let moved = compare(&daemon, "v1", "LIVE").await.unwrap();
    assert!(!moved.same_code && moved.from.digest == moved.to.digest);
    assert_eq!(moved.files.iter().map(|it| it.change.as_str()).collect::<Vec<_>>(), ["renamed"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_fits_into_its_frame() {
    let daemon = TestDaemon::start_with(|config| config.limits.frame_bytes_max = 131_072).await;
    daemon.register("f").await;
    // JSON writes six bytes for one of these.
    let filler = |word: &str| format!("{V1}// {word}{}", "\u{1}".repeat(12_000));
    let names: Vec<_> = (0..8).map(|index| format!("file-{index}.js")).collect();
    for word in ["one", "two"] {
        let texts: Vec<_> = names.iter().map(|name| (name.as_str(), filler(word))).collect();
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in &texts {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let request = DeployRequest {
            function_id: "f".into(),
            bundle_path: Some(folder.path().to_str().unwrap().into()),
            entry: Some("file-0.js".into()),
            ..DeployRequest::default()
        };
        daemon.call(&request).await.unwrap();
    }
    let response = compare(&daemon, "v1", "v2").await.unwrap();
    assert!(response.truncated && response.files.len() == 8, "{response:?}");
    let noted = response.files.iter().filter(|it| it.diff.is_none());
    let notes: Vec<_> = noted.map(|it| it.note.as_deref().unwrap()).collect();
    assert!(!notes.is_empty() && notes.iter().all(|note| note.contains("too long for this answer")), "{notes:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_told() {
    let daemon = TestDaemon::start().await;
    let id = daemon.deploy_text("f", V1).await.function_id;
    let cases = [
        ("v1", "v9", ErrorCode::VersionNotFound),
        ("9", "v1", ErrorCode::VersionNotFound),
        ("STAGING", "v1", ErrorCode::VersionNotFound),
        ("LIVE", "ROLLBACK", ErrorCode::VersionNotFound),
    ];
    for (from, to, code) in cases {
        let outcome = compare(&daemon, from, to).await;
        assert!(is_refused(&outcome, code), "{from} {to}: {outcome:?}");
    }
    let outcome = daemon.call(&request(VersionRef::Number(9), "v1")).await;
    assert!(is_refused(&outcome, ErrorCode::VersionNotFound), "{outcome:?}");
    let nobody = CompareRequest { function_id: "nobody".into(), ..request("v1", "v1") };
    assert!(is_refused(&daemon.call(&nobody).await, ErrorCode::FunctionNotFound));
    daemon.register("built").await;
    let not_live = CompareRequest { function_id: "built".into(), ..request("LIVE", "v1") };
    assert!(is_refused(&daemon.call(&not_live).await, ErrorCode::VersionNotFound));

    // Comparing a bundle that was tampered with would mislead, so it is refused.
    daemon.redeploy_text("f", None, V2).await.unwrap();
    let file = daemon.bundle_folder(id.to_string(), "v1").join("bundle.js");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "changed").unwrap();
    assert!(is_refused(&compare(&daemon, "v1", "v2").await, ErrorCode::BundleInvalid));
    let folder = file.parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir_all(folder).unwrap();
    assert!(is_refused(&compare(&daemon, "v1", "v2").await, ErrorCode::BundleNotFound));
    daemon.stop().await;
}
