//! Archives: ordinary ones deploy in every form; harmful ones are refused with a reason and leave no trace.

pub mod build;
mod table;

use crate::harness::{DaemonProcess, TestDaemon, is_refused, refused, samples, text};
use build::{Entry, entry, file, gzip, gzipped_zeros, header, tar_of, zip_of};
use levain::{
    error::ErrorCode,
    protocol::{
        field::Body,
        message::{DeployRequest, InvokeRequest, RegisterRequest},
    },
};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// A function that answers with a text.
fn says(word: &str) -> String {
    format!("export default () => new Response({word:?});")
}

fn archive(name: &str, bytes: Vec<u8>) -> DeployRequest {
    DeployRequest { function_id: name.into(), archive: Some(Body::from(bytes)), ..DeployRequest::default() }
}

fn at(name: &str, path: &Path) -> DeployRequest {
    let bundle_path = Some(path.to_str().unwrap().to_owned());
    DeployRequest { function_id: name.into(), bundle_path, ..DeployRequest::default() }
}

/// Every path below a folder, except the files that exist only while workers run.
fn tree(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for child in fs::read_dir(folder).unwrap().flatten() {
            let path = child.path();
            if path.ends_with("run") {
                continue;
            }
            if child.file_type().unwrap().is_dir() {
                folders.push(path.clone());
            }
            found.insert(path.display().to_string());
        }
    }
    found
}

