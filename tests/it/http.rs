//! The HTTP face, tested with real `curl` for a client's view, and with raw bytes for details of the protocol.

mod access_log;
mod api;
mod auth;
mod contract;
mod details;
mod exposition;
mod frames;
mod gateway;
mod guides;
mod host;
mod hostile;
mod http2;
mod limits;
mod listen;
mod metrics;
mod origin;
mod pace;
mod places;
mod ready;
mod smuggling;
mod tls;
mod unread;
mod upload;

use crate::harness::TestDaemon;
use levain::config::Config;
use std::{net::SocketAddr, process::Stdio};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

/// Starts a daemon that serves HTTP on a port of its own.
pub async fn daemon() -> TestDaemon {
    daemon_with(|_| {}).await
}

pub async fn daemon_with(change: impl FnOnce(&mut Config)) -> TestDaemon {
    TestDaemon::start_with(|config| {
        config.http.address = "127.0.0.1:0".into();
        change(config);
    })
    .await
}

/// An answer as `curl` received it.
#[derive(Debug)]
pub struct Shown {
    /// Lines of the last head.
    head: Vec<String>,
    body: Vec<u8>,
    is_complete: bool,
}

impl Shown {
    pub fn status(&self) -> u16 {
        self.head[0].split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Values of a header.
    fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head[1..].iter().filter_map(|line| line.split_once(": "));
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    fn header(&self, name: &str) -> &str {
        self.all(name).first().unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `curl` with these arguments and a path of the daemon; `input` is its standard input.
async fn curl_with(daemon: &TestDaemon, arguments: &[&str], path: &str, input: &[u8]) -> Shown {
    let address = daemon.http();
    let mut command = Command::new("curl");
    command.args(["--silent", "--include", "--max-time", "30", "--noproxy", "*"]);
    command.args(["--connect-to", &format!("::{}:{}", address.ip(), address.port())]).args(arguments);
    command.arg(if path.starts_with("http") { path.to_owned() } else { format!("http://{address}{path}") });
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("curl is there");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = tokio::spawn(async move {
        // The daemon may stop reading.
        let _ = stdin.write_all(&input).await;
    });
    let output = child.wait_with_output().await.unwrap();
    writing.await.unwrap();
    let mut rest = output.stdout;
    let mut head = Vec::new();
    // Each interim answer, such as `100 Continue`, has a head of its own.
    while rest.starts_with(b"HTTP/") {
        let end = rest.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        head = String::from_utf8(rest[..end].to_vec()).unwrap().lines().map(str::to_owned).collect();
        rest.drain(..end + 4);
    }
    assert!(!head.is_empty(), "no answer: {}", String::from_utf8_lossy(&output.stderr));
    Shown { head, body: rest, is_complete: output.status.success() }
}

pub async fn curl(daemon: &TestDaemon, arguments: &[&str], path: &str) -> Shown {
    curl_with(daemon, arguments, path, b"").await
}

/// Sends a request, and reads its answer to the end that its length announces. The daemon may go on reading the request.
async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    answer(&mut stream).await
}

/// Reads one answer to the end that its length announces, or to the end of the connection.
async fn answer(stream: &mut TcpStream) -> String {
    let is_whole = |answer: &str| {
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        Some(body.len() >= length.parse().ok()?)
    };
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if is_whole(&text) == Some(true) || !matches!(stream.read_buf(&mut bytes).await, Ok(some) if some > 0) {
            return text;
        }
    }
}

/// Sends bytes, and reads until the daemon closes the connection.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
