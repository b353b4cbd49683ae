//! workerd, a peer that runs each function in a V8 isolate of one process.
//!
//! It listens on Unix sockets, where it answers a little sooner than on TCP, and on one port for comparisons over HTTP.
//! It is called by the same bare client as the floors. Its functions are the samples' own text, with types removed by
//! Bun; only the function that burns CPU time differs, since workerd does not report CPU time: it runs as many rounds
//! as take a millisecond, which is measured beforehand.
//!
//! workerd makes the isolates of all configured services while it starts. The cost of a new isolate is thus measured
//! twice: as the time that one more service adds to the start, and as the first call of a function that the worker
//! loader, its interface for platforms, has not seen yet.

use crate::{
    Result,
    daemon::free_address,
    http1::{Call, HttpCaller},
    load::Caller,
    process::{self, Running},
};
use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The release that the bench installs.
const VERSION: &str = "1.20261117.1";

/// Environment variable with the path of another executable to use.
const PATH_VARIABLE: &str = "LEVAIN_BENCH_WORKERD";

/// Date that selects the workerd behaviours that the functions are written for.
const COMPATIBILITY_DATE: &str = "2026-01-01";

/// Number of functions whose isolates are made in a start that is compared with the start of one.
const SERVICES: usize = 25;

/// Rounds of the function that burns CPU time during calibration: some 50 ms.
const CALIBRATION_ROUNDS: u32 = 20_000;

/// Number of calibration calls; the fastest counts, as the code gets compiled on the way.
const CALIBRATION_CALLS: usize = 10;

/// Gives a function written for Bun the context that a platform would give it.
const ENTRY: &str = r#"
import handler from "./function.js";
const context = { invocationId: "exec-00000000-0000-7000-8000-000000000000", version: "v1" };
export default { fetch: (request) => handler(request, context) };
"#;

/// Burns CPU time. A round is the sample's work between two looks at its CPU time.
const CPU: &str = r#"
export default (request) => {
  const rounds = Number(new URL(request.url).searchParams.get("rounds"));
  let value = 0x9e3779b9;
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < 2_000; i++) value = Math.imul(value ^ (value >>> 15), 0x85ebca6b) + i;
  }
  return Response.json({ rounds, value: value >>> 0 });
};
"#;

/// Loads a function of its own for each path.
const LOADER: &str = r#"
import entry from "entry.txt";
import hello from "hello.txt";
export default {
  fetch(request, { LOADER, COMPATIBILITY_DATE }) {
    const modules = { "entry.js": entry, "function.js": hello };
    const code = () => ({ compatibilityDate: COMPATIBILITY_DATE, mainModule: "entry.js", modules });
    return LOADER.get(new URL(request.url).pathname, code).getEntrypoint().fetch(request);
  },
};
"#;

/// Folder where `--install-peers` installs workerd and every run looks for it.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers")
}

/// npm package with the executable for this machine.
fn package() -> &'static str {
    if cfg!(target_arch = "aarch64") { "@cloudflare/workerd-linux-arm64" } else { "@cloudflare/workerd-linux-64" }
}

/// Finds the executable: the path in the environment, else the one installed for the benchmark.
pub(crate) fn find() -> Option<PathBuf> {
    let named = env::var_os(PATH_VARIABLE).map(PathBuf::from);
    let installed = cache().join("node_modules").join(package()).join("bin/workerd");
    named.or_else(|| installed.exists().then_some(installed))
}

/// Explains how to install a missing workerd.
pub(crate) fn how_to_get_it() -> String {
    format!("workerd is missing: --install-peers installs it with npm, or {PATH_VARIABLE} names its path")
}

/// Installs the pinned release below `target/`.
pub(crate) fn install() -> Result<()> {
    let folder = cache();
    fs::create_dir_all(&folder)?;
    let package = format!("{}@{VERSION}", package());
    eprintln!("installing {package} with npm into {} (about 150 MB)", folder.display());
    let mut command = Command::new("npm");
    command.args(["install", "--no-global", "--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit"]);
    command.args(["--no-fund", "--no-update-notifier", "--loglevel=error", "--prefix"]).arg(&folder).arg(&package);
    match command.current_dir(&folder).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("npm could not install {package}: {status}").into()),
        Err(error) => Err(format!("npm cannot be run: {error}").into()),
    }
}

/// A workerd process with all functions in it.
#[derive(Debug)]
pub(crate) struct Workerd {
    _process: Running,
    executable: PathBuf,
    version: String,
    folder: TempDir,
    port: SocketAddr,
    /// Rounds of the function that burns CPU time in one millisecond.
    rounds_per_ms: u32,
    /// Number of functions that the loader has seen.
    loaded: usize,
}

impl Workerd {
    /// Starts workerd; `hello` is the sample in JavaScript.
    pub(crate) async fn start(executable: &Path, hello: &str) -> Result<Self> {
        let version = Command::new(executable).arg("--version").output();
        let version = version.map_err(|error| format!("{}: {error}", executable.display()))?.stdout;
        let version = String::from_utf8_lossy(&version).trim().to_owned();
        let folder = TempDir::new()?;
        let port = free_address()?;
        let files = [
            ("entry.js", ENTRY),
            ("hello.js", hello),
            ("cpu.js", CPU),
            ("loader.js", LOADER),
            ("all.capnp", &config_of_all(port)),
            ("one.capnp", &config_of(1)),
            ("many.capnp", &config_of(SERVICES)),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(name), text)?;
        }
        let process = serve(executable, folder.path(), "all.capnp")?;
        let executable = executable.into();
        let mut started = Self { _process: process, executable, version, folder, port, rounds_per_ms: 0, loaded: 0 };
        // The loader's socket is the last one: once it answers, all are there.
        let (socket, call) = (started.socket("loader"), Call::get("/"));
        process::retry(|| HttpCaller::connect(&socket, &call)).await?;
        // The first call loads the loader's own parts.
        started.isolate().await?;
        started.rounds_per_ms = started.calibrate().await?;
        Ok(started)
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// workerd closes a connection that has been idle for five seconds, so each slice has its own.
    async fn callers(&self, socket: &str, call: &Call, count: usize) -> Result<Vec<HttpCaller>> {
        let mut callers = Vec::new();
        for _ in 0..count {
            callers.push(HttpCaller::connect(&self.socket(socket), call).await?);
        }
        Ok(callers)
    }

