//! Backup and restore: a whole node as one file.

use super::arguments::DataDir;
use super::error::CliError;
use super::session::Session;
use super::text;
use crate::daemon::{self, FailedRestore};
use crate::error::ErrorCode;
use crate::protocol::message::{BackupPart, BackupRequest};
use crate::secrets::{KeyId, KeySource};
use crate::worker::runtime;
use clap::Args;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

const BACKUP_EXAMPLES: &str = "Examples:
  levain backup node.levain
  levain backup - | ssh other 'cat > node.levain'

The daemon keeps serving. The file holds functions, versions, aliases, the audit trail, tokens (hashed) and all code. \
It does not hold logs, metrics, the configuration file or the master key.";

const RESTORE_EXAMPLES: &str = "Examples:
  levain restore node.levain --data-dir /var/lib/levain
  ssh other 'cat node.levain' | levain restore -

No daemon may run on that data directory. The database and the digest of every bundle are checked before the node is \
put in place.";

/// `levain backup`.
#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(super) struct Backup {
    /// The file to write, or `-` for standard output
    file: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let is_stdout = self.file.as_os_str() == "-";
        if !is_stdout && !self.force && self.file.exists() {
            let message = format!("{} exists: choose another name, or replace it with --force", self.file.display());
            return Err(CliError::usage(message));
        }
        let client = session.client().await?;
        let mut target = if is_stdout { None } else { Some(Target::create(&self.file)?) };
        let mut answer = client.call_streaming(&BackupRequest {})?;
        let mut written = 0;
        while let Some(part) = answer.next_partial::<BackupPart>().await? {
            written += part.bytes.0.len() as u64;
            match &mut target {
                Some(target) => target.write(&part.bytes.0)?,
                None => session.out.bytes(&part.bytes.0)?,
            }
            session.out.progress(&format!("{} …", text::size(written)));
        }
        let response = answer.finish().await?;
        let Some(target) = target else { return Ok(()) };
        target.keep()?;
        session.out.response(&response, |it| {
            format!(
                "ok {}: {} with {} in {}",
                self.file.display(),
                text::count(it.functions as usize, "function", "functions"),
                text::count(it.versions as usize, "version", "versions"),
                text::size(it.bytes)
            )
        })
    }
}

/// Output file that gets its name once it is complete.
struct Target {
    path: PathBuf,
    file: NamedTempFile,
}

impl Target {
    fn create(path: &Path) -> Result<Self, CliError> {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut cause = None;
        let file = tempfile::Builder::new().prefix(".levain-backup-").make_in(folder, |path| {
            // Only the owner may read a backup of the node.
            let file = File::options().write(true).create_new(true).mode(0o600).open(path);
            file.inspect_err(|error| cause = error.raw_os_error())
        });
        // The message must not name the temporary file, which the user does not know.
        let because = |error| cannot_write(path, &cause.map_or(error, io::Error::from_raw_os_error));
        Ok(Self { path: path.to_owned(), file: file.map_err(because)? })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.file.write_all(bytes).map_err(|error| cannot_write(&self.path, &error))
    }

    fn keep(self) -> Result<(), CliError> {
        self.file.as_file().sync_all().map_err(|error| cannot_write(&self.path, &error))?;
        self.file.persist(&self.path).map(drop).map_err(|error| cannot_write(&self.path, &error.error))
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> CliError {
    CliError::failed(ErrorCode::Internal, format!("cannot write {}: {error}", path.display()))
}

/// `levain restore`.
#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(super) struct Restore {
    /// The file that `levain backup` wrote, or `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Restore {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let effective = session.configuration(&session.flags([self.data_dir.flag()]))?;
        effective.notices().iter().for_each(|it| session.out.note(it));
        let config = effective.config;
        let data_dir = config.data_dir();
        let input: Box<dyn Read> = match self.file.as_os_str() == "-" {
            true => Box::new(io::stdin().lock()),
            false => Box::new(File::open(&self.file).map_err(|source| CliError::Input { path: self.file, source })?),
        };
        session.out.progress("unpacking and checking …");
        let restored = daemon::restore(input, data_dir).map_err(refused)?;
        let about = &restored.about;
        let source = KeySource::find(&config.secrets.master_key_file, data_dir);
        let bun = runtime::find(config.bun_path(), data_dir).await;
        let key = restored.key_id.as_ref().map(|wanted| (wanted, look_for(wanted, &source)));
        let said = serde_json::json!({
            "data_dir": restored.data_dir,
            "functions": about.functions,
            "versions": about.versions,
            "created_at": about.created_at,
            "levain": about.levain,
            "key_id": restored.key_id,
            "key_is_there": key.as_ref().map(|(_, found)| found.is_ok()),
            "bun_is_there": bun.is_ok(),
        });
        if session.out.is_json {
            return session.out.json(&said);
        }
        session.out.text(&format!(
            "ok {} holds the node of {}: {} with {}",
            restored.data_dir.display(),
            about.created_at,
            text::count(about.functions as usize, "function", "functions"),
            text::count(about.versions as usize, "version", "versions"),
        ))?;
        if let Some((wanted, Err(found))) = key {
            session.out.text(&format!(
                "its secrets need the master key {wanted}, but {found}: put that key there before you start the daemon"
            ))?;
        }
        match bun {
            Ok(_) => Ok(()),
            Err(error) => session.out.text(&format!("install Bun before you start the daemon: {error}")),
        }
    }
}

/// Looks for the key where the daemon will. The error says what was found instead.
fn look_for(wanted: &KeyId, source: &KeySource) -> Result<(), String> {
    match source.read(Some(wanted)) {
        Ok(Some(key)) if key.id() == wanted => Ok(()),
        Ok(Some(key)) => Err(format!("{source} holds {}", key.id())),
        Ok(None) => Err(format!("{source} holds no key")),
        Err(error) => Err(error.to_string()),
    }
}

fn refused(error: FailedRestore) -> CliError {
    let code = match error {
        FailedRestore::Directory(error) => return (*error).into(),
        FailedRestore::Occupied { .. } => ErrorCode::Conflict,
        FailedRestore::Backup(ref error) if !error.is_of_the_disk() => ErrorCode::InvalidRequest,
        FailedRestore::Backup(_) | FailedRestore::Disk(_) => ErrorCode::Internal,
    };
    CliError::failed(code, error.to_string())
}