/// A figure of `/proc/PID/status` in MiB.
fn status_mb(daemon: &DaemonProcess, figure: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_deploys_over_the_socket_and_by_path() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let folder = tempfile::tempdir().unwrap();
    let index = |word: &str| {
        format!("import {{ word }} from './lib/word.js'; export default () => new Response(word + '{word}');")
    };
    let lib = b"export const word = 'in ';";
    let tar = |word: &str, top: &str| {
        let name = |path: &str| format!("{top}{path}").into_bytes();
        tar_of(&[
            entry(b'5', &name(""), b"", b""),
            file(&name("index.js"), index(word).as_bytes()),
            file(&name("lib/word.js"), lib),
            file(&name("lib/._word.js"), b"macOS"),
            // An archive within the archive is a file like any other.
            file(&name("inner.zip"), &zip_of(&[Entry::stored(b"../evil.js", b"")])),
        ])
    };
    let zip = |word: &str, make: fn(&[u8], &[u8]) -> Entry| {
        zip_of(&[make(b"lib/word.js", lib), make(b"index.js", index(word).as_bytes()), make(b"__MACOSX/a", b"x")])
    };
    let archives = [
        ("tar", tar("tar", "./")),
        ("tgz", gzip(&tar("tgz", "./"))),
        ("wrapped", gzip(&tar("wrapped", "myfunc/"))),
        ("stored", zip("stored", Entry::stored)),
        ("deflated", zip("deflated", Entry::deflated)),
    ];
    for (word, bytes) in archives {
        let deployed =
            daemon.call(&archive("f", bytes.clone())).await.unwrap_or_else(|error| panic!("{word}: {error:?}"));
        assert!(deployed.published, "{word}");
        let bundle = daemon.bundle_folder(deployed.function_id, &deployed.version);
        let mut names: Vec<_> = tree(&bundle).into_iter().map(|it| it.rsplit('/').next().unwrap().to_owned()).collect();
        names.retain(|it| it != "inner.zip");
        assert_eq!(names, ["index.js", "lib", "word.js"], "{word}");
        assert_eq!(text(&daemon.invoke("f").await.unwrap()), format!("in {word}"));
        // The file's name is misleading; its content decides.
        let path = folder.path().join(format!("{word}.js"));
        fs::write(&path, bytes).unwrap();
        let again = daemon.call(&at("f", &path)).await.unwrap();
        assert_eq!((again.published, again.digest), (false, deployed.digest), "{word}");
    }
    assert_eq!(fs::read_dir(daemon.data_dir().join("incoming")).unwrap().count(), 0);
    let named = DeployRequest { entry: Some("lib/other.js".into()), ..archive("f", tar("x", "g/")) };
    let outcome = daemon.call(&named).await;
    assert!(is_refused(&outcome, ErrorCode::BundleInvalid), "{outcome:?}");
    let packages = tar_of(&[file(b"package.json", b"{}"), file(b"src/other.ts", b"")]);
    let error = daemon.call(&archive("f", packages)).await.unwrap_err();
    assert!(error.code == ErrorCode::BundleInvalid && error.message.contains("`module`"), "{error:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_harm_is_refused_with_its_reason_and_leaves_nothing() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", &says("good")).await;
    let folder = tempfile::tempdir().unwrap();
    let before = tree(daemon.data_dir());
    let mut wrong = Vec::new();
    for (what, bytes, code, words) in table::harmful() {
        let path = folder.path().join("archive");
        fs::write(&path, &bytes).unwrap();
        for request in [archive("f", bytes), at("f", &path)] {
            match daemon.call(&request).await {
                Err(error) if error.code == code && error.message.len() < 700 => {
                    let missing = words.iter().filter(|word| !error.message.contains(**word));
                    wrong.extend(missing.map(|word| format!("{what}: «{word}» is not in «{}»", error.message)));
                }
                outcome => wrong.push(format!("{what}: {outcome:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(tree(daemon.data_dir()), before);
    assert_eq!((daemon.versions("f").await.len(), text(&daemon.invoke("f").await.unwrap())), (1, "good"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    daemon.stop().await;
}

/// Size that exceeds any bundle, in bytes.
const BOMB: u64 = 10 << 30;

/// Size that the bundles of this test may have, in bytes.
const FITS: u64 = 1 << 30;

/// Archives that would fill any disk or memory.
fn bombs() -> Vec<(&'static str, Vec<u8>, ErrorCode)> {
    let zip = |zeros: u64, size: u64| {
        let (packed, crc, _) = build::deflated_zeros(b"", zeros, b"");
        zip_of(&[Entry { method: 8, packed, crc, size, ..Entry::stored(b"index.js", b"") }])
    };
    let name = |at: usize| format!("{at}.js").into_bytes();
    let end = [0; 1_024];
    let zeros = build::deflated_zeros(b"", 1 << 20, b"");
    let first = Entry { method: 8, packed: zeros.0, crc: zeros.1, size: zeros.2, ..Entry::stored(b"0.js", b"") };
    let shared = |at: usize| Entry { name: name(at), offset: Some(0), ..first.clone() };
    let overlapping: Vec<_> = std::iter::once(first.clone()).chain((1..1_000).map(shared)).collect();
    let many: Vec<_> = (0..100_000).map(|at| file(&name(at), b"")).collect();
    let listed: Vec<_> = (0..100_000).map(|at| Entry::stored(&name(at), b"")).collect();
    let (invalid, large) = (ErrorCode::BundleInvalid, ErrorCode::PayloadTooLarge);
    vec![
        ("a large file in a tar.gz", gzipped_zeros(&header(b'0', b"index.js", b"", BOMB), BOMB, &end), large),
        ("a large file that is ignored", gzipped_zeros(&header(b'0', b".env", b"", BOMB), BOMB, &end), large),
        ("a long name", gzipped_zeros(&header(b'L', b"x", b"", BOMB), BOMB, &end), invalid),
        ("pax records", gzipped_zeros(&header(b'x', b"x", b"", BOMB), BOMB, &end), invalid),
        ("zeros without end", gzipped_zeros(&file(b"index.js", b""), BOMB, &end), invalid),
        ("zeros that fit", gzipped_zeros(&header(b'0', b"index.js", b"", FITS), FITS, &end), large),
        ("a large file in a zip", zip(BOMB, BOMB), large),
        ("a large file in a zip that says it is small", zip(BOMB, 100), invalid),
        ("zeros that fit in a zip", zip(FITS, FITS), large),
        ("files that share their bytes", zip_of(&overlapping), large),
        ("100,000 entries in a tar", gzip(&tar_of(&many)), invalid),
        ("100,000 entries in a zip", zip_of(&listed), invalid),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_refused_soon_and_without_memory_or_disk() {
    const FUNCTIONS: usize = 6;
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    // Raises the limit on a bundle's size, so that it is not this limit that stops the archives.
    command.env("LEVAIN_LIMITS_BUNDLE_BYTES_MAX", "2147483648");
    let daemon = DaemonProcess::spawn(command, data.path()).await;
    let client = daemon.client().await;
    for number in 0..FUNCTIONS {
        client.call(&RegisterRequest { name: format!("f{number}"), ..RegisterRequest::default() }).await.unwrap();
    }
    let hello = DeployRequest {
        function_id: "f0".into(),
        bundle: Some(Body::from(says("hello").into_bytes())),
        ..DeployRequest::default()
    };
    client.call(&hello).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (before, memory) = (tree(data.path()), status_mb(&daemon, "VmHWM:"));
    for (number, (what, bytes, code)) in bombs().into_iter().enumerate() {
        let path = folder.path().join(number.to_string());
        fs::write(&path, bytes).unwrap();
        let started = Instant::now();
        let mut outcomes = tokio::task::JoinSet::new();
        for function in 0..FUNCTIONS {
            let (client, request) = (daemon.client().await, at(&format!("f{function}"), &path));
            outcomes.spawn(async move { client.call(&request).await.map_err(refused) });
        }
        let invoke = InvokeRequest { function_id: "f0".into(), ..InvokeRequest::default() };
        assert_eq!(client.call(&invoke).await.unwrap().body.0, "hello", "{what}");
        for outcome in outcomes.join_all().await {
            assert!(is_refused(&outcome, code), "{what}: {outcome:?}");
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{what}: {:?}", started.elapsed());
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(tree(data.path()), before);
    let peak = status_mb(&daemon, "VmHWM:");
    assert!(peak < memory + 48, "{memory} MiB before, {peak} MiB at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_deploys_archives_and_packs_folders() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let work = samples::folder_of(&[
        ("fn/.gitignore", "dist\nnode_modules\nsecret.txt\n"),
        ("fn/.levainignore", "*.test.ts\n"),
        ("fn/index.ts", "import { word } from 'words'; export default () => new Response(word as string);"),
        ("fn/index.test.ts", "throw new Error('this is a test');"),
        ("fn/secret.txt", "words"),
        ("fn/.env", "KEY=1"),
        ("fn/.git/HEAD", "ref: refs/heads/main"),
        ("fn/dist/index.js", "this is not it"),
        ("fn/node_modules/words/package.json", r#"{ "name": "words", "main": "index.js" }"#),
        ("fn/node_modules/words/index.js", "exports.word = 'packed';"),
    ]);
    let path = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
    let levain = async |arguments: &[&str]| {
        let output = daemon.cli(&[&["--json"], arguments].concat()).await;
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        output.json()
    };
    let read = levain(&["deploy", "f", &path("fn")]).await;
    let function = read["function_id"].as_str().unwrap();
    let bundle = data.path().join("bundles").join(function).join("v1");
    let wanted = [
        "index.ts",
        "node_modules",
        "node_modules/words",
        "node_modules/words/index.js",
        "node_modules/words/package.json",
    ];
    let wanted: BTreeSet<_> = wanted.iter().map(|it| bundle.join(it).display().to_string()).collect();
    assert_eq!(tree(&bundle), wanted);
    // An uploaded folder becomes the same bundle.
    let sent = levain(&["deploy", "f", &path("fn"), "--upload"]).await;
    assert_eq!((&sent["published"], &sent["digest"]), (&false.into(), &read["digest"]));
    assert_eq!(daemon.cli(&["invoke", "f"]).await.ok().trim_end(), "packed");

    // This path leads each process to its own working directory, so the daemon does not find the folder there.
    let mut command = DaemonProcess::command(work.path()).await;
    command.env("LEVAIN_SOCKET", daemon.socket()).args(["--json", "deploy", "g", "/proc/self/cwd/fn"]);
    let elsewhere = DaemonProcess::output(command).await;
    assert_eq!((elsewhere.code, &elsewhere.json()["digest"]), (Some(0), &read["digest"]), "{elsewhere:?}");
    let missing = daemon.cli(&["--json", "deploy", "g", &path("nowhere")]).await;
    assert_eq!(missing.json()["code"], "BUNDLE_NOT_FOUND", "{missing:?}");

    // An archive packed by hand includes every file of the folder.
    let tgz = path("x.tgz");
    let packed = Command::new("tar").args(["czf", &tgz, "-C", &path("."), "fn"]).output().unwrap();
    assert!(packed.status.success(), "{packed:?}");
    for flags in [&[][..], &["--upload"]] {
        let deployed = levain(&[&["deploy", "h", &tgz], flags].concat()).await;
        assert_eq!(deployed["number"], 1, "{deployed}");
    }
    assert_eq!(daemon.cli(&["invoke", "h"]).await.ok().trim_end(), "packed");
    let code = path("one.ts");
    fs::write(&code, "export default (): Response => new Response('one' as string);").unwrap();
    let read = levain(&["deploy", "one", &code]).await;
    let sent = levain(&["deploy", "one", &code, "--upload"]).await;
    assert_eq!((&sent["published"], &sent["digest"]), (&false.into(), &read["digest"]));

    // An upload over the limit is refused with a reason, not cut off.
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(17 << 20).collect();
    fs::write(path("fn/noise.bin"), noise).unwrap();
    let large = daemon.cli(&["--json", "deploy", "f", &path("fn"), "--upload"]).await;
    assert_eq!(large.json()["code"], "PAYLOAD_TOO_LARGE", "{large:?}");
    let read = levain(&["deploy", "f", &path("fn")]).await;
    assert_eq!(read["number"], 2);
}
