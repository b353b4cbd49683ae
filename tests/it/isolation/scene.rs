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
use tokio::task::JoinHandle;

/// Who the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    Root,
    /// Nobody special: a number without a name where the test may choose, else who runs the test.
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

/// A number that no other scene of this machine has: tests run beside each other, and must not meet.
fn unique_number() -> u32 {
    static SCENES: AtomicU32 = AtomicU32::new(0);
    let scene = SCENES.fetch_add(1, Ordering::Relaxed);
    std::process::id() % 50_000 * 16 + scene % 16
}

impl Identity {
    /// The user that the daemon gets, if it does not simply keep the test's. Limits count by user.
    fn uid(self, number: u32) -> Option<u32> {
        (self == Self::Ordinary && nix::unistd::geteuid().is_root()).then_some(200_000 + number)
    }
}

const ATTACKER: &str = "attacker";
const VICTIM: &str = "victim";

/// MiB that a worker of the attacker may have.
const MEMORY_MB: u32 = 64;

/// The victim answers, and leaves a file in its own folder when it is told to.
const VICTIM_CODE: &str = "import fs from 'node:fs';
    export default (request) => {
        if (!request.url.endsWith('/leave')) return new Response('hello');
        const file = process.env.TMPDIR + '/left-here';
        fs.writeFileSync(file, 'of the victim');
        return new Response(file);
    };";

pub struct Scene {
    pub level: Level,
    /// What no other scene has.
    pub number: u32,
    /// The daemon's user, if nobody else is that one.
    pub uid: Option<u32>,
    /// Whether control groups count what workers use.
    pub is_counted: bool,
    pub daemon: DaemonProcess,
    pub client: Client,
    pub surroundings: Surroundings,
    /// The victim's worker.
    pub victim: u32,
    /// The victim's bundle.
    pub victim_bundle: PathBuf,
    /// A file in the victim's folder, as the victim names it.
    pub victim_file: PathBuf,
    /// The socket of the victim's worker; a path where nothing is, when it is out of reach.
    pub victim_socket: PathBuf,
    heartbeat: Heartbeat,
    folder: TempDir,
}

impl Scene {
    /// Starts a daemon whose sandbox has this level and no other. The error says why there is no such thing here.
    pub async fn start(level: Level, identity: Identity) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        // An ordinary user must get there; the data directory is its own all the same.
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
        // Without a data directory: it is the folder `data` where the daemon is started.
        command.arg("serve").arg("--config").arg(&config);
        command.env("LEVAIN_WORKERS_MEMORY_POLL_MS", "20").env("LEVAIN_VERSIONING_BYTECODE", "off");
        // The victim's worker is the only child of the daemon, until the attacker's comes.
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
        let settings = SettingsPatch {
            memory_mb: Some(MEMORY_MB),
            // Every attempt begins in a worker of its own.
            max_requests_per_worker: Some(1),
            ..SettingsPatch::default()
        };
        let attacks = copy_attacks(&path);
        deploy_folder(&client, ATTACKER, settings, &attacks).await.expect("a good bundle");
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

    /// Where the daemon keeps everything.
    pub fn data(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("data")
    }

    /// The daemon's configuration.
    pub fn config(&self) -> PathBuf {
        self.data().with_file_name("config.toml")
    }

    /// One attempt: `group.name` of the attacks, and what it needs.
    pub async fn attack(&self, name: &str, query: &[(&str, String)]) -> Outcome {
        self.attack_from(ATTACKER, name, query).await
    }

    /// The same from another function.
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

    /// Deploys the attacks once more, under another name and without a limit to the calls of a worker.
    pub async fn deploy_another(&self, name: &str, settings: SettingsPatch) -> Result<(), Error> {
        deploy_folder(&self.client, name, settings, &self.data().with_file_name("attacks")).await
    }

    pub async fn delete(&self, name: &str) {
        self.client.call(&DeleteRequest { function_id: name.into() }).await.unwrap();
    }

    /// The daemon, the victim and the process beside them are as they were, and the victim has answered all the time.
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

    /// Ends the daemon, and says what it leaves behind.
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

/// Tells the daemon which sandbox to have.
fn set_level(command: &mut Command, level: Level) {
    match level {
        Level::Off => command.env("LEVAIN_SANDBOX_MODE", "off"),
        // Strict: the daemon refuses to start with less.
        _ => command.env("LEVAIN_SANDBOX_MODE", "strict").env("LEVAIN_SANDBOX_LEVEL", level.name()),
    };
}

/// Puts a program where everybody can run it.
fn place(program: &Path, place: &Path) {
    let program = program.canonicalize().unwrap();
    if fs::hard_link(&program, place).is_err() {
        fs::copy(&program, place).unwrap();
    }
}

/// The attacks' files where everybody can read them.
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

/// The processes whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may contain anything: the state and the parent.
        let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
        fields.next() != Some("Z") && fields.next() == Some(&parent.to_string())
    };
    processes().filter(is_child).collect()
}

/// The processes that have this text among their arguments.
pub fn marked(mark: &str) -> Vec<u32> {
    let has_mark = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes())
    };
    processes().filter(has_mark).collect()
}

/// The processes with this name, those included that have ended and are not reaped.
pub fn named(name: &str) -> Vec<u32> {
    let has_name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.trim_end() == name);
    processes().filter(has_name).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A file below a folder that satisfies a condition.
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

/// Somebody who calls the victim all the time.
struct Heartbeat {
    answered: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Heartbeat {
    fn start(client: &Client) -> Self {
        let (client, answered, failures) = (client.clone(), Arc::<AtomicUsize>::default(), Arc::default());
        let task = tokio::spawn({
            let (answered, failures) = (Arc::clone(&answered), Arc::<Mutex<Vec<String>>>::clone(&failures));
            async move {
                loop {
                    match client.call(&get(VICTIM, "/")).await {
                        Ok(answer) if answer.success && text(&answer) == "hello" => {}
                        outcome => failures.lock().unwrap().push(format!("the victim does not answer: {outcome:?}")),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        Self { answered, failures, task }
    }

    /// Waits for two more answers: the second was asked for after this was called.
    async fn next(&self) -> Result<(), String> {
        let wanted = self.answered.load(Ordering::Relaxed) + 2;
        let answered = || async { (self.answered.load(Ordering::Relaxed) >= wanted).then_some(()) };
        until("the victim answers", answered).await;
        self.failures.lock().unwrap().drain(..).next().map_or(Ok(()), Err)
    }

    async fn stop(&self) -> Vec<String> {
        self.task.abort();
        std::mem::take(&mut self.failures.lock().unwrap())
    }
}
