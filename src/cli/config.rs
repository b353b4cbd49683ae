//! The configuration: checks a file, prints the effective values, and serves other commands.

use super::error::CliError;
use super::session::Session;
use crate::config::{self, Effective};
use clap::Subcommand;
use std::path::{Path, PathBuf};

/// `levain config`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  levain config check ./config.toml\n  levain config print")]
pub(super) enum Config {
    /// Check a configuration file together with the LEVAIN_* variables
    Check {
        /// The file [default: --config, else ./config.toml]
        file: Option<PathBuf>,
    },
    /// Print every effective value and its origin
    Print,
}

impl Config {
    pub(super) fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Check { file } => {
                let effective = load(file.as_deref().or(session.config.as_deref()), &[])?;
                match (effective.file(), session.out.is_json) {
                    (file, true) => session.out.json(&serde_json::json!({ "ok": true, "file": file })),
                    (Some(file), false) => session.out.text(&format!("ok {}", file.display())),
                    (None, false) => session.out.text("ok: there is no file, the defaults apply"),
                }
            }
            Self::Print => {
                let effective = load(session.config.as_deref(), &flags(None, session.socket.as_deref(), None, None))?;
                if session.out.is_json {
                    return session.out.json(&effective.rows());
                }
                session.out.text(&effective.render())
            }
        }
    }
}

/// Configuration keys that are set by arguments.
pub(super) fn flags(
    data_dir: Option<&Path>,
    socket: Option<&Path>,
    log_level: Option<&str>,
    http: Option<&str>,
) -> Vec<(&'static str, String)> {
    let path = |path: &Path| path.display().to_string();
    let flags = [
        ("daemon.data_dir", data_dir.map(path)),
        ("daemon.socket", socket.map(path)),
        ("daemon.log_level", log_level.map(str::to_owned)),
        ("http.address", http.map(str::to_owned)),
    ];
    flags.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect()
}

/// Loads the effective configuration with these flags.
pub(super) fn load(file: Option<&Path>, flags: &[(&'static str, String)]) -> Result<Effective, CliError> {
    config::load(file, flags).map_err(|error| CliError::usage(error.to_string()))
}

/// Data directory of the node.
pub(super) fn data_dir(effective: &Effective) -> PathBuf {
    effective.config.data_dir().to_owned()
}

/// Socket of the daemon that this configuration starts.
pub(super) fn socket_path(effective: &Effective) -> PathBuf {
    effective.config.socket_path()
}

/// Path of Bun in the configuration, if it is set.
pub(super) fn bun_path(effective: &Effective) -> Option<PathBuf> {
    effective.config.bun_path().map(Path::to_owned)
}
