//! The sample functions of `bundles/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder of a sample, such as `hello` or `faulty/throws`.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles").join(name);
    assert!(folder.is_dir(), "there is no sample {name}");
    folder
}

/// A temporary folder with these files, removed when the value is dropped.
pub fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// The parsed `request.json` of a sample.
pub fn request(name: &str) -> serde_json::Value {
    let text = fs::read_to_string(folder(name).join("request.json")).expect("every sample has a test request");
    serde_json::from_str(&text).expect("a test request is JSON")
}

/// Names of all samples below a folder of `bundles/`.
pub fn names(below: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles").join(below);
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().join("request.json").exists())
        .map(|entry| Path::new(below).join(entry.file_name()).to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "there are no samples in {below}");
    names
}
