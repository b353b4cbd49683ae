//! An answer that is a file: the parts of BACKUP, streamed as they are made.

use crate::{
    commands::{self, Caller, Context, Part, Partials},
    error::Error,
    http::{
        answer::{Answer, Body},
        face::Face,
    },
    protocol::{
        ipc::{Encoding, Request as Command},
        message::BackupPart,
    },
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Response, header};
use std::{io, sync::Arc};
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, Receiver},
    task::JoinHandle,
};

/// Content type of the file.
pub(super) const CONTENT_TYPE: &str = "application/gzip";

/// File name that browsers and `curl -OJ` use.
const DISPOSITION: &str = "attachment; filename=\"node.levain\"";

type Outcome = JoinHandle<Result<Box<dyn commands::Response>, Error>>;

/// Executes a command on `main`. A failure before the first part gets its own status.
pub(super) async fn run(
    (face, context): (&Arc<Face>, &Arc<Context>),
    main: &Handle,
    command: Command,
    caller: Caller,
) -> Result<Answer, Error> {
    let (sender, mut parts) = mpsc::channel(1);
    let owner = Arc::clone(context);
    let outcome: Outcome = main.spawn(async move {
        // MessagePack carries bytes without encoding them.
        let caller = caller.with(Partials::new(Encoding::MessagePack, 0, sender));
        commands::run(&owner, command, &caller).await
    });
    let Some(first) = parts.recv().await else {
        outcome.await.map_err(Error::internal)??;
        return Err(Error::internal("the file is empty"));
    };
    let rest = stream::unfold(Some((parts, outcome)), |state| async move { next(state?).await });
    let chunks = stream::once(async move { bytes(&first) }).chain(rest);
    let mut answer = Response::new(Body::stream(Box::pin(chunks), (face, context.config.load().http.body_timeout())));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    answer.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(DISPOSITION));
    Ok(answer)
}

/// Returns the next part. Only the command's answer confirms that the file is complete; without it the connection
/// breaks off, so that the client does not take this for the end.
async fn next(
    (mut parts, outcome): (Receiver<Part>, Outcome),
) -> Option<(io::Result<Bytes>, Option<(Receiver<Part>, Outcome)>)> {
    match parts.recv().await {
        Some(part) => Some((bytes(&part), Some((parts, outcome)))),
        None => match outcome.await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some((Err(io::Error::other(error.message)), None)),
            Err(error) => Some((Err(io::Error::other(error)), None)),
        },
    }
}

fn bytes(part: &Part) -> io::Result<Bytes> {
    let part: BackupPart =
        Encoding::MessagePack.read_shared(&part.payload).map_err(|it| io::Error::other(it.message))?;
    Ok(part.bytes.0)
}
