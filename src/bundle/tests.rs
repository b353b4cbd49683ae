//! The bundle store on a real disk: digests, limits, refusals, and a crash at each step.

use super::*;
use crate::crash_point::{CRASH_AT_VARIABLE, STEPS};
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

const LIMITS: BundleLimits = BundleLimits { bytes_max: 1_000, files_max: 3 };

/// Folder in which the child of a crash test works.
const FOLDER_VARIABLE: &str = "LEVAIN_TEST_BUNDLES";

fn scratch() -> (tempfile::TempDir, BundleStore) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = BundleStore::open(&folder.path().join("bundles")).expect("opens");
    (folder, store)
}

fn label(text: &str) -> VersionLabel {
    text.parse().expect("a label")
}

fn bytes(path: &str, content: &str) -> (String, Content) {
    (path.to_owned(), Content::Bytes(content.to_owned().into()))
}

fn one_file(store: &BundleStore) -> Staged {
    store.stage([bytes("bundle.js", "export default 1")], "bundle.js", LIMITS).expect("stages")
}

fn names(folder: &Path) -> Vec<String> {
    children(folder).expect("a folder").into_iter().map(|it| it.0).collect()
}

#[test]
fn the_digest_of_one_file_is_that_of_its_bytes() {
    let (_folder, store) = scratch();
    let staged = one_file(&store);
    assert_eq!(staged.digest(), Digest(Sha256::digest("export default 1").into()));
    assert_eq!((staged.size(), staged.entry()), (16, "bundle.js"));
}

#[test]
fn the_digest_of_several_files_tells_where_each_begins_and_not_how_they_came() {
    let (_folder, store) = scratch();
    let digest = |files: Vec<(String, Content)>| {
        let entry = files[0].0.clone();
        store.stage(files, &entry, LIMITS).expect("stages").digest()
    };
    let forth = digest(vec![bytes("a.js", "one"), bytes("lib/b.js", "two")]);
    let back = digest(vec![bytes("lib/b.js", "two"), bytes("a.js", "one")]);
    assert_eq!(forth, back);

    let mut expected = Vec::new();
    for (path, content) in [("a.js", "one"), ("lib/b.js", "two")] {
        expected.extend((path.len() as u64).to_le_bytes());
        expected.extend(path.bytes());
        expected.extend(3_u64.to_le_bytes());
        expected.extend(content.bytes());
    }
    assert_eq!(forth, Digest(Sha256::digest(&expected).into()));

    assert_ne!(forth, digest(vec![bytes("a.js", "onet"), bytes("lib/b.js", "wo")]));
    assert_ne!(forth, digest(vec![bytes("a.js", "one"), bytes("lib/c.js", "two")]));
    assert_ne!(forth, digest(vec![bytes("a.js", "one"), bytes("lib.b.js", "two")]));
}

#[test]
fn files_are_hashed_in_the_byte_order_of_their_whole_paths() {
    let (_folder, store) = scratch();
    // `-` < `.` < `/`: sorting folder by folder would give another order.
    let paths = ["a-b/z", "a-b/zz", "a.js", "a/c", "a/d/e", "a/d0", "a0", "b", "ü"];
    let mut expected = Sha256::new();
    for path in paths {
        expected.update((path.len() as u64).to_le_bytes());
        expected.update(path);
        expected.update(1_u64.to_le_bytes());
        expected.update("x");
    }
    let limits = BundleLimits { files_max: paths.len(), ..LIMITS };
    let staged = store.stage(paths.map(|it| bytes(it, "x")), "b", limits).expect("stages");
    assert_eq!(staged.digest(), Digest(expected.finalize().into()));
}

