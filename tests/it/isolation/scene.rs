//! A daemon at one level of the sandbox, with an attacker and a victim in it.

use super::{
    outcome::{Level, Outcome},
    surroundings::{SECRET, Surroundings},
};
use crate::harness::{DaemonProcess, bun, get, refused, text, until};
use levain::{
    client::{Client, ClientError},
    error::Error,
    model::SettingsPatch,
    protocol::{
        field::Body,
        message::{DeleteRequest, DeployRequest, InvokeRequest, RegisterRequest, StatusRequest},
    },
};
use std::{
    fmt,
    fs::{self, Permissions},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

/// User that the daemon runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    Root,
    /// An unprivileged user: an unassigned user id where the test may choose, else the test's own user.
    Ordinary,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Ordinary => "an ordinary user",
        })
    }
}

/// A number unique among the scenes of this machine: tests run beside each other, and must not collide.
fn unique_number() -> u32 {
    static SCENES: AtomicU32 = AtomicU32::new(0);
    let scene = SCENES.fetch_add(1, Ordering::Relaxed);
    std::process::id() % 50_000 * 16 + scene % 16
}

impl Identity {
    /// The daemon's user id, unless the daemon keeps the test's user. The kernel counts limits by user.
    fn uid(self, number: u32) -> Option<u32> {
        (self == Self::Ordinary && nix::unistd::geteuid().is_root()).then_some(200_000 + number)
    }
}

pub const ATTACKER: &str = "attacker";

/// Has the attacks too, and keeps its worker for further attempts.
pub const REPEATER: &str = "repeater";
const VICTIM: &str = "victim";

/// Memory limit of an attacker's worker, in MiB.
const MEMORY_MB: u32 = 64;

/// The victim answers, and writes a file in its own folder on demand.
const VICTIM_CODE: &str = "import fs from 'node:fs';
    export default (request) => {
        if (!request.url.endsWith('/leave')) return new Response('hello');
        const file = process.env.TMPDIR + '/left-here';
        fs.writeFileSync(file, 'of the victim');
        return new Response(file);
    };";

pub struct Scene {
    pub level: Level,
    /// Number unique to this scene.
    pub number: u32,
    /// The daemon's user id, if only the daemon uses it.
    pub uid: Option<u32>,
    /// Whether control groups count the resources of workers.
    pub is_counted: bool,
    pub daemon: DaemonProcess,
    pub client: Client,
    pub surroundings: Surroundings,
    /// Process id of the victim's worker.
    pub victim: u32,
    /// Folder of the victim's bundle.
    pub victim_bundle: PathBuf,
    /// Path of a file in the victim's folder, as the victim sees it.
    pub victim_file: PathBuf,
    /// Socket of the victim's worker; a path without a file if the socket is out of reach.
    pub victim_socket: PathBuf,
    heartbeat: Heartbeat,
    folder: TempDir,
}

