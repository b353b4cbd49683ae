//! The command socket: its file, the check of its peers, and a task for each connection.
//!
//! **Invariants.** A socket file is removed only if no process answers on it, or by the daemon that made it. A peer is
//! admitted by its kernel-checked user id, never by what it claims, and never if it is a function. Everything that a
//! peer can make the daemon hold is bounded.

mod backlog;
mod connection;
mod file;
mod outbox;

use crate::{
    bundle::UnixUser,
    commands::{Caller, Context},
    error::{Error, ErrorCode},
    lanes::Lanes,
    protocol::{frame, ipc},
    socket::{SOCKET_PATH_BYTES_MAX, Socket},
};
use backlog::{Backlogs, Share};
use bytes::BytesMut;
use connection::Connection;
use file::SocketFile;
use interprocess::local_socket::{
    tokio::{Listener, Stream},
    traits::tokio::Listener as _,
};
use nix::{
    errno::Errno,
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::Pid,
};
use std::{
    io, mem,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{io::AsyncWriteExt, runtime::Handle, sync::Semaphore, task::JoinSet};

/// Time that a refused peer gets to read the reason.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before the next accept after the system has run out of a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Interval at which the daemon checks that the socket file exists. A check is one system call.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// Why the command socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The file's name alone is longer than a socket address allows.
    #[error(
        "the name of the socket {} is too long, as a socket's address has {SOCKET_PATH_BYTES_MAX} bytes: choose a \
         path with a shorter name with --socket",
        .0.display()
    )]
    TooLong(PathBuf),
    /// A daemon answers on the socket.
    #[error("a daemon answers on {} already: stop it with `levain stop`, or give this one another --data-dir or --socket", .0.display())]
    Live(PathBuf),
    /// The path exists and is not a socket.
    #[error("{} exists and is not a socket: remove it, or choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("cannot listen on {}: {source}", path.display())]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

/// A bound socket; connections wait until [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    /// Previous listener, whose file was removed. Connections made through that file still wait to be accepted here,
    /// until the next check of the file.
    retired: Option<Listener>,
    file: SocketFile,
    lanes: Arc<Lanes>,
}

impl Server {
    /// Binds the socket; its connections run on these lanes. `shared` opens the file to all users, for a daemon that
    /// checks its peers against an allow-list.
    pub async fn bind(path: &Path, shared: bool, lanes: Arc<Lanes>) -> Result<Self, BindError> {
        let (listener, file) = SocketFile::bind(path, shared).await?;
        Ok(Self { listener, retired: None, file, lanes })
    }

