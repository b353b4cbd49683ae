//! Backup and restore: a node in a file, and a restored node that answers like the original.

mod directory;

use crate::harness::{DaemonProcess, TestDaemon, is_refused, refused, until};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use levain::{
    backup::{self, RestoreError},
    crash_point::{CRASH_AT_VARIABLE, RESTORE_STEPS},
    error::ErrorCode,
    protocol::{
        field::Body,
        message::{
            BackupPart, BackupRequest, CleanupRequest, DeleteVersionRequest, DeployRequest, InvokeRequest,
            RegisterRequest,
        },
    },
};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
};

fn says(word: &str) -> String {
    format!("export default (req, ctx) => new Response({word:?} + ' ' + ctx.version + ' ' + ctx.environment);")
}

async fn deploy(daemon: &DaemonProcess, name: &str, word: &str, more: &[&str]) {
    let code = daemon.data_dir().join("code.js");
    fs::write(&code, says(word)).unwrap();
    let arguments = [&["deploy", name, code.to_str().unwrap()], more].concat();
    daemon.cli(&arguments).await.ok();
}

/// Backs up a node with every kind of content, and returns the file and the node's own description.
async fn node(folder: &Path) -> (PathBuf, Vec<String>) {
    let daemon = DaemonProcess::start_in(folder).await;
    deploy(&daemon, "shop", "one", &["--description", "the first"]).await;
    deploy(&daemon, "shop", "two", &["--tag", "blue"]).await;
    deploy(&daemon, "shop", "three", &["--weight", "20"]).await;
    deploy(&daemon, "gone", "gone", &[]).await;
    deploy(&daemon, "greet", "hello", &["--alias", "STAGING"]).await;
    for line in [
        "alias set shop known-good v1",
        "policy set shop --error-rate 5",
        "config-of greet timeout_seconds=7",
        "environments protect staging",
        "token create ci --scope deploy",
        "delete gone --yes",
    ] {
        daemon.cli(&line.split(' ').collect::<Vec<_>>()).await.ok();
    }
    let file = folder.join("node.levain");
    let said = daemon.cli(&["backup", file.to_str().unwrap()]).await.ok();
    assert!(said.contains("2 functions with 5 versions"), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let shown = shown(&daemon).await;
    daemon.kill().await;
    (file, shown)
}

/// Lists the node's answers about everything that it keeps.
async fn shown(daemon: &DaemonProcess) -> Vec<String> {
    let mut all = Vec::new();
    for line in [
        "list",
        "show shop",
        "versions shop",
        "alias list shop",
        "traffic show shop",
        "policy show shop",
        "deployments --active",
        "deployments shop",
        "environments list",
        "token list --all",
        "config-of greet",
    ] {
        let mut arguments = vec!["--json"];
        arguments.extend(line.split(' '));
        let mut answer = daemon.cli(&arguments).await.json();
        without_workers(&mut answer);
        // The data directory does not matter either.
        let answer = answer.to_string().replace(&daemon.data_dir().display().to_string(), "DATA");
        all.push(format!("{line}: {answer}"));
    }
    let client = daemon.client().await;
    for name in ["shop:v1", "shop:v2", "shop:v3", "shop:known-good", "greet:STAGING", "gone"] {
        let answer = client.call(&InvokeRequest { function_id: name.into(), ..InvokeRequest::default() }).await;
        let answer = answer.map(|it| String::from_utf8_lossy(&it.body.0).into_owned()).map_err(|it| it.to_string());
        all.push(format!("{name}: {answer:?}"));
    }
    all
}

/// Removes the state of workers, which a backup does not keep.
fn without_workers(answer: &mut serde_json::Value) {
    match answer {
        serde_json::Value::Object(fields) => {
            fields.retain(|name, _| !["warm", "pools"].contains(&name.as_str()));
            fields.values_mut().for_each(without_workers);
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(without_workers),
        _ => {}
    }
}

#[track_caller]
fn same(shown: &[String], before: &[String]) {
    for (now, then) in shown.iter().zip(before) {
        assert_eq!(now, then);
    }
    assert_eq!(shown.len(), before.len());
}

/// Runs `levain restore`, which may be made to die at a step.
async fn restore(file: &Path, data_dir: &Path, step: Option<&str>) -> std::process::Output {
    let mut command = DaemonProcess::command(file.parent().unwrap()).await;
    command.args(["restore", file.to_str().unwrap(), "--data-dir", data_dir.to_str().unwrap()]);
    if let Some(step) = step {
        command.env(CRASH_AT_VARIABLE, step);
    }
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_node_answers_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (file, before) = node(folder.path()).await;
    let data = folder.path().join("restored");
    let output = restore(&file, &data, None).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("2 functions with 5 versions"), "{output:?}");
    let daemon = DaemonProcess::start(&data).await;
    same(&shown(&daemon).await, &before);
    // The restored node takes deployments as any other.
    deploy(&daemon, "shop", "four", &[]).await;
    let answer = daemon.client().await.call(&InvokeRequest { function_id: "shop".into(), ..InvokeRequest::default() });
    assert_eq!(answer.await.unwrap().body.0, "four v4 production");
    drop(daemon);
    let output = restore(&file, &data, None).await;
    assert_eq!(output.status.code(), Some(i32::from(ErrorCode::Conflict.exit_code())), "{output:?}");
    assert!(stderr(&output).contains("holds a node already"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_says_how_its_directory_gets_a_bun() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let daemon = DaemonProcess::start_in(&path).await;
    daemon.cli(&["backup", "node.levain"]).await.ok();
    let restore = async |arguments: &[&str], has_bun: bool| {
        let mut command = DaemonProcess::command(&path).await;
        command.args(["restore", "node.levain", "--data-dir"]).args(arguments);
        if !has_bun {
            command.env_remove("LEVAIN_BUN").env("PATH", "");
        }
        DaemonProcess::output(command).await
    };
    let said = restore(&["restored"], false).await.ok();
    let hint = format!("levain runtime install --data-dir {}`", path.join("restored").display());
    assert!(said.contains("before you start the daemon") && said.contains(&hint), "{said}");
    assert_eq!(restore(&["as-json", "--json"], false).await.json()["bun_is_there"], false);
    let said = restore(&["with-bun"], true).await.ok();
    assert!(!said.contains("Bun"), "{said}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_is_begun_anew_or_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (file, before) = node(folder.path()).await;
    for step in RESTORE_STEPS {
        let data = folder.path().join(step);
        let output = restore(&file, &data, Some(step)).await;
        assert_eq!(output.status.signal(), Some(9), "{step}: {output:?}");
        let started = DaemonProcess::try_spawn(DaemonProcess::serve(&data).await, &data).await;
        let daemon = match (*step, started) {
            ("restore.database", started) => started.unwrap(),
            (_, Ok(_)) => panic!("{step}: a daemon starts in an unfinished directory"),
            (_, Err(reason)) => {
                assert!(reason.contains("was interrupted"), "{step}: {reason}");
                let output = restore(&file, &data, None).await;
                assert!(output.status.success(), "{step}: {}", stderr(&output));
                DaemonProcess::start(&data).await
            }
        };
        same(&shown(&daemon).await, &before);
        assert!(!data.join(".restoring").exists(), "{step}");
        daemon.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_through_pipes_and_replaces_nothing_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = node(folder.path()).await;
    let daemon = DaemonProcess::start(&folder.path().join("data")).await;
    let again = daemon.cli(&["backup", file.to_str().unwrap()]).await;
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.stderr.contains("--force"), "{again:?}");
    daemon.cli(&["backup", file.to_str().unwrap(), "--force"]).await.ok();
    let nowhere = daemon.cli(&["backup", "/nowhere/at/all"]).await;
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("cannot write /nowhere/at/all: No such file"));
    assert!(!nowhere.stderr.contains(".levain-backup"), "{nowhere:?}");
    let logged = daemon.stderr();
    let taken = logged.lines().find(|it| it.contains("backup taken")).unwrap_or_default();
    assert!(taken.contains("actor") && taken.contains("uid:"), "{logged}");
    // A running daemon is in the way of a restore.
    let output = restore(&file, &folder.path().join("data"), None).await;
    assert!(!output.status.success() && stderr(&output).contains("in use"), "{output:?}");
    let line = format!("levain backup - | levain restore - --data-dir {}", folder.path().join("piped").display());
    let binaries = Path::new(env!("CARGO_BIN_EXE_levain")).parent().unwrap().to_str().unwrap().to_owned();
    let output = DaemonProcess::output(daemon.shell(&line, &binaries).await).await;
    assert!(output.ok().contains("2 functions"));
    assert!(folder.path().join("piped/levain.db").is_file());
}

/// Contents of a backup, by path.
type Entries = BTreeMap<String, Vec<u8>>;

fn entries(file: &[u8]) -> Entries {
    let mut archive = tar::Archive::new(GzDecoder::new(file));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let (mut entry, mut bytes): (tar::Entry<'_, GzDecoder<&[u8]>>, _) = (entry.unwrap(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn unpacked(file: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).ok().map(|_| bytes)
}

/// Packs a backup file from entries, the description first.
fn packed<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [u8], tar::EntryType)>) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, bytes, kind) in entries {
        let mut header = tar::Header::new_gnu();
        // `set_path` would refuse the names that are tried here.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, bytes).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

const ABOUT: &str = "levain-backup.json";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_no_backup_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = node(folder.path()).await;
    let good = fs::read(&file).unwrap();
    let there = entries(&good);
    let refused = |what: &str, bytes: &[u8]| {
        let data = folder.path().join("refused");
        let error = levain::daemon::restore(bytes, &data).map(drop).expect_err(what);
        assert!(!data.exists(), "{what}: the refused restore leaves a directory: {error}");
        error.to_string()
    };
    let cuts = (0..20).map(|part| good.len() * part / 20).chain([good.len() - 1, good.len() - 8, 10]);
    for cut in cuts {
        refused(&format!("cut at {cut}"), &good[..cut]);
    }
    for position in (20..good.len()).step_by(good.len() / 40) {
        let mut bytes = good.clone();
        bytes[position] ^= 0x10;
        // A change that only affects the packing, and not the content, does no harm.
        if unpacked(&bytes) == unpacked(&good) {
            continue;
        }
        refused(&format!("changed at {position}"), &bytes);
    }
    let mut garbage = good.clone();
    garbage[..200].fill(b'x');
    assert!(refused("garbage", &garbage).contains("not a Levain backup"));
    assert!(refused("nothing", b"").contains("not a Levain backup"));
    for more in [b"x".as_slice(), &[0; 512], &good] {
        assert!(refused("something after its end", &[&good, more].concat()).contains("after its end"));
    }
    let mut within = unpacked(&good).unwrap();
    within.extend(b"more");
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(&within).unwrap();
    assert!(refused("something after the last entry", &packer.finish().unwrap()).contains("after its end"));

    let regular = tar::EntryType::Regular;
    let with = |change: &dyn Fn(&mut Entries)| {
        let mut there = there.clone();
        change(&mut there);
        let about = there.remove(ABOUT).unwrap();
        let rest = there.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice(), regular));
        packed([(ABOUT, about.as_slice(), regular)].into_iter().chain(rest))
    };
    // The unchanged entries, packed like this, are accepted.
    let data = folder.path().join("taken");
    levain::daemon::restore(with(&|_| {}).as_slice(), &data).unwrap();
    let bundle = there.keys().find(|it| it.starts_with("bundles/")).unwrap();
    let cases: [(&str, Vec<u8>, &str); 12] = [
        (
            "another format",
            with(&|it| drop(it.insert(ABOUT.into(), br#"{"format":9,"levain":"9.0"}"#.to_vec()))),
            "9.0",
        ),
        ("no description", with(&|it| drop(it.insert(ABOUT.into(), b"{}".to_vec()))), "not a Levain backup"),
        ("no database", with(&|it| drop(it.remove("levain.db"))), "database"),
        ("a database of something else", with(&|it| drop(it.insert("levain.db".into(), vec![7; 9000]))), "database"),
        ("a bundle missing", with(&|it| drop(it.remove(bundle))), "missing"),
        ("a bundle changed", with(&|it| it.get_mut(bundle).unwrap().push(b' ')), "changed"),
        ("a file more in a bundle", with(&|it| drop(it.insert(format!("{bundle}.js"), vec![1]))), "changed"),
        (
            "a path that leads out",
            with(&|it| drop(it.insert("bundles/../../x".into(), vec![1]))),
            "does not belong in a backup",
        ),
        ("an absolute path", with(&|it| drop(it.insert("/etc/x".into(), vec![1]))), "does not belong in a backup"),
        ("a key", with(&|it| drop(it.insert("master.key".into(), vec![1]))), "does not belong in a backup"),
        (
            "a link",
            packed([(ABOUT, there[ABOUT].as_slice(), regular), ("levain.db", b"", tar::EntryType::Symlink)]),
            "does not belong in a backup",
        ),
        (
            "an entry twice",
            packed([
                (ABOUT, there[ABOUT].as_slice(), regular),
                ("levain.db", b"1", regular),
                ("levain.db", b"2", regular),
            ]),
            "another entry occupies",
        ),
    ];
    for (what, bytes, part) in cases {
        let said = refused(what, &bytes);
        assert!(said.contains(part), "{what}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_of_one_instant_whatever_happens_meanwhile() {
    const BACKUPS: usize = 8;
    let daemon = TestDaemon::start().await;
    let names = ["a", "b"];
    for name in names {
        daemon.register(name).await;
        daemon.deploy_text(name, &says(name)).await;
    }
    let changes = names.map(|name| {
        let client = daemon.client().clone();
        tokio::spawn(async move {
            for number in 0.. {
                let bundle = Some(Body::from(says(&format!("{name} {number}")).into_bytes()));
                let request = DeployRequest { function_id: name.into(), bundle, ..DeployRequest::default() };
                let version = client.call(&request).await.unwrap().version;
                if number % 3 == 0 {
                    let request = CleanupRequest { function_id: Some(name.into()), keep: Some(1), dry_run: false };
                    client.call(&request).await.unwrap();
                } else if number % 3 == 1 {
                    let request = DeleteVersionRequest { function_id: name.into(), version: version.as_str().into() };
                    // The version is live, and the one before it is kept for a rollback.
                    assert!(client.call(&request).await.is_err());
                }
            }
        })
    });
    let mut sizes = Vec::new();
    for _ in 0..BACKUPS {
        let mut answer = daemon.client().call_streaming(&BackupRequest {}).unwrap();
        let mut file = Vec::new();
        while let Some(part) = answer.next_partial::<BackupPart>().await.unwrap() {
            file.write_all(&part.bytes.0).unwrap();
        }
        let response = answer.finish().await.unwrap();
        assert_eq!(response.bytes, file.len() as u64);
        let folder = tempfile::tempdir().unwrap();
        let about = backup::unpack(file.as_slice(), folder.path()).unwrap();
        let checked = backup::check(folder.path(), &about).unwrap();
        assert_eq!((checked.functions, checked.versions), (response.functions, response.versions));
        sizes.push(checked.versions);
        // The unpacked folders are read-only, as those of a node.
        std::process::Command::new("chmod").args(["-R", "u+w"]).arg(folder.path()).status().unwrap();
    }
    assert!(sizes.iter().all(|it| *it >= 2), "{sizes:?}");
    changes.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(fs::read_dir(daemon.data_dir().join("incoming")).unwrap().count(), 0);
    daemon.stop().await;
}

/// Deploys `f` with this many bytes of noise, which does not shrink when it is packed.
async fn deploy_noise(daemon: &TestDaemon, bytes: usize) {
    daemon.call(&RegisterRequest { name: "f".into(), ..RegisterRequest::default() }).await.unwrap();
    let mut noise = vec![0; bytes];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    let folder = daemon.data_dir().join("source");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("noise.bin"), noise).unwrap();
    fs::write(folder.join("index.js"), says("noise")).unwrap();
    let request = DeployRequest {
        function_id: "f".into(),
        bundle_path: Some(folder.display().to_string()),
        ..DeployRequest::default()
    };
    daemon.call(&request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_taken_at_a_time_and_none_without_a_bundle() {
    const BYTES: usize = 24 << 20;
    let daemon = TestDaemon::start().await;
    deploy_noise(&daemon, BYTES).await;

    let slow = daemon.connect().await;
    let mut answer = slow.call_streaming(&BackupRequest {}).unwrap();
    assert!(answer.next_partial::<BackupPart>().await.unwrap().is_some());
    assert!(is_refused(&daemon.call(&BackupRequest {}).await, ErrorCode::Conflict));
    // A client that disconnects frees the place.
    drop((answer, slow));
    until("another backup is possible", async || daemon.call(&BackupRequest {}).await.ok()).await;

    let bundle = daemon.bundle_folder(daemon.info("f").await.function_id.to_string(), "v1");
    let away = daemon.data_dir().join("away");
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&bundle, &away).unwrap();
    let refused = daemon.call(&BackupRequest {}).await.unwrap_err();
    assert!(refused.message.contains("missing"), "{refused:?}");
    fs::rename(&away, &bundle).unwrap();
    assert_eq!(fs::read_dir(daemon.data_dir().join("incoming")).unwrap().count(), 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_nothing_is_left() {
    const BYTES: usize = 24 << 20;
    let daemon = TestDaemon::start_with(|config| config.http.body_timeout_ms = 300).await;
    deploy_noise(&daemon, BYTES).await;
    let slow = daemon.connect().await;
    let mut answer = slow.call_streaming(&BackupRequest {}).unwrap();
    assert!(answer.next_partial::<BackupPart>().await.unwrap().is_some());
    // The first client stays and reads nothing. Its backup times out however slow the machine is: the buffers in
    // between hold a small part of the backup. On a stalled machine, other backups may time out after 300 ms as well,
    // but they are not refused.
    until("another backup is possible", async || {
        let other = daemon.call(&BackupRequest {}).await;
        (!is_refused(&other, ErrorCode::Conflict)).then_some(())
    })
    .await;
    let ended = async {
        while answer.next_partial::<BackupPart>().await?.is_some() {}
        answer.finish().await
    };
    let error = refused(ended.await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Timeout, "{error:?}");
    assert!(error.message.contains("http.body_timeout_ms"), "{error:?}");
    until("no copy is left", async || {
        (fs::read_dir(daemon.data_dir().join("incoming")).unwrap().count() == 0).then_some(())
    })
    .await;
    daemon.stop().await;
}

#[test]
fn what_is_said_of_a_newer_backup_names_who_can_read_it() {
    let error = RestoreError::Format { found: 2, levain: "1.4.0".into() };
    assert!(error.to_string().ends_with("restore it with Levain 1.4.0"), "{error}");
}