#[test]
fn a_published_bundle_is_whole_read_only_and_verifies() {
    let (folder, store) = scratch();
    let source = folder.path().join("source.js");
    fs::write(&source, "from a file").expect("writes");
    let files = [bytes("index.js", "x"), ("deep/er/lib.js".to_owned(), Content::File(source))];
    let staged = store.stage(files, "index.js", LIMITS).expect("stages");
    let (digest, function, v1) = (staged.digest(), FunctionId::new(), label("v1"));
    let path = staged.publish(function, &v1).expect("publishes");

    assert_eq!(path, store.folder(function, &v1));
    assert_eq!(fs::read_to_string(path.join("deep/er/lib.js")).expect("reads"), "from a file");
    let mode = |it: &str| fs::metadata(path.join(it)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!([mode(""), mode("deep"), mode("deep/er")], [0o555; 3]);
    assert_eq!([mode("index.js"), mode("deep/er/lib.js")], [0o444; 2]);
    store.verify(function, &v1, &digest).expect("unchanged");
    assert_eq!(names(&store.root), [function.to_string()], "nothing temporary is left");
}

#[test]
fn any_change_is_detected() {
    let changes: [fn(&Path); 5] = [
        |it| fs::write(it.join("a.js"), "onE").expect("writes"),
        |it| fs::remove_file(it.join("a.js")).expect("removes"),
        |it| fs::write(it.join("c.js"), "").expect("writes"),
        |it| fs::rename(it.join("a.js"), it.join("A.js")).expect("renames"),
        |it| {
            fs::rename(it.join("a.js"), it.join("../a.js")).expect("renames");
            symlink("../a.js", it.join("a.js")).expect("links");
        },
    ];
    for change in changes {
        let (_folder, store) = scratch();
        let staged = store.stage([bytes("a.js", "one"), bytes("b.js", "two")], "a.js", LIMITS).expect("stages");
        let (digest, function, v1) = (staged.digest(), FunctionId::new(), label("v1"));
        let path = staged.publish(function, &v1).expect("publishes");
        tree::make_writable(&path).expect("changes the mode");
        let _absent_after_some = fs::set_permissions(path.join("a.js"), fs::Permissions::from_mode(0o644));
        change(&path);
        let error = store.verify(function, &v1, &digest).expect_err("the bundle was changed");
        assert!(matches!(error, BundleError::Changed { .. }), "{error}");
    }
}

#[test]
fn a_missing_bundle_is_told_from_a_changed_one() {
    let (_folder, store) = scratch();
    let error = store.verify(FunctionId::new(), &label("v1"), &Digest([0; 32])).expect_err("the bundle is missing");
    assert!(matches!(error, BundleError::Missing { .. }), "{error}");
}

#[test]
fn a_taken_name_stays_with_its_bundle() {
    let (_folder, store) = scratch();
    let (function, v1) = (FunctionId::new(), label("v1"));
    one_file(&store).publish(function, &v1).expect("publishes");
    let other = store.stage([bytes("other.js", "2")], "other.js", LIMITS).expect("stages");
    let error = other.publish(function, &v1).expect_err("the name is taken");
    assert!(matches!(error, BundleError::Exists(_)), "{error}");
    assert_eq!(names(&store.folder(function, &v1)), ["bundle.js"]);
    assert_eq!(names(&store.root), [function.to_string()], "the refused bundle is gone");
}

#[test]
fn paths_that_leave_the_bundle_or_clash_in_it_are_refused() {
    let (_folder, store) = scratch();
    let (long_name, deep) = ("x".repeat(256), "d/".repeat(33) + "x");
    let long_path = format!("{0}/{0}/{0}/{0}/{0}", "x".repeat(250));
    let hostile =
        ["", "/etc/passwd", "..", "../x", "a/../../x", "./x", "a//x", "a/", "a\0b", "a\nb", &long_name, &long_path];
    for path in hostile.into_iter().chain([deep.as_str()]) {
        let error = store.stage([bytes("e", ""), bytes(path, "x")], "e", LIMITS).expect_err("a hostile path");
        assert!(matches!(error, BundleError::Path { .. }), "{path:?}: {error}");
        assert!(error.to_string().len() < 500, "{error}");
    }
    for clash in [["a", "a"], ["a", "a/b"], ["a/b/c", "a"]] {
        let error = store.stage(clash.map(|it| bytes(it, "x")), "a", LIMITS).expect_err("a clash");
        assert!(matches!(error, BundleError::Path { .. }), "{clash:?}: {error}");
    }
    let error = store.stage([bytes("a", "x")], "b", LIMITS).expect_err("no entry");
    assert!(matches!(error, BundleError::EntryMissing(_)), "{error}");
    assert!(names(&store.root).is_empty(), "nothing is left of what was refused");
}

#[test]
fn sources_that_are_not_regular_files_are_refused_without_waiting() {
    let (folder, store) = scratch();
    let at = |name: &str| folder.path().join(name);
    symlink("/etc/passwd", at("link")).expect("links");
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("makes a pipe");
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("binds");
    for name in ["link", "pipe", "socket", "bundles"] {
        let error = store.stage([("a".to_owned(), Content::File(at(name)))], "a", LIMITS).expect_err("no file");
        assert!(matches!(error, BundleError::NotAFile(_)), "{name}: {error}");
    }
    let error = store.stage([("a".to_owned(), Content::File(at("absent")))], "a", LIMITS).expect_err("no file");
    assert!(matches!(error, BundleError::Source { .. }), "{error}");
    assert!(names(&store.root).is_empty(), "nothing is left of what was refused");
}

#[test]
fn limits_hold_for_files_and_bytes_from_either_source() {
    let (folder, store) = scratch();
    let at = |size: usize| {
        let path = folder.path().join(size.to_string());
        fs::write(&path, vec![b'x'; size]).expect("writes");
        Content::File(path)
    };
    let from_bytes = |size: usize| Content::Bytes(vec![b'x'; size].into());
    for second in [at(400), from_bytes(400)] {
        let files = [("a".to_owned(), at(600)), ("b".to_owned(), second)];
        assert_eq!(store.stage(files, "a", LIMITS).expect("exactly the limit").size(), 1_000);
    }
    for second in [at(401), from_bytes(401)] {
        let files = [("a".to_owned(), at(600)), ("b".to_owned(), second)];
        let error = store.stage(files, "a", LIMITS).expect_err("one byte too many");
        assert!(matches!(error, BundleError::TooLarge(1_000)), "{error}");
    }
    let endless = (0..).map(|it| bytes(&format!("file{it}"), ""));
    let error = store.stage(endless, "file0", LIMITS).expect_err("too many files");
    assert!(matches!(error, BundleError::TooManyFiles(3)), "{error}");
    assert!(names(&store.root).is_empty(), "nothing is left of what was refused");
}

#[test]
fn removing_takes_read_only_folders_along_and_may_be_repeated() {
    let (_folder, store) = scratch();
    let staged = store.stage([bytes("a/b/c.js", "1")], "a/b/c.js", LIMITS).expect("stages");
    let (function, v1) = (FunctionId::new(), label("v1"));
    let path = staged.publish(function, &v1).expect("publishes");
    for _ in 0..2 {
        store.remove(function, &v1).expect("removes");
        assert!(!path.exists());
    }
    assert!(names(&store.root).is_empty(), "the function's folder goes with its last bundle");
    one_file(&store).publish(function, &v1).expect("the name is free again");
    one_file(&store).publish(function, &label("v2")).expect("publishes");
    store.remove(function, &v1).expect("removes");
    assert_eq!(names(&store.root), [function.to_string()], "another bundle is in it");
}

#[test]
fn opening_removes_what_was_interrupted_and_nothing_else() {
    let (_folder, store) = scratch();
    let (function, v1) = (FunctionId::new(), label("v1"));
    one_file(&store).publish(function, &v1).expect("publishes");
    for name in [".incoming-1/sub", ".trash-2/sub", "other"] {
        fs::create_dir_all(store.root.join(name)).expect("makes a folder");
        fs::write(store.root.join(name).join("file"), "x").expect("writes");
    }
    fs::write(store.root.join(".incoming-file"), "x").expect("writes");
    tree::make_read_only(&store.root.join(".trash-2/sub")).expect("changes the mode");
    let store = BundleStore::open(&store.root).expect("opens");
    assert_eq!(names(&store.root), [function.to_string(), "other".to_owned()]);
}

#[test]
fn reconciling_removes_bundles_without_a_version_and_keeps_what_it_does_not_know() {
    let (_folder, mut store) = scratch();
    let (known, lost) = (FunctionId::new(), FunctionId::new());
    for (function, version) in [(known, "v1"), (known, "v2"), (lost, "v1")] {
        one_file(&store).publish(function, &label(version)).expect("publishes");
    }
    fs::write(store.root.join("notes.txt"), "x").expect("writes");
    let versions = HashMap::from([(known, HashSet::from([label("v1"), label("v3")]))]);
    let outcome = store.reconcile(&versions).expect("reconciles");
    assert_eq!(outcome.removed, [(known, label("v2"))]);
    assert_eq!(outcome.missing, [(known, label("v3"))]);
    assert_eq!(outcome.unknown, [store.root.join(lost.to_string()), store.root.join("notes.txt")]);
    assert!(store.folder(known, &label("v1")).is_dir() && !store.folder(known, &label("v2")).exists());
    assert!(store.folder(lost, &label("v1")).is_dir());
}

/// The test is its own child: with the variable set it publishes one bundle and removes another, until it is killed.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "release builds have no crash points")]
fn a_kill_at_any_step_leaves_a_whole_bundle_or_none() {
    let (function, old, new) = (FunctionId::from_bytes([7; 16]), label("old"), label("new"));
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        let store = BundleStore::open(Path::new(&folder)).expect("opens");
        one_file(&store).publish(function, &new).expect("publishes");
        store.remove(function, &old).expect("removes");
        return;
    }
    let this = format!("{}::a_kill_at_any_step_leaves_a_whole_bundle_or_none", module_path!());
    let (_, this) = this.split_once("::").expect("a crate and a path in it");
    for step in STEPS.iter().filter(|it| it.starts_with("bundle.")) {
        let (_folder, store) = scratch();
        let staged = one_file(&store);
        let digest = staged.digest();
        staged.publish(function, &old).expect("publishes");
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", this])
            .envs([(FOLDER_VARIABLE, store.root.as_os_str()), (CRASH_AT_VARIABLE, step.as_ref())])
            .output()
            .expect("the child runs")
            .status;
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{step} is passed");

        let mut store = BundleStore::open(&store.root).expect("opens after the crash");
        assert_eq!(names(&store.root), [function.to_string()], "{step} leaves nothing temporary");
        for label in [&old, &new] {
            match store.verify(function, label, &digest) {
                Ok(()) | Err(BundleError::Missing { .. }) => {}
                Err(error) => panic!("{step}: {error}"),
            }
        }
        let outcome = store.reconcile(&HashMap::from([(function, HashSet::new())])).expect("reconciles");
        assert!(outcome.missing.is_empty() && outcome.unknown.is_empty(), "{step}: {outcome:?}");
        one_file(&store).publish(function, &new).expect("the label can be used after all");
    }
}
