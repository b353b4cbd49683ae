//! Targets beside the daemon: files, a process and sockets, made by the test and removed with it.
#![allow(unsafe_code, reason = "shared memory of System V has no safe wrapper")]

use std::{
    fs::{self, Permissions},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::timeout,
};

/// Secret in the environment of the daemon and of a process beside it, for attackers to find.
pub const SECRET: &str = "9f1c-what-no-function-may-know";

pub struct Surroundings {
    /// A file that everybody may read.
    pub secret_file: PathBuf,
    /// A folder that everybody may write to.
    pub open_folder: PathBuf,
    /// A program that runs as the daemon's user.
    process: Child,
    /// A Unix socket that greets every client.
    pub socket: PathBuf,
    /// An abstract socket that greets every client.
    pub abstract_name: String,
    /// A loopback port that greets every client.
    pub port: u16,
    shared_memory: SharedMemory,
    _greeters: JoinSet<()>,
}

impl Surroundings {
    /// Makes everything below a folder that the daemon's user can reach; its names contain the scene's number.
    pub async fn make(folder: &Path, number: u32, uid: Option<u32>) -> Self {
        let open_folder = folder.join("open");
        fs::create_dir(&open_folder).unwrap();
        fs::set_permissions(&open_folder, Permissions::from_mode(0o777)).unwrap();
        let secret_file = folder.join("secret.txt");
        fs::write(&secret_file, SECRET).unwrap();
        let mut command = Command::new("/bin/sleep");
        command.arg("1000").env_clear().env("SECRET", SECRET).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut greeters = JoinSet::new();
        let socket = open_folder.join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
        greet_unix(&mut greeters, listener);
        let abstract_name = format!("levain-test-{number}");
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        greet_unix(&mut greeters, UnixListener::bind_addr(&address).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        greeters.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                greet(stream).await;
            }
        });
        Self {
            secret_file,
            open_folder,
            process: command.spawn().unwrap(),
            socket,
            abstract_name,
            port,
            shared_memory: SharedMemory::new(number),
            _greeters: greeters,
        }
    }

    /// Id of a process of the daemon's user.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    pub fn shared_memory_key(&self) -> i32 {
        self.shared_memory.key
    }

    /// Whether the process is still running.
    pub fn process_lives(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/cmdline", self.process())).is_ok_and(|it| it.starts_with("/bin/sleep"))
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn greet_unix(greeters: &mut JoinSet<()>, listener: UnixListener) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    greeters.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            greet(stream).await;
        }
    });
}

/// Answers the first byte. Without reading it, closing the stream would reset the connection.
async fn greet(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    const PATIENCE: Duration = Duration::from_secs(1);
    if let Ok(Ok(1)) = timeout(PATIENCE, stream.read(&mut [0])).await {
        let _ = stream.write_all(b"hello").await;
    }
}

/// A segment that everybody may read, identified by its key.
struct SharedMemory {
    key: i32,
    id: i32,
}

impl SharedMemory {
    fn new(number: u32) -> Self {
        let key = 0x4c00_0000 | number as i32;
        // SAFETY: takes plain numbers.
        let id = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
        assert!(id >= 0, "{}", std::io::Error::last_os_error());
        Self { key, id }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: takes plain numbers, and the segment is not attached to this process.
        unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}
