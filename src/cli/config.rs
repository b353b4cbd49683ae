//! The configuration: checks a file, and prints the effective values.

use super::error::CliError;
use super::session::Session;
use clap::Subcommand;
use std::path::PathBuf;

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
        let is_print = matches!(self, Self::Print);
        if let Self::Check { file: Some(file) } = self {
            session.global.config = Some(file);
        }
        let effective = session.configuration(&session.flags([]))?;
        match (effective.file(), session.out.is_json) {
            (_, true) if is_print => session.out.json(&effective.rows()),
            (_, false) if is_print => session.out.text(&effective.render()),
            (file, true) => session.out.json(&serde_json::json!({ "ok": true, "file": file })),
            (Some(file), false) => session.out.text(&format!("ok {}", file.display())),
            (None, false) => session.out.text("ok: there is no file, the defaults apply"),
        }
    }
}