impl Scene {
    /// Starts a daemon whose sandbox has exactly this level. The error says why the level is unavailable here.
    pub async fn start(level: Level, identity: Identity) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        // An ordinary user must be able to enter; the data directory is still private.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().canonicalize().unwrap();
        let data = path.join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
        let number = unique_number();
        let uid = identity.uid(number);
        if let Some(uid) = uid {
            chown(&data, Some(uid), Some(uid)).unwrap();
        }
        let config = path.join("config.toml");
        fs::write(&config, "[functions]\ntimeout_seconds = 20\n").unwrap();
        place(Path::new(env!("CARGO_BIN_EXE_levain")), &path.join("levain"));
        place(bun().await, &path.join("bun"));
        let mut command = Command::new(path.join("levain"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &data).env("LEVAIN_BUN", path.join("bun"));
        command.env("OPERATORS_SECRET", SECRET).current_dir(&path).stdin(Stdio::null());
        // The data directory is the default: the folder `data` in the daemon's working directory.
        command.arg("serve").arg("--config").arg(&config);
        command.env("LEVAIN_WORKERS_MEMORY_POLL_MS", "20").env("LEVAIN_VERSIONING_BYTECODE", "off");
        // The victim's worker is the only child of the daemon, until the attacker's starts.
        command.env("LEVAIN_WORKERS_PREWARMED_WORKERS", "0").env("LEVAIN_HTTP_ADDRESS", "off");
        set_level(&mut command, level);
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let daemon = DaemonProcess::try_spawn(command, &data).await?;
        let client = daemon.client().await;
        let status = client.call(&StatusRequest {}).await.unwrap();
        assert_eq!(status.sandbox.level, level.name());
        let surroundings = Surroundings::make(&path, number, uid).await;

        let settings = SettingsPatch { warm_workers: Some(1), ..SettingsPatch::default() };
        deploy(&client, VICTIM, settings, Body::from(VICTIM_CODE.as_bytes().to_vec())).await;
        let victim = until("the victim has one worker", || async {
            <[u32; 1]>::try_from(children(daemon.pid())).ok().map(|[pid]| pid)
        })
        .await;
        let victim_file = client.call(&get(VICTIM, "/leave")).await.unwrap();
        let is_socket = |path: &Path| fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
        let victim_socket = one_below(&data.join("run"), is_socket).unwrap_or(data.join("run/1/s"));
        let repeated = SettingsPatch { memory_mb: Some(MEMORY_MB), ..SettingsPatch::default() };
        // Every attempt begins in a new worker.
        let settings = SettingsPatch { max_requests_per_worker: Some(1), ..repeated };
        let attacks = copy_attacks(&path);
        for (name, settings) in [(ATTACKER, settings), (REPEATER, repeated)] {
            deploy_folder(&client, name, settings, &attacks).await.expect("a good bundle");
        }
        Ok(Self {
            level,
            number,
            uid,
            is_counted: status.sandbox.cgroups.is_some_and(|it| it.contains("memory") && it.contains("pids")),
            heartbeat: Heartbeat::start(&client),
            victim,
            victim_bundle: one_below(&data.join("bundles"), |it| {
                fs::read_to_string(it).is_ok_and(|it| it.contains("of the victim"))
            })
            .expect("the victim's bundle is on disk"),
            victim_socket,
            victim_file: text(&victim_file).into(),
            daemon,
            client,
            surroundings,
            folder,
        })
    }

    /// The daemon's data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("data")
    }

    /// The daemon's configuration file.
    pub fn config(&self) -> PathBuf {
        self.data().with_file_name("config.toml")
    }

    /// Runs one attempt: `group.name` of the attacks, and its parameters.
    pub async fn attack(&self, name: &str, query: &[(&str, String)]) -> Outcome {
        self.attack_from(ATTACKER, name, query).await
    }

    /// Runs one attempt from another function.
    pub async fn attack_from(&self, function: &str, name: &str, query: &[(&str, String)]) -> Outcome {
        let mut path = format!("/?attack={name}");
        for (key, value) in query {
            let value: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            path += &format!("&{key}={value}");
        }
        let request = InvokeRequest { timeout_ms: Some(15_000), ..get(function, &path) };
        match self.client.call(&request).await {
            Ok(answer) => Outcome::of(&answer),
            Err(ClientError::Refused(error)) => Outcome::Refused(error.code, error.message),
            Err(error) => Outcome::Broken(error.to_string()),
        }
    }

    /// Deploys the attacks under another name and without a limit to the invocations of a worker.
    pub async fn deploy_another(&self, name: &str, settings: SettingsPatch) -> Result<(), Error> {
        deploy_folder(&self.client, name, settings, &self.data().with_file_name("attacks")).await
    }

    pub async fn delete(&self, name: &str) {
        self.client.call(&DeleteRequest { function_id: name.into() }).await.unwrap();
    }

    /// Checks that the daemon, the victim and the process beside them are unharmed, and that the victim has answered
    /// throughout.
    pub async fn others_are_well(&self) -> Result<(), String> {
        self.heartbeat.next().await?;
        let workers = children(self.daemon.pid());
        if !workers.contains(&self.victim) {
            return Err(format!("the victim's worker is gone; there are {workers:?}"));
        }
        if !self.surroundings.process_lives() {
            return Err("the process beside the daemon was ended".into());
        }
        Ok(())
    }

    /// Stops the daemon, and lists what it leaves behind.
    pub async fn stop(self) -> Vec<String> {
        let mut trouble = self.heartbeat.stop().await;
        let pid = self.daemon.pid();
        self.daemon.signal(nix::sys::signal::Signal::SIGTERM);
        let status = self.daemon.ended().await;
        if !status.success() {
            trouble.push(format!("the daemon ended with {status}"));
        }
        if !children(pid).is_empty() {
            trouble.push("workers are left".into());
        }
        trouble
    }
}

