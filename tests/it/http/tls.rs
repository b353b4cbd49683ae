//! HTTPS, tested with real `curl` and certificates made by the tests.

use super::{Shown, curl_with, exchange};
use crate::harness::{DaemonProcess, TestDaemon, until};
use levain::config::HttpConfig;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream, process::Command};

const CODE: &str = r#"
export default async (req) => {
    const url = new URL(req.url);
    if (url.pathname === "/scheme") return new Response(req.headers.get("x-forwarded-proto"));
    if (url.pathname === "/echo") return new Response(req.body);
    if (url.pathname === "/wait") {
        await new Promise((resolve) => { req.signal.addEventListener("abort", () => { console.log("left"); resolve(); }); console.log("waits"); });
    }
    if (url.pathname === "/stream") return new Response(new ReadableStream({
        async start(controller) {
            for (let part = 0; part < 10; part++) { controller.enqueue(`part ${part}\n`); await Bun.sleep(100); }
            controller.close();
        },
    }));
    return new Response("ok");
};"#;

/// A certificate for localhost, its key, and the authority that signed it.
struct Certificate {
    authority: String,
    chain: String,
    key: String,
}

impl Certificate {
    fn new() -> Self {
        let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        // Different names distinguish an authority from its certificates.
        let named = |names: &[&str], name: &str| {
            let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let own = format!("authority {:x?}", &authority_key.public_key_raw()[..8]);
        let mut params = named(&[], &own);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(params, authority_key);
        let params = named(&["localhost", "f.localhost"], "localhost");
        let chain = params.signed_by(&key, &issuer).unwrap().pem();
        Self { authority, chain, key: key.serialize_pem() }
    }
}

/// Folder of a daemon's certificate.
struct Files(TempDir);

impl Files {
    fn of(certificate: &Certificate) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(certificate);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces key and certificate, as renewal tools do.
    fn write(&self, certificate: &Certificate) {
        for (name, text) in [("key.pem", &certificate.key), ("chain.pem", &certificate.chain)] {
            self.replace(name, text);
        }
    }

    fn replace(&self, name: &str, text: &str) {
        let new = self.path("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    async fn daemon(&self) -> TestDaemon {
        self.daemon_with(|_| {}).await
    }

    async fn daemon_with(&self, change: impl FnOnce(&mut HttpConfig)) -> TestDaemon {
        let daemon = super::daemon_with(|config| {
            config.http.tls_certificate = self.path("chain.pem").display().to_string();
            config.http.tls_key = self.path("key.pem").display().to_string();
            config.http.head_timeout_ms = 1_000;
            change(&mut config.http);
        })
        .await;
        daemon.deploy_text("f", CODE).await;
        daemon
    }
}

/// A client that trusts one authority.
struct Believer(TempDir);

impl Believer {
    fn of(certificate: &Certificate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("authority.pem"), &certificate.authority).unwrap();
        Self(folder)
    }

    fn authority(&self) -> String {
        self.0.path().join("authority.pem").display().to_string()
    }

    async fn curl(&self, daemon: &TestDaemon, arguments: &[&str], path: &str, input: &[u8]) -> Shown {
        let authority = self.authority();
        let arguments = [&["--cacert", &authority], arguments].concat();
        curl_with(daemon, &arguments, &format!("https://localhost:{}{path}", daemon.http().port()), input).await
    }

    /// Exit code of a `curl` that gets no answer, or might not get one.
    async fn code(&self, port: u16, arguments: &[&str]) -> i32 {
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "20", "--noproxy", "*", "--cacert", &self.authority()]);
        command.args(arguments).arg(format!("https://localhost:{port}/health"));
        command.output().await.unwrap().status.code().unwrap()
    }
}

/// Exit code of `curl` for a certificate without a trusted authority.
const NOT_BELIEVED: i32 = 60;

