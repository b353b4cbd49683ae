//! Paths in deployments: the daemon reads nothing outside of the path, and nothing that the peer could not read.

use crate::{
    archives::build::{file, tar_of},
    harness::{DaemonProcess, Output, TestDaemon, bun, samples, text},
};
use levain::{
    config::Verify,
    error::ErrorCode,
    protocol::{
        field::Body,
        message::{DeployRequest, VersionsRequest},
    },
};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};
use tempfile::TempDir;

/// User and group ids that only this test uses.
const PEER: u32 = 61_234;
const PEERS_GROUP: u32 = 61_235;
const DAEMON: u32 = 61_236;

const CODE: &str = "export default () => new Response('hello');";

/// Number of deployments while the owner exchanges the folder's contents.
const RACES: u32 = 60;

/// Files below a folder, at any depth.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn code_with_a_usual_name_deploys_in_every_form_and_unclear_code_is_refused() {
    let daemon = TestDaemon::start().await;
    let deploy = async |name: &str, names: &[&str]| {
        let code = |it: &str| format!("export default () => new Response({it:?});");
        let contents: Vec<_> = names.iter().map(|it| (*it, code(it))).collect();
        let folder =
            samples::folder_of(&contents.iter().map(|(path, text)| (*path, text.as_str())).collect::<Vec<_>>());
        let entries: Vec<_> = contents.iter().map(|(path, text)| file(path.as_bytes(), text.as_bytes())).collect();
        let files = contents.iter().map(|(path, text)| ((*path).to_owned(), Body::from(text.clone().into_bytes())));
        let request = || DeployRequest { function_id: name.into(), create: true, ..DeployRequest::default() };
        let path = Some(folder.path().to_str().unwrap().to_owned());
        let requests = [
            DeployRequest { bundle_path: path, ..request() },
            DeployRequest { archive: Some(Body::from(tar_of(&entries))), ..request() },
            DeployRequest { files: Some(files.collect()), ..request() },
        ];
        let mut outcomes = Vec::new();
        for request in requests {
            outcomes.push(daemon.call(&request).await);
        }
        outcomes
    };
    for (name, entry, names) in [
        ("usual", "function.ts", &["function.ts", "lib.ts"][..]),
        ("single", "hello.ts", &["hello.ts", "hello.test.ts", "vite.config.ts", "README.md"]),
        ("below", "src/handler.ts", &["README.md", "src/handler.ts", "src/lib.ts"]),
    ] {
        for outcome in deploy(name, names).await {
            outcome.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_eq!(text(&daemon.invoke(name).await.unwrap()), entry);
        }
    }
    for outcome in deploy("unclear", &["server.ts", "app.ts", "lib.ts"]).await {
        let error = outcome.unwrap_err();
        assert!(error.code == ErrorCode::BundleInvalid && error.message.contains("`app.ts`, `server.ts`"), "{error:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_exchanged_for_a_link_while_it_is_read_leads_nowhere() {
    let daemon = TestDaemon::start_with(|config| config.versioning.verify = Verify::Syntax).await;
    daemon.register("f").await;
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for folder in ["source/sub", "outside"] {
        fs::create_dir_all(at(folder)).unwrap();
        for number in 0..10 {
            fs::write(at(folder).join(format!("{number}.txt")), folder).unwrap();
        }
        // Ignore rules from outside the folder must not apply either.
        fs::write(at(folder).join(".levainignore"), format!("{}.txt", folder.len() % 10)).unwrap();
    }
    symlink(at("outside"), at("link")).unwrap();
    let (is_over, exchanges) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let exchanging = {
        let (is_over, exchanges, here, there) =
            (Arc::clone(&is_over), Arc::clone(&exchanges), at("source/sub"), at("link"));
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &here, AT_FDCWD, &there, RenameFlags::RENAME_EXCHANGE).unwrap();
                exchanges.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut published = 0;
    for race in 0..RACES {
        fs::write(at("source/index.js"), format!("{CODE} // {race}")).unwrap();
        let request = DeployRequest {
            function_id: "f".into(),
            bundle_path: Some(at("source").to_str().unwrap().into()),
            activate: Some(false),
            ..DeployRequest::default()
        };
        match daemon.call(&request).await {
            Ok(answer) => {
                published += 1;
                let bundle = daemon.bundle_folder(answer.function_id, &answer.version);
                for file in files(&bundle) {
                    assert!(!fs::read_to_string(&file).unwrap().contains("outside"), "{race}: {}", file.display());
                }
            }
            Err(error) => {
                let codes = [ErrorCode::BundleNotFound, ErrorCode::BundleInvalid];
                assert!(codes.contains(&error.code), "{race}: {error:?}");
            }
        }
    }
    is_over.store(true, Ordering::Relaxed);
    exchanging.join().unwrap();
    let exchanges = exchanges.load(Ordering::Relaxed);
    assert!(exchanges > RACES, "the folder was exchanged while it was read: {exchanges}");
    assert!(published < RACES, "a folder that has become a link is refused");
    // Once the link is a folder again, it is deployed.
    if fs::symlink_metadata(at("source/sub")).unwrap().is_symlink() {
        renameat2(AT_FDCWD, &at("source/sub"), AT_FDCWD, &at("link"), RenameFlags::RENAME_EXCHANGE).unwrap();
    }
    let path = at("source").to_str().unwrap().to_owned();
    let request = DeployRequest { function_id: "f".into(), bundle_path: Some(path), ..DeployRequest::default() };
    daemon.call(&request).await.expect("the folder is good");
    daemon.stop().await;
}

/// Makes a folder that everybody may enter, with the binary and Bun in it.
async fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    for (from, name) in [(Path::new(env!("CARGO_BIN_EXE_levain")), "levain"), (bun().await, "bun")] {
        let (from, to) = (from.canonicalize().unwrap(), folder.path().join(name));
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).unwrap();
        }
    }
    folder
}

