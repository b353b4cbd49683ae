//! A package registry inside the test's process, with the small part of the protocol that an installation needs.

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha512};
use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::AbortHandle,
};

/// Serves version 1.2.0 of the package `words`.
pub struct Registry {
    pub address: SocketAddr,
    integrity: String,
    requests: Arc<AtomicUsize>,
    server: AbortHandle,
}

/// Packs the package; its scripts are never run.
fn package() -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let manifest = r#"{"name":"words","version":"1.2.0","main":"index.js","scripts":{"preinstall":"exit 1","postinstall":"exit 1"}}"#;
    for (path, text) in
        [("package/package.json", manifest), ("package/index.js", "exports.word = (name) => 'a word for ' + name;")]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let mut encoder = archive.into_inner().unwrap();
    encoder.flush().unwrap();
    encoder.finish().unwrap()
}

impl Registry {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bytes = package();
        let integrity = format!("sha512-{}", STANDARD.encode(Sha512::digest(&bytes)));
        let tarball = format!("http://{address}/words/-/words-1.2.0.tgz");
        let version = serde_json::json!({
            "name": "words", "version": "1.2.0", "dist": { "tarball": tarball, "integrity": integrity }
        });
        let about = serde_json::json!({
            "name": "words", "dist-tags": { "latest": "1.2.0" }, "versions": { "1.2.0": version }
        });
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut head = vec![0; 16 * 1024];
                let mut length = 0;
                while !head[..length].windows(4).any(|it| it == b"\r\n\r\n") {
                    match stream.read(&mut head[length..]).await {
                        Ok(read @ 1..) => length += read,
                        _ => break,
                    }
                }
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let (status, body) = match path {
                    "/words" => ("200 OK", about.to_string().into_bytes()),
                    "/words/-/words-1.2.0.tgz" => ("200 OK", bytes.clone()),
                    _ => ("404 Not Found", b"{}".to_vec()),
                };
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(&[answer.as_bytes(), &body].concat()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { address, integrity, requests, server: server.abort_handle() }
    }

    /// Number of requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// The `.npmrc` that points at the registry.
    pub fn npmrc(&self) -> String {
        format!("registry=http://{}/\n", self.address)
    }

    /// The lockfile of a project whose one dependency is `words`.
    pub fn lockfile(&self) -> String {
        let Self { address, integrity, .. } = self;
        format!(
            r#"{{
  "lockfileVersion": 1,
  "workspaces": {{
    "": {{
      "name": "p",
      "dependencies": {{
        "words": "^1.0.0",
      }},
    }},
  }},
  "packages": {{
    "words": ["words@1.2.0", "http://{address}/words/-/words-1.2.0.tgz", {{}}, "{integrity}"],
  }}
}}
"#
        )
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}