/// Sets the sandbox's level in the daemon's environment.
fn set_level(command: &mut Command, level: Level) {
    match level {
        Level::Off => command.env("LEVAIN_SANDBOX_MODE", "off"),
        // In strict mode, the daemon refuses to start at a lower level.
        _ => command.env("LEVAIN_SANDBOX_MODE", "strict").env("LEVAIN_SANDBOX_LEVEL", level.name()),
    };
}

/// Copies a program to a place where everybody can run it.
fn place(program: &Path, place: &Path) {
    let program = program.canonicalize().unwrap();
    if fs::hard_link(&program, place).is_err() {
        fs::copy(&program, place).unwrap();
    }
}

/// Copies the attacks' files to a place where everybody can read them.
fn copy_attacks(to: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/isolation/attacks");
    let to = to.join("attacks");
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

async fn register(client: &Client, name: &str, settings: SettingsPatch) {
    let request = RegisterRequest { name: name.into(), settings: Some(settings), ..RegisterRequest::default() };
    client.call(&request).await.unwrap();
}

async fn deploy(client: &Client, name: &str, settings: SettingsPatch, code: Body) {
    register(client, name, settings).await;
    let request = DeployRequest { function_id: name.into(), bundle: Some(code), ..DeployRequest::default() };
    client.call(&request).await.unwrap();
}

async fn deploy_folder(client: &Client, name: &str, settings: SettingsPatch, folder: &Path) -> Result<(), Error> {
    register(client, name, settings).await;
    let bundle_path = Some(folder.to_str().unwrap().into());
    let request = DeployRequest { function_id: name.into(), bundle_path, ..DeployRequest::default() };
    client.call(&request).await.map(drop).map_err(refused)
}

/// Child processes of this parent.
fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The state and the parent follow the name, which may contain anything.
        let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
        fields.next() != Some("Z") && fields.next() == Some(&parent.to_string())
    };
    processes().filter(is_child).collect()
}

/// Processes with this text among their arguments.
pub fn marked(mark: &str) -> Vec<u32> {
    let has_mark = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes())
    };
    processes().filter(has_mark).collect()
}

/// Processes with this name, including ended ones that are not reaped.
pub fn named(name: &str) -> Vec<u32> {
    let has_name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.trim_end() == name);
    processes().filter(has_name).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Finds a file below a folder that satisfies a condition.
fn one_below(folder: &Path, condition: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if condition(&path) {
                return Some(path);
            }
        }
    }
    None
}

/// A caller that invokes the victim all the time, and at once when somebody waits for it.
struct Heartbeat {
    wanted: Arc<Notify>,
    answered: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Heartbeat {
    fn start(client: &Client) -> Self {
        let (client, answered, failures) = (client.clone(), Arc::<AtomicUsize>::default(), Arc::default());
        let wanted = Arc::<Notify>::default();
        let task = tokio::spawn({
            let (answered, failures) = (Arc::clone(&answered), Arc::<Mutex<Vec<String>>>::clone(&failures));
            let wanted = Arc::clone(&wanted);
            async move {
                loop {
                    match client.call(&get(VICTIM, "/")).await {
                        Ok(answer) if answer.success && text(&answer) == "hello" => {}
                        outcome => failures.lock().unwrap().push(format!("the victim does not answer: {outcome:?}")),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    let _ = timeout(Duration::from_millis(20), wanted.notified()).await;
                }
            }
        });
        Self { wanted, answered, failures, task }
    }

    /// Waits for two more answers: the second invocation has begun after this function was called.
    async fn next(&self) -> Result<(), String> {
        let count = self.answered.load(Ordering::Relaxed) + 2;
        until("the victim answers", || async {
            while self.answered.load(Ordering::Relaxed) < count {
                self.wanted.notify_one();
                tokio::task::yield_now().await;
            }
            Some(())
        })
        .await;
        self.failures.lock().unwrap().drain(..).next().map_or(Ok(()), Err)
    }

    async fn stop(&self) -> Vec<String> {
        self.task.abort();
        std::mem::take(&mut self.failures.lock().unwrap())
    }
}
