//! The socket's file: created at the start, watched while the daemon runs, and removed by the daemon that made it.

use super::BindError;
use crate::{
    file_id::FileId,
    socket::{SOCKET_PATH_BYTES_MAX, ShortPath},
};
use interprocess::{
    local_socket::{GenericFilePath, ListenerOptions, ToFsName, tokio::Listener},
    os::unix::local_socket::ListenerOptionsExt,
};
use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// File that a listener is bound to. Dropping it removes the file, unless another file has taken its name.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    shared: bool,
    id: Option<FileId>,
}

impl SocketFile {
    /// Binds the socket, and replaces a socket file on which no process answers. `shared` opens the file to all users.
    pub(super) async fn bind(path: &Path, shared: bool) -> Result<(Listener, Self), BindError> {
        let path = path.to_owned();
        let fail = |source: io::Error| match source.kind() {
            io::ErrorKind::InvalidFilename => BindError::TooLong(path.clone()),
            _ => BindError::Io { path: path.clone(), source },
        };
        let short = ShortPath::new(&path).map_err(fail)?;
        remove_stale(&path, &short).await?;
        if short.is_shortened() {
            tracing::info!(
                socket = %path.display(),
                "the socket's path is longer than {SOCKET_PATH_BYTES_MAX} bytes: levain reaches it, other programs may \
                 need a shorter daemon.socket"
            );
        }
        let name = short.as_path().to_fs_name::<GenericFilePath>().map_err(fail)?;
        let options = ListenerOptions::new().name(name).mode(0o600).reclaim_name(false);
        let listener = options.create_tokio().map_err(fail)?;
        let file = Self { id: FileId::at(&path), path: path.clone(), shared };
        if shared {
            // Set afterwards, because the daemon's umask would restrict the mode at creation.
            fs::set_permissions(&path, Permissions::from_mode(0o666)).map_err(fail)?;
        }
        Ok((listener, file))
    }

    /// Binds the path again.
    pub(super) async fn bind_again(&self) -> Result<(Listener, Self), BindError> {
        Self::bind(&self.path, self.shared).await
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to this listener's socket.
    pub(super) fn is_in_place(&self) -> bool {
        self.id.is_some() && self.id == FileId::at(&self.path)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_in_place() {
            // An error means that the file is gone already.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket file on which no process answers.
async fn remove_stale(path: &Path, short: &ShortPath) -> Result<(), BindError> {
    let fail = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match tokio::net::UnixStream::connect(short.as_path()).await {
        Ok(_) => Err(BindError::Live(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
            _ => Ok(()),
        },
        Err(error) => Err(fail(error)),
    }
}
