//! Bun processes without a daemon: Levain's shim driven by hand, and `Bun.serve` with nothing around it.

use crate::{
    Result,
    load::Caller,
    process::{self, Running},
};
use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use httparse::Status;
use levain::{
    protocol::worker::{ASSIGN_PATH, Assignment, DEADLINE_HEADER, FromWorker, INVOCATION_HEADER},
    worker::{Runtime, runtime},
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::ReadHalf},
};

/// A worker's socket, in its folder.
const SOCKET: &str = "s";

/// Room made for a read; a large answer takes a few of them.
const READ_BYTES: usize = 64 * 1024;

/// An invocation's id, where no daemon gives one.
const INVOCATION: &str = "exec-00000000-0000-7000-8000-000000000000";

/// What hosts a function when Levain does not.
const BARE_SCRIPT: &str = r#"
const [, , unix, entry] = process.argv;
const { default: handler } = await import(entry);
const context = { invocationId: "exec-00000000-0000-7000-8000-000000000000", version: "v1" };
Bun.serve({ unix, idleTimeout: 0, development: false, fetch: (req) => handler(req, context) });
"#;

/// Bun and the two scripts that it runs here.
#[derive(Debug)]
pub(crate) struct Bun {
    runtime: Runtime,
    bare_script: PathBuf,
    folder: TempDir,
}

impl Bun {
    /// The Bun that Levain finds, installed if there is none.
    pub(crate) async fn prepare() -> Result<Self> {
        let data_dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let found = match runtime::find(None, data_dir).await {
            Ok(found) => found,
            Err(_) => runtime::install(data_dir, |line| eprintln!("{line}")).await?,
        };
        let folder = TempDir::new()?;
        let bare_script = folder.path().join("bare.ts");
        fs::write(&bare_script, BARE_SCRIPT)?;
        Ok(Self { runtime: Runtime::new(found, folder.path())?, bare_script, folder })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.runtime.bun
    }

    pub(crate) fn version(&self) -> String {
        self.runtime.version.to_string()
    }

    /// A worker as the daemon starts it, ready and with its function loaded.
    pub(crate) async fn worker(&self, entry: &Path) -> Result<Process> {
        let (control, stdin) = UnixStream::pair()?;
        let stdin = OwnedFd::from(stdin.into_std()?);
        let arguments = self.runtime.worker_args(SOCKET);
        let mut process = self.spawn(arguments, stdin.into())?;
        let mut control = BufReader::new(control);
        let mut line = String::new();
        control.read_line(&mut line).await?;
        let FromWorker::Ready { .. } = serde_json::from_str(&line)? else {
            return Err(format!("the worker said `{line}` where it should be ready").into());
        };
        process.control = Some(control.into_inner());
        process.assign(entry).await?;
        Ok(process)
    }

    /// The function under `Bun.serve`, listening.
    pub(crate) async fn bare(&self, entry: &Path) -> Result<Process> {
        let mut arguments = self.runtime.worker_args(SOCKET);
        // The same options of Bun, and another script.
        arguments.truncate(arguments.len() - 2);
        let rest: [OsString; 3] = [self.bare_script.as_os_str().into(), SOCKET.into(), entry.into()];
        arguments.extend(rest);
        let process = self.spawn(arguments, Stdio::null())?;
        process::retry(|| UnixStream::connect(process.socket())).await?;
        Ok(process)
    }

    fn spawn(&self, arguments: Vec<OsString>, stdin: Stdio) -> Result<Process> {
        let folder = TempDir::new_in(self.folder.path())?;
        let mut command = Command::new(self.path());
        command.args(arguments).current_dir(folder.path()).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder.path()).env("TMPDIR", folder.path());
        command.env("BUN_RUNTIME_TRANSPILER_CACHE_PATH", "0").env("DO_NOT_TRACK", "1");
        Ok(Process { _process: Running::spawn(&mut command)?, folder, control: None })
    }
}

/// A Bun process with a function in it.
#[derive(Debug)]
pub(crate) struct Process {
    _process: Running,
    folder: TempDir,
    /// A worker ends when this is closed.
    control: Option<UnixStream>,
}

