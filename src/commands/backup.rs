//! BACKUP: the file is created on the way and sent in parts, as fast as the client reads. A client that stops reading
//! is given up.

use super::{Caller, CallerGone, Command, Context};
use crate::{
    backup::{self, Prepared, TakeError},
    error::{Error, ErrorCode},
    protocol::{
        field::Body,
        message::{BackupPart, BackupRequest, BackupResponse},
    },
};
use bytes::{Bytes, BytesMut};
use std::{io, sync::Arc};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};

/// Backups run one at a time, because each has a copy of the database on the disk.
static PLACE: Semaphore = Semaphore::const_new(1);

/// Bytes of a part: well below the smallest frame that can be configured.
const PART_BYTES: usize = 32 * 1024;

/// Parts that wait for the client.
const PARTS_MAX: usize = 8;

impl Command for BackupRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<BackupResponse, Error> {
        let Ok(_place) = PLACE.try_acquire() else {
            return Err(Error::new(ErrorCode::Conflict, "another backup is being taken: try again when it has ended"));
        };
        let prepared = context.blocking(prepare).await?;
        let about = prepared.about().clone();
        let (sender, mut parts) = mpsc::channel(PARTS_MAX);
        let writing = tokio::task::spawn_blocking(move || {
            let output = prepared.write(Output { sender, part: BytesMut::new() })?;
            // The folder is removed here, where it may block.
            drop(prepared);
            output.end()
        });
        let patience = context.config.load().http.body_timeout();
        let (mut bytes, mut is_taken) = (0, true);
        while let Some(part) = parts.recv().await {
            let length = Bytes::len(&part) as u64;
            match timeout(patience, caller.send(&BackupPart { bytes: Body(part) })).await {
                Ok(Ok(())) => bytes += length,
                Ok(Err(CallerGone)) => break,
                Err(_) => {
                    is_taken = false;
                    break;
                }
            }
        }
        // The writer learns that its reader is gone.
        drop(parts);
        let written = writing.await.map_err(Error::internal)?;
        let actor = &*caller.actor;
        if !is_taken {
            tracing::warn!(actor, bytes, "a backup is given up: its client does not read it");
            let message = format!(
                "the client did not read the next part of the backup for {} ms (http.body_timeout_ms): it is given up, so \
             that others can be taken",
                patience.as_millis()
            );
            return Err(Error::new(ErrorCode::Timeout, message));
        }
        written.map_err(|error| Error::internal(format!("the backup broke off: {error}")))?;
        tracing::info!(actor, bytes, functions = about.functions, versions = about.versions, "backup taken");
        Ok(BackupResponse { bytes, functions: about.functions, versions: about.versions, created_at: about.created_at })
    }
}

fn prepare(context: &Context) -> Result<Prepared, Error> {
    let folder = context.code.scratch.folder().map_err(Error::internal)?;
    backup::prepare(&context.store, &context.code.bundles, &context.data_dir.join("deployments"), folder).map_err(
        |error| match error {
            TakeError::Store(error) => error.into(),
            TakeError::Bundle(error) => error.into(),
            TakeError::Io(error) => Error::internal(format!("cannot put the backup together: {error}")),
        },
    )
}

/// Writer that cuts its input into parts.
struct Output {
    sender: mpsc::Sender<Bytes>,
    part: BytesMut,
}

impl Output {
    fn send(&mut self) -> io::Result<()> {
        let part = self.part.split().freeze();
        self.sender.blocking_send(part).map_err(|_| io::Error::other("the reader is gone"))
    }

    fn end(mut self) -> io::Result<()> {
        if self.part.is_empty() { Ok(()) } else { self.send() }
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        if self.part.len() == PART_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