    /// Path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Serves connections until the daemon stops, then lets existing ones finish their requests. The socket file is
    /// removed at once. Dropping the future ends all connections. If the file is removed meanwhile, it is created
    /// again.
    pub async fn run(mut self, context: Arc<Context>) {
        let stop = context.stopping.clone();
        let mut connections = JoinSet::new();
        let backlogs = Arc::<Backlogs>::default();
        let room = Arc::new(Semaphore::new(context.config.load().limits.connections_max as usize));
        let mut look = tokio::time::interval(FILE_INTERVAL);
        let mut is_lost = false;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => {
                    is_lost = self.look_after_file(is_lost).await;
                    continue;
                }
                Some(_) = connections.join_next() => continue,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(stream) => {
                    // Detached from this runtime, because the lane's runtime must watch it from here on.
                    let Stream::UdSocket(stream) = stream;
                    match tokio::net::UnixStream::from(stream).into_std() {
                        Ok(stream) => {
                            let backlog = Share::new(Arc::clone(&backlogs));
                            let serve =
                                serve(stream, Arc::clone(&context), Arc::clone(&room), backlog, Handle::current());
                            self.lanes.serve(&mut connections, serve);
                        }
                        Err(error) => tracing::debug!(%error, "a connection broke off"),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop((self.listener, self.retired, self.file));
        while connections.join_next().await.is_some() {}
    }

    async fn accept(&self) -> io::Result<Stream> {
        let Some(retired) = &self.retired else { return self.listener.accept().await };
        tokio::select! {
            accepted = self.listener.accept() => accepted,
            accepted = retired.accept() => accepted,
        }
    }

    /// Binds the socket again if its file is gone. Returns whether the file is lost, that is, gone and not replaced;
    /// `is_lost` is the previous result, so that the loss is reported once.
    async fn look_after_file(&mut self, is_lost: bool) -> bool {
        self.retired = None;
        if self.file.is_in_place() {
            return false;
        }
        match self.file.bind_again().await {
            Ok((listener, file)) => {
                self.retired = Some(mem::replace(&mut self.listener, listener));
                self.file = file;
                tracing::warn!(socket = %self.path().display(), "the socket file was removed: the socket is bound again");
                false
            }
            Err(error) => {
                if !is_lost {
                    tracing::error!(%error, "the socket file was removed or replaced: new clients cannot connect");
                }
                true
            }
        }
    }
}

async fn serve(stream: UnixStream, context: Arc<Context>, room: Arc<Semaphore>, backlog: Share, main: Handle) {
    let served = async {
        let socket = Socket::new(stream)?;
        let caller = match admit(&socket, &context) {
            Ok(caller) => caller,
            Err(refusal) => return refuse(&socket, &refusal).await,
        };
        let Ok(_place) = room.try_acquire() else {
            let max = context.config.load().limits.connections_max;
            let message =
                format!("{max} connections are open, which is the limit; close some, or raise limits.connections_max");
            return refuse(&socket, &Error::new(ErrorCode::Overloaded, message)).await;
        };
        Connection::new(Arc::clone(&context), caller, main, backlog).run(socket).await
    };
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Admits the daemon's own user, root, and the users and groups in the configuration; refuses workers under any user.
fn admit(socket: &Socket, context: &Context) -> Result<Caller, Error> {
    let refusal = |message: String| Error::new(ErrorCode::Forbidden, message);
    let peer = getsockopt(socket, PeerCredentials);
    let peer = peer.map_err(|error| refusal(format!("cannot determine the user of this connection: {error}")))?;
    let (uid, gid) = (peer.uid(), peer.gid());
    let config = context.config.load();
    let own = nix::unistd::geteuid().as_raw();
    let allowed = uid == own
        || uid == 0
        || config.daemon.allowed_uids.contains(&uid)
        || config.daemon.allowed_gids.contains(&gid);
    if !allowed {
        tracing::warn!(uid, "a peer that may not use the command socket was refused");
        return Err(refusal(format!("user {uid} may not use this socket; add it to daemon.allowed_uids")));
    }
    // Without a sandbox that hides the socket, functions run as the daemon's user, so the process is checked too. A
    // peer without a process id is in a namespace outside of the daemon's own, where no worker can be.
    let pid = peer.pid();
    if pid > 0 && context.scheduler.spawner().is_worker(Pid::from_raw(pid)) {
        tracing::warn!(pid, "a worker, or a process that has ended already, was refused at the command socket");
        return Err(refusal("functions may not use this socket, nor may a process that has already ended".into()));
    }
    // The daemon reads files that a peer names, with the peer's rights. The daemon's own user and root can read all of
    // them anyway.
    let reads_as = match uid == own || uid == 0 {
        true => None,
        false => {
            let groups = peer_groups(socket);
            let groups =
                groups.map_err(|error| refusal(format!("cannot determine the groups of this connection: {error}")))?;
            Some(Arc::new(UnixUser { uid, gid, groups }))
        }
    };
    Ok(Caller { reads_as, ..Caller::new(format!("uid:{uid}"), true) })
}

/// Returns the supplementary groups that a peer had when it connected.
#[allow(unsafe_code, reason = "SO_PEERGROUPS has no safe wrapper")]
fn peer_groups(socket: &Socket) -> io::Result<Vec<u32>> {
    // Most groups that Linux allows a process.
    let mut groups = vec![0_u32; 65_536];
    let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).expect("256 KiB");
    // SAFETY: the kernel writes at most so many bytes, which the vector has, and says how many.
    let outcome = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERGROUPS);
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, groups.as_mut_ptr().cast(), &raw mut bytes)
    };
    Errno::result(outcome)?;
    groups.truncate(bytes as usize / size_of::<u32>());
    groups.shrink_to_fit();
    Ok(groups)
}

/// Sends the reason and closes the connection.
async fn refuse(mut socket: &Socket, error: &Error) -> io::Result<()> {
    let mut answer = BytesMut::new();
    if let Ok(payload) = ipc::Encoding::Json.write(error) {
        frame::encode(0, ipc::ERROR, &payload, &mut answer);
    }
    // A peer that does not read the reason in time does not get it.
    tokio::time::timeout(REFUSAL_TIMEOUT, socket.write_all(&answer)).await?
}
