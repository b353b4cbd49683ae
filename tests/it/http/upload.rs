//! Uploaded forms: they are spooled to disk instead of memory, only for clients that may deploy, and removed with their
//! connection.

use crate::harness::{DaemonProcess, until};
use serde_json::Value;
use std::{fs, net::SocketAddr};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const MIB: usize = 1 << 20;

/// Limit of a form in MiB, in the default configuration.
const FORM_MIB_MAX: usize = 65;

/// Starts a daemon process, and returns its HTTP address.
async fn start(data_dir: &std::path::Path) -> (DaemonProcess, SocketAddr) {
    let mut command = DaemonProcess::serve(data_dir).await;
    command.env("LEVAIN_HTTP_ADDRESS", "127.0.0.1:0");
    let daemon = DaemonProcess::spawn(command, data_dir).await;
    let said = daemon.stderr();
    let address =
        said.split("\"http\":\"").nth(1).and_then(|it| it.split('"').next()).expect("the daemon logs its address");
    (daemon, address.parse().unwrap())
}

/// Anonymous memory of the process, in MiB.
fn memory_mib(daemon: &DaemonProcess) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux reports RssAnon");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
}

/// Bytes of unnamed files that the daemon has open in its data directory.
fn spooled_bytes(daemon: &DaemonProcess) -> u64 {
    let files = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().filter_map(|it| Some(it.ok()?.path()));
    let spooled = files.filter(|fd| {
        let target = fs::read_link(fd).unwrap_or_default().to_string_lossy().into_owned();
        target.contains("/incoming/") && target.ends_with(" (deleted)")
    });
    spooled.filter_map(|fd| fs::metadata(fd).ok()).map(|it| it.len()).sum()
}

fn token(data_dir: &std::path::Path) -> String {
    fs::read_to_string(data_dir.join("admin.token")).unwrap().trim().to_owned()
}

/// Sends the beginning of a form that announces an archive of this many bytes.
async fn begin(address: SocketAddr, token: &str, archive_bytes: usize) -> TcpStream {
    let begin = "--b\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\nf\r\n\
                 --b\r\ncontent-disposition: form-data; name=\"archive\"; filename=\"a.tgz\"\r\n\r\n";
    let length = begin.len() + archive_bytes + "\r\n--b--\r\n".len();
    let head = format!(
        "POST /api/functions/deploy HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{begin}"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads an answer, and returns its status and its code.
async fn answer(stream: TcpStream) -> (u16, Value) {
    let (status, body) = whole_answer(stream).await;
    (status, body["code"].clone())
}

/// Reads an answer, and returns its status and its whole body.
async fn whole_answer(mut stream: TcpStream) -> (u16, Value) {
    let text = super::answer(&mut stream).await;
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_to_the_disk_and_is_gone_with_its_sender() {
    const SENT: usize = 48;
    let data = tempfile::tempdir().unwrap();
    let (daemon, address) = start(data.path()).await;
    let token = token(data.path());
    let before = memory_mib(&daemon);
    let chunk = vec![b'x'; MIB];
    let mut uploads = Vec::new();
    for _ in 0..3 {
        let mut stream = begin(address, &token, (SENT + 1) * MIB).await;
        for _ in 0..SENT {
            stream.write_all(&chunk).await.unwrap();
        }
        uploads.push(stream);
    }
    until("nearly all of it is on the disk", async || {
        (spooled_bytes(&daemon) > (3 * (SENT - 4) * MIB) as u64).then_some(())
    })
    .await;
    let during = memory_mib(&daemon);
    assert!(during < before + 32, "{before} MiB before, {during} MiB with {} MiB on their way", 3 * SENT);
    // Two clients disconnect; the third completes its form, which does not contain an archive.
    let mut last = uploads.pop().unwrap();
    drop(uploads);
    last.write_all(&chunk).await.unwrap();
    last.write_all(b"\r\n--b--\r\n").await.unwrap();
    assert_eq!(answer(last).await, (400, "BUNDLE_INVALID".into()));
    until("nothing is left on the disk", async || (spooled_bytes(&daemon) == 0).then_some(())).await;
    assert_eq!(fs::read_dir(data.path().join("incoming")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_bounded_in_bytes_and_number_and_for_those_who_may_deploy() {
    const UPLOADS: usize = 16;
    let data = tempfile::tempdir().unwrap();
    let (daemon, address) = start(data.path()).await;
    let token = token(data.path());
    let large = begin(address, &token, FORM_MIB_MAX * MIB).await;
    let (status, refused) = whole_answer(large).await;
    assert_eq!((status, refused["code"].as_str()), (413, Some("PAYLOAD_TOO_LARGE")));
    assert!(refused["error"].as_str().unwrap().contains("limits.bundle_bytes_max"), "{refused}");

    let mut all = Vec::new();
    for _ in 0..UPLOADS {
        let mut stream = begin(address, &token, 2 * MIB).await;
        stream.write_all(&vec![b'x'; MIB]).await.unwrap();
        all.push(stream);
    }
    until("all are on the disk", async || (spooled_bytes(&daemon) > (UPLOADS * MIB / 2) as u64).then_some(())).await;
    let refused = begin(address, &token, 10).await;
    assert_eq!(answer(refused).await, (429, "OVERLOADED".into()));
    drop(all);
    until("there is room again", async || {
        let mut stream = begin(address, &token, 10).await;
        stream.write_all(b"0123456789\r\n--b--\r\n").await.unwrap();
        (answer(stream).await == (400, "BUNDLE_INVALID".into())).then_some(())
    })
    .await;

    let reader = daemon.cli(&["token", "create", "reader", "--scope", "read", "--json"]).await.json();
    let refused = begin(address, reader["token"].as_str().unwrap(), 60 * MIB).await;
    assert_eq!(answer(refused).await, (403, "FORBIDDEN".into()), "refused before the body is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_code_is_small() {
    let data = tempfile::tempdir().unwrap();
    let (_daemon, address) = start(data.path()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let begin = "--b\r\ncontent-disposition: form-data; name=\"description\"\r\n\r\n";
    let head = format!(
        "POST /api/functions/deploy HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{begin}",
        token(data.path()),
        begin.len() + 2 * MIB
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 2 * MIB]).await.unwrap();
    assert_eq!(answer(stream).await, (413, "PAYLOAD_TOO_LARGE".into()));
}
