//! The socket's file: bound, looked after while the daemon runs, and removed by the daemon that made it.

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

/// The file that a listener was bound to. Dropping it removes the file, unless another has its name.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    shared: bool,
    id: Option<FileId>,
}

impl SocketFile {
    /// Binds the socket in place of one that nobody answers on. `shared` opens the file to all users.
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
            // Not when it is made, from which the daemon's umask takes.
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

    /// Whether clients that connect to the path come here.
    pub(super) fn is_in_place(&self) -> bool {
        self.id.is_some() && self.id == FileId::at(&self.path)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_in_place() {
            // It could be gone by now, which is as well.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket file that nobody answers on.
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
