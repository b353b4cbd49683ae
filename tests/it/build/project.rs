//! Projects that tests deploy, as they are on a developer's disk.

use crate::harness::{TestDaemon, workers_of};
use levain::protocol::message::DeployRequest;
use serde_json::Value;
use std::{fs, path::Path};
use tempfile::TempDir;

/// A folder with these files.
pub fn project(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    folder
}

pub fn write(folder: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A project that is built because it has no obvious entry; a macro makes its answer at build time.
pub fn with_macro(body: &str) -> TempDir {
    let made = format!("export async function made() {{ {body} }}");
    project(&[
        (
            "src/index.ts",
            "import { made } from './made' with { type: 'macro' };\nconst told = made();\nexport default () => new Response(told);",
        ),
        ("src/made.ts", &made),
    ])
}

pub fn at(name: &str, folder: &TempDir) -> DeployRequest {
    let bundle_path = Some(folder.path().to_str().unwrap().to_owned());
    DeployRequest { function_id: name.into(), bundle_path, create: true, ..DeployRequest::default() }
}

/// The problems of a failed build: file, line, column and message of each.
pub fn problems(details: Option<&Value>) -> Vec<(String, u64, u64, String)> {
    let problems = details.and_then(|it| it["problems"].as_array()).expect("there are problems");
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let number = |it: &Value| it.as_u64().unwrap_or(0);
    problems
        .iter()
        .map(|it| (text(&it["file"]), number(&it["line"]), number(&it["column"]), text(&it["message"])))
        .collect()
}

/// Waits until only the store remembers the build: no process, no file of the project or the bundle is left.
pub async fn nothing_is_left(daemon: &TestDaemon) {
    crate::harness::until("the build's folder is removed", || async {
        let run = fs::read_dir(daemon.data_dir().join("run")).unwrap().flatten();
        let places = run.filter(|it| !it.file_name().to_string_lossy().starts_with("root-")).count();
        (places == 0 && workers_of(daemon.data_dir()).is_empty()).then_some(())
    })
    .await;
    assert_eq!(fs::read_dir(daemon.data_dir().join("incoming")).unwrap().count(), 0);
    let bundles = fs::read_dir(daemon.data_dir().join("bundles")).unwrap().flatten().map(|it| it.path());
    let left: Vec<_> = bundles.flat_map(|it| fs::read_dir(it).unwrap().flatten()).map(|it| it.path()).collect();
    assert_eq!(left, [] as [std::path::PathBuf; 0]);
}