/// Runs `levain` as another user, who is in one group besides its own.
async fn as_peer(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LEVAIN_SOCKET", folder.join("s")).current_dir(folder);
    command.args([&format!("--reuid={PEER}"), &format!("--regid={PEER}"), &format!("--groups={PEERS_GROUP}")]);
    command.arg("--").arg(folder.join("levain")).args(arguments);
    DaemonProcess::output(command).await
}

fn write(path: &Path, owner: u32, group: u32, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{CODE} // {}", path.display())).unwrap();
    chown(path, Some(owner), Some(group)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_read_with_the_rights_of_who_names_it() {
    if !nix::unistd::geteuid().is_root() {
        // Only root can run a process as another user.
        return;
    }
    let folder = open_folder().await;
    let daemon = TestDaemon::start_with(|config| {
        config.daemon.socket = folder.path().join("s").to_str().unwrap().into();
        config.daemon.allowed_uids = vec![PEER];
    })
    .await;
    let at = |path: &str| folder.path().join(path);
    write(&at("everybody.js"), 0, 0, 0o644);
    write(&at("own.js"), PEER, PEER, 0o600);
    write(&at("group.js"), 0, PEERS_GROUP, 0o640);
    write(&at("roots.js"), 0, 0, 0o600);
    write(&at("mixed/index.js"), PEER, PEER, 0o600);
    write(&at("mixed/lib/roots.js"), 0, 0, 0o600);
    write(&at("closed/index.js"), 0, 0, 0o644);
    fs::set_permissions(at("closed"), Permissions::from_mode(0o700)).unwrap();
    write(&at("hidden/lib/index.js"), 0, 0, 0o644);
    fs::set_permissions(at("hidden/lib"), Permissions::from_mode(0o700)).unwrap();
    write(&at("hidden/index.js"), 0, 0, 0o644);
    symlink(at("roots.js"), at("link.js")).unwrap();
    for name in ["everybody.js", "own.js", "group.js"] {
        let function = name.trim_end_matches(".js");
        as_peer(folder.path(), &["deploy", function, name]).await.ok();
        assert_eq!(daemon.info(function).await.name, function);
    }
    for name in ["roots.js", "mixed", "closed", "hidden", "link.js", "/etc/shadow", "closed/index.js"] {
        let output = as_peer(folder.path(), &["deploy", "taken", name]).await;
        assert_ne!(output.code, Some(0), "{name}: {output:?}");
        assert!(output.stderr.to_lowercase().contains("permission denied"), "{name}: {output:?}");
    }
    let error = daemon.call(&VersionsRequest { function_id: "taken".into(), ..VersionsRequest::default() }).await;
    assert_eq!(error.expect_err("nothing was published").code, ErrorCode::FunctionNotFound);
    // The daemon's own user may deploy any path that the daemon can read.
    // The daemon's own user may deploy any path that the daemon can read.
    let request = DeployRequest {
        function_id: "roots".into(),
        bundle_path: Some(at("mixed").to_str().unwrap().into()),
        create: true,
        ..DeployRequest::default()
    };
    daemon.call(&request).await.expect("root reads the whole folder");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_cannot_be_the_peer_refuses_the_path_and_takes_the_code() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = open_folder().await;
    let at = |path: &str| folder.path().join(path);
    let data = at("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(DAEMON), Some(DAEMON)).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(at("levain"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &data).env("LEVAIN_BUN", at("bun"));
    command.env("LEVAIN_HTTP_ADDRESS", "off").env("LEVAIN_DAEMON_ALLOWED_UIDS", PEER.to_string());
    command.arg("serve").current_dir(folder.path()).uid(DAEMON).gid(DAEMON);
    let daemon = DaemonProcess::spawn(command, &data).await;
    symlink(daemon.socket(), at("s")).unwrap();
    write(&at("everybody.js"), 0, 0, 0o644);
    write(&data.join("secret.js"), DAEMON, DAEMON, 0o600);
    let refused = as_peer(folder.path(), &["deploy", "taken", "absent.js"]).await;
    assert_eq!(refused.code, Some(i32::from(ErrorCode::Forbidden.exit_code())), "{refused:?}");
    assert!(refused.stderr.contains("--upload") && refused.stderr.contains(&PEER.to_string()), "{refused:?}");
    let refused = as_peer(folder.path(), &["deploy", "taken", "data/secret.js"]).await;
    assert!(refused.stderr.to_lowercase().contains("permission denied"), "{refused:?}");
    // The command line uploads a file that the daemon must not read.
    as_peer(folder.path(), &["deploy", "sent", "everybody.js"]).await.ok();
    assert_eq!(as_peer(folder.path(), &["invoke", "sent"]).await.ok().trim_end(), "hello");
    daemon.kill().await;
}
