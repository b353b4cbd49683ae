//! What attackers go for beside the daemon: files, a process and sockets, made by the test and gone with it.
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

/// In the environment of the daemon and of a process beside it, for attackers to find.
pub const SECRET: &str = "9f1c-what-no-function-may-know";

pub struct Surroundings {
    /// Readable for everybody.
    pub secret_file: PathBuf,
    /// Writable for everybody.
    pub open_folder: PathBuf,
    /// A program of the daemon's user.
    process: Child,
    /// A socket that greets everybody.
    pub socket: PathBuf,
    /// The same without a file.
    pub abstract_name: String,
    /// The same on the loopback.
    pub port: u16,
    shared_memory: SharedMemory,
    _greeters: JoinSet<()>,
}

impl Surroundings {
    /// Makes everything below a folder that the daemon's user can reach, under names made of a number of its own.
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

    /// A process of the same user as the daemon.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    pub fn shared_memory_key(&self) -> i32 {
        self.shared_memory.key
    }

    /// Whether nobody has ended the process.
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

/// Answers the first byte. It is read before the stream is closed, which would reset the connection otherwise.
async fn greet(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    const PATIENCE: Duration = Duration::from_secs(1);
    if let Ok(Ok(1)) = timeout(PATIENCE, stream.read(&mut [0])).await {
        let _ = stream.write_all(b"hello").await;
    }
}

/// A segment that everybody may read, known by its key.
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
        // SAFETY: takes plain numbers, and nothing of this process is attached.
        unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}