impl Process {
    fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    async fn assign(&self, entry: &Path) -> Result<()> {
        let assignment = Assignment {
            function: "bench".into(),
            function_id: "func-00000000-0000-7000-8000-000000000000".into(),
            version: "v1".into(),
            environment: "production".into(),
            entry: entry.to_string_lossy().into_owned(),
            handler: "default".into(),
            variables: BTreeMap::new(),
            log_line_bytes_max: 16_384,
            levain: env!("CARGO_PKG_VERSION").into(),
        };
        let body = serde_json::to_vec(&assignment)?.into();
        self.caller(Call { method: Method::PUT, target: ASSIGN_PATH, body, answer_bytes_min: 2 }).await?.call().await
    }

    /// A connection of its own.
    pub(crate) async fn caller(&self, call: Call) -> Result<HttpCaller> {
        let stream = UnixStream::connect(self.socket()).await?;
        Ok(HttpCaller::new(stream, &call))
    }
}

/// A request that is made over and over.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: &'static str,
    pub(crate) body: Bytes,
    /// A shorter answer is a wrong one.
    pub(crate) answer_bytes_min: u64,
}

/// One kept-alive HTTP connection, with less to do than any real client: the request is bytes that are ready, and only
/// the status and the end of the answer are looked at. What Levain is compared with is not slowed down by its client.
#[derive(Debug)]
pub(crate) struct HttpCaller {
    stream: UnixStream,
    request: Vec<u8>,
    answer_bytes_min: u64,
    /// Read and not taken yet.
    buffer: BytesMut,
}

impl HttpCaller {
    fn new(stream: UnixStream, call: &Call) -> Self {
        let Call { method, target, body, answer_bytes_min } = call;
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
        request += &format!("{INVOCATION_HEADER}: {INVOCATION}\r\n{DEADLINE_HEADER}: 30000\r\n");
        if !body.is_empty() {
            request += &format!("content-length: {}\r\n", body.len());
        }
        request += "\r\n";
        let request = [request.as_bytes(), body].concat();
        Self { stream, request, answer_bytes_min: *answer_bytes_min, buffer: BytesMut::new() }
    }
}

impl Caller for HttpCaller {
    async fn call(&mut self) -> Result<()> {
        let (reader, mut writer) = self.stream.split();
        let mut answer = Answer { reader, buffer: &mut self.buffer };
        // Bun answers while it reads, so whoever only writes may wait for ever.
        let write = async { Ok(writer.write_all(&self.request).await?) };
        let ((), (status, bytes)) = tokio::try_join!(write, answer.read())?;
        match status {
            200 if bytes >= self.answer_bytes_min => Ok(()),
            status => Err(format!("Bun answered {status} with {bytes} bytes").into()),
        }
    }
}

struct Answer<'a> {
    reader: ReadHalf<'a>,
    buffer: &'a mut BytesMut,
}

impl Answer<'_> {
    /// Reads to the answer's end. Gives its status and the bytes of its body.
    async fn read(&mut self) -> Result<(u16, u64)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut headers);
            let Status::Complete(head_bytes) = head.parse(self.buffer)? else {
                self.fill().await?;
                continue;
            };
            let status = head.code.unwrap_or_default();
            let length = head.headers.iter().find(|it| it.name.eq_ignore_ascii_case("content-length"));
            let length = length.map(|it| std::str::from_utf8(it.value)).transpose()?.map(str::parse).transpose()?;
            self.buffer.advance(head_bytes);
            let bytes = match length {
                Some(length) => self.skip(length).await?,
                None => self.skip_chunks().await?,
            };
            return Ok((status, bytes));
        }
    }

    async fn skip_chunks(&mut self) -> Result<u64> {
        let mut bytes = 0;
        loop {
            let size = httparse::parse_chunk_size(self.buffer).map_err(|_| "Bun's answer has no length")?;
            let Status::Complete((line_bytes, size)) = size else {
                self.fill().await?;
                continue;
            };
            self.buffer.advance(line_bytes);
            bytes += size;
            // A line end follows each chunk, the empty one at the end too.
            self.skip(size + 2).await?;
            if size == 0 {
                return Ok(bytes);
            }
        }
    }

    async fn skip(&mut self, bytes: u64) -> Result<u64> {
        let mut left = bytes;
        while left > 0 {
            if self.buffer.is_empty() {
                self.fill().await?;
            }
            let taken = self.buffer.len().min(left as usize);
            self.buffer.advance(taken);
            left -= taken as u64;
        }
        Ok(bytes)
    }

    async fn fill(&mut self) -> Result<()> {
        self.buffer.reserve(READ_BYTES);
        match self.reader.read_buf(self.buffer).await? {
            0 => Err("Bun closed the connection".into()),
            _ => Ok(()),
        }
    }
}