    /// Callers of the greeting.
    pub(crate) async fn hello(&self, count: usize) -> Result<Vec<HttpCaller>> {
        self.callers("hello", &Call::get("/"), count).await
    }

    /// Callers of the greeting over TCP.
    pub(crate) async fn hello_over_tcp(&self, count: usize) -> Result<Vec<HttpCaller>> {
        let mut callers = Vec::new();
        for _ in 0..count {
            callers.push(HttpCaller::connect_tcp(self.port, &Call::get("/")).await?);
        }
        Ok(callers)
    }

    /// Callers of a function that burns a millisecond of CPU time.
    pub(crate) async fn cpu(&self, count: usize) -> Result<Vec<HttpCaller>> {
        self.callers("cpu", &Call::get(format!("/?rounds={}", self.rounds_per_ms)), count).await
    }

    async fn calibrate(&self) -> Result<u32> {
        let call = Call::get(format!("/?rounds={CALIBRATION_ROUNDS}"));
        let mut caller = HttpCaller::connect(&self.socket("cpu"), &call).await?;
        let mut fastest = Duration::MAX;
        for _ in 0..CALIBRATION_CALLS {
            let began = Instant::now();
            caller.call().await?;
            fastest = fastest.min(began.elapsed());
        }
        Ok((f64::from(CALIBRATION_ROUNDS) / (fastest.as_secs_f64() * 1e3)).round() as u32)
    }

    /// Times the first call of a function that is new to the loader.
    pub(crate) async fn isolate(&mut self) -> Result<Duration> {
        self.loaded += 1;
        let call = Call::get(format!("/function-{}", self.loaded));
        let mut caller = HttpCaller::connect(&self.socket("loader"), &call).await?;
        let began = Instant::now();
        caller.call().await?;
        Ok(began.elapsed())
    }

    /// Times another process from its start to its first answer: with one function, and the addition of each further
    /// one.
    pub(crate) async fn starts(&self) -> Result<(Duration, Duration)> {
        let one = self.start_of("one.capnp").await?;
        let many = self.start_of("many.capnp").await?;
        Ok((one, many.saturating_sub(one) / (SERVICES as u32 - 1)))
    }

    async fn start_of(&self, config: &str) -> Result<Duration> {
        let began = Instant::now();
        let _process = serve(&self.executable, self.folder.path(), config)?;
        let (socket, call) = (self.socket("first"), Call::get("/"));
        process::retry(|| HttpCaller::connect(&socket, &call)).await?.call().await?;
        let took = began.elapsed();
        fs::remove_file(socket)?;
        Ok(took)
    }
}

fn serve(executable: &Path, folder: &Path, config: &str) -> Result<Running> {
    let mut command = Command::new(executable);
    // The worker loader counts as experimental.
    command.args(["serve", "--experimental", config]).current_dir(folder);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Running::spawn(&mut command)?)
}

/// Configures a service with one function.
fn service(name: &str, file: &str) -> String {
    format!(
        r#"(name = "{name}", worker = (compatibilityDate = "{COMPATIBILITY_DATE}", modules = [
            (name = "entry.js", esModule = embed "entry.js"), (name = "function.js", esModule = embed "{file}")]))"#
    )
}

/// A socket's name, address and service.
type Listener<'a> = (&'a str, String, &'a str);

fn config(services: &str, listeners: &[Listener<'_>]) -> String {
    let socket = |(name, address, service): &Listener<'_>| {
        format!(r#"(name = "{name}", address = "{address}", http = (), service = "{service}")"#)
    };
    let sockets: Vec<String> = listeners.iter().map(socket).collect();
    format!(
        "using Workerd = import \"/workerd/workerd.capnp\";\n\
         const config :Workerd.Config = (services = [{services}], sockets = [{}]);\n",
        sockets.join(", ")
    )
}

/// Configures the functions of every round, each with a socket, and the greeting with a port too.
fn config_of_all(port: SocketAddr) -> String {
    let loader = format!(
        r#"(name = "loader", worker = (compatibilityDate = "{COMPATIBILITY_DATE}",
            modules = [(name = "loader.js", esModule = embed "loader.js"),
                (name = "entry.txt", text = embed "entry.js"), (name = "hello.txt", text = embed "hello.js")],
            bindings = [(name = "LOADER", workerLoader = ()),
                (name = "COMPATIBILITY_DATE", text = "{COMPATIBILITY_DATE}")]))"#
    );
    let services = [service("hello", "hello.js"), service("cpu", "cpu.js"), loader].join(", ");
    let unix = |name| (name, format!("unix:{name}"), name);
    config(&services, &[("port", port.to_string(), "hello"), unix("hello"), unix("cpu"), unix("loader")])
}

/// Configures this many functions that are alike, and a socket for one of them.
fn config_of(count: usize) -> String {
    let services: Vec<String> = (0..count).map(|number| service(&format!("s{number}"), "hello.js")).collect();
    config(&services.join(", "), &[("first", "unix:first".into(), "s0")])
}