/// Exit code of `curl` for a failed handshake.
const NO_HANDSHAKE: i32 = 35;

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_called_over_tls() {
    let certificate = Certificate::new();
    let (files, client) = (Files::of(&certificate), Believer::of(&certificate));
    let daemon = files.daemon().await;
    let large: Vec<u8> = (0..3_000_000_u32).map(|it| (it % 251) as u8).collect();
    for (version, shown_as) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
        let shown = client.curl(&daemon, &[version], "/functions/f", b"").await;
        assert!(shown.text() == "ok" && shown.head[0].starts_with(shown_as), "{shown:?}");
        assert_eq!(client.curl(&daemon, &[version], "/functions/f/scheme", b"").await.text(), "https");
        let arguments = [version, "-X", "POST", "-T", "-"];
        let shown = client.curl(&daemon, &arguments, "/functions/f/echo", &large).await;
        assert!(shown.body == large, "{version}: {:?}", shown.head);
        let shown = client.curl(&daemon, &[version, "-N"], "/functions/f/stream", b"").await;
        assert!(shown.is_complete && shown.text().ends_with("part 9\n"), "{shown:?}");
        let name = format!("https://f.localhost:{}/", daemon.http().port());
        let shown = curl_with(&daemon, &["--cacert", &client.authority(), version], &name, b"").await;
        assert_eq!(shown.text(), "ok");
    }
    let port = daemon.http().port();
    for tls in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        assert_eq!(client.code(port, tls).await, 0, "{tls:?}");
    }
    let old = ["--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"];
    assert_eq!(client.code(port, &old).await, NO_HANDSHAKE);
    // A client that disconnects ends its invocation.
    let (daemon_ref, client_ref) = (&daemon, &client);
    let call = async {
        let url = format!("https://localhost:{port}/functions/f/wait");
        let mut command = Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--cacert", &client_ref.authority(), &url]).kill_on_drop(true);
        command.output().await
    };
    tokio::select! {
        _ = call => panic!("the function does not answer"),
        _ = daemon_ref.until_logged("f", "waits") => {}
    }
    daemon.until_logged("f", "left").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_something_else_learns_so_and_keeps_nobody_out() {
    let certificate = Certificate::new();
    let (files, client) = (Files::of(&certificate), Believer::of(&certificate));
    let daemon = files.daemon().await;
    assert_eq!(Believer::of(&Certificate::new()).code(daemon.http().port(), &[]).await, NOT_BELIEVED);
    let answer = exchange(daemon.http(), b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("begin with https://\n"), "{answer}");
    // An HTTP/2 preface, other bytes, an invalid handshake, and one that is never continued.
    for bytes in
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"\0\0\0", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\x02\x00"]
    {
        exchange(daemon.http(), bytes).await;
        assert_eq!(client.curl(&daemon, &[], "/health", b"").await.text(), "ok\n");
    }
    // A connection without a single byte.
    let mut silent = TcpStream::connect(daemon.http()).await.unwrap();
    assert_eq!(silent.read(&mut [0; 10]).await.unwrap(), 0, "it is cut off");
    let page = client.curl(&daemon, &[], "/metrics", b"").await;
    let page = super::exposition::Page::parse(page.text());
    assert_eq!(
        page.value("levain_http_slow_clients_total", &[]),
        2.0,
        "a connection in its handshake, and the silent one"
    );
    assert!(page.value("levain_http_tls_failures_total", &[]) >= 4.0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_counts_for_those_who_come_then() {
    let [first, second] = [(); 2].map(|()| Certificate::new());
    let (files, old, new) = (Files::of(&first), Believer::of(&first), Believer::of(&second));
    let daemon = files.daemon().await;
    let port = daemon.http().port();
    assert_eq!((old.code(port, &[]).await, new.code(port, &[]).await), (0, NOT_BELIEVED));
    let daemon_ref = &daemon;
    let streaming = old.curl(daemon_ref, &["-N"], "/functions/f/stream", b"");
    let renewing = async {
        daemon_ref.until_pool("f", "an answer is on its way", |pool| pool.busy == 1).await;
        files.write(&second);
        until("the new certificate is used", || async { (new.code(port, &[]).await == 0).then_some(()) }).await;
    };
    let (shown, ()) = tokio::join!(streaming, renewing);
    assert!(shown.is_complete && shown.text().ends_with("part 9\n"), "{shown:?}");
    assert_eq!(old.code(port, &[]).await, NOT_BELIEVED);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_over_tls_is_finished_when_the_daemon_stops() {
    let certificate = Certificate::new();
    let (files, client) = (Files::of(&certificate), Believer::of(&certificate));
    for version in ["--http1.1", "--http2"] {
        let daemon = files.daemon().await;
        let url = format!("https://localhost:{}/functions/f/stream", daemon.http().port());
        let mut command = Command::new("curl");
        command.args(["--silent", "-N", "--noproxy", "*", version, "--cacert", &client.authority(), &url]);
        let call = tokio::spawn(async move { command.output().await.unwrap() });
        daemon.until_pool("f", "an answer is on its way", |pool| pool.busy == 1).await;
        daemon.stop().await;
        let output = call.await.unwrap();
        assert!(output.status.success() && output.stdout.ends_with(b"part 9\n"), "{version}: {output:?}");
    }
}

/// A connection that is closed after its number of requests loses none of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_worn_connection_is_replaced_unnoticed() {
    let certificate = Certificate::new();
    let (files, client) = (Files::of(&certificate), Believer::of(&certificate));
    let daemon = files.daemon_with(|http| http.requests_per_connection_max = 3).await;
    let urls = format!("https://localhost:{}/functions/f?[1-40]", daemon.http().port());
    for version in [&["--http1.1"][..], &["--http2"], &["--http2", "--parallel", "--parallel-max", "4"]] {
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail", "--noproxy", "*", "--cacert", &client.authority()]);
        let output = command.args(version).arg(&urls).output().await.unwrap();
        assert!(output.status.success() && output.stdout == b"ok".repeat(40), "{version:?}: {output:?}");
    }
    let page = client.curl(&daemon, &[], "/metrics", b"").await;
    let connections = super::exposition::Page::parse(page.text()).value("levain_http_connections_total", &[]);
    // The last client has several requests under way on one connection, and all are served.
    assert!(connections > 27.0, "{connections}");
    daemon.stop().await;
}

async fn serve(data: &Path, certificate: &Path, key: &Path) -> std::process::Command {
    let mut command = DaemonProcess::serve(data).await;
    command.env("LEVAIN_HTTP_ADDRESS", "127.0.0.1:0");
    command.env("LEVAIN_HTTP_TLS_CERTIFICATE", certificate).env("LEVAIN_HTTP_TLS_KEY", key);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_make_no_certificate_are_named() {
    let data = tempfile::tempdir().unwrap();
    let [one, other] = [(); 2].map(|()| Certificate::new());
    let files = Files::of(&one);
    let [chain, key, wrong, none] = ["chain.pem", "key.pem", "wrong.pem", "none.pem"].map(|it| files.path(it));
    files.replace("wrong.pem", &other.key);
    files.replace("text.pem", "no certificate\n");
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGbMFcGCSqGSIb3DQEFDTBK\n-----END ENCRYPTED PRIVATE KEY-----\n";
    files.replace("encrypted.pem", encrypted);
    let (text, encrypted, empty) = (files.path("text.pem"), files.path("encrypted.pem"), PathBuf::new());
    let cases: [(&Path, &Path, &[&str]); 7] = [
        (&none, &key, &["none.pem (http.tls_certificate)", "No such file"]),
        (&chain, &none, &["none.pem (http.tls_key)", "No such file"]),
        (&text, &key, &["text.pem (http.tls_certificate)", "no certificate in PEM"]),
        (&chain, &text, &["text.pem (http.tls_key)", "no private key in PEM"]),
        (&chain, &encrypted, &["encrypted.pem (http.tls_key)", "encrypted"]),
        (&chain, &wrong, &["chain.pem and ", "wrong.pem do not work together"]),
        (&chain, &empty, &["LEVAIN_HTTP_TLS_CERTIFICATE: http.tls_certificate", "http.tls_key to be set too"]),
    ];
    for (certificate, key, parts) in cases {
        let output = DaemonProcess::output(serve(data.path(), certificate, key).await).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        for part in parts {
            assert!(output.stderr.contains(part), "`{part}` is missing: {}", output.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_renewal_changes_nothing_and_is_told() {
    let data = tempfile::tempdir().unwrap();
    let [first, second] = [(); 2].map(|()| Certificate::new());
    let (files, old, new) = (Files::of(&first), Believer::of(&first), Believer::of(&second));
    fs::set_permissions(files.path("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let command = serve(data.path(), &files.path("chain.pem"), &files.path("key.pem")).await;
    let daemon = DaemonProcess::spawn(command, data.path()).await;
    assert!(daemon.stderr().contains("can read the private key"), "{}", daemon.stderr());
    let port = daemon.http().await.port();
    files.replace("chain.pem", &second.chain);
    let daemon_ref = &daemon;
    until("the failed renewal is logged", || async { daemon_ref.stderr().contains("is not renewed").then_some(()) })
        .await;
    assert_eq!((old.code(port, &[]).await, new.code(port, &[]).await), (0, NOT_BELIEVED));
    // A change behind a symbolic link is not noticed until SIGHUP.
    files.replace("key.pem", &second.key);
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    until("the new certificate is used", || async { (new.code(port, &[]).await == 0).then_some(()) }).await;
    daemon.kill().await;
}
