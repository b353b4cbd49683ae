//! Input of commands besides their arguments: files, standard input, and the answers to questions.

use super::error::CliError;
use clap::Args;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

/// Reads a file, or all of standard input for `-`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    if path.as_os_str() != "-" {
        return std::fs::read(path).map_err(|source| CliError::Input { path: path.to_owned(), source });
    }
    let mut bytes = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|source| CliError::Input { path: "standard input".into(), source })?;
    Ok(bytes)
}

/// `--yes`, for commands that ask before they destroy something.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Confirmation {
    /// Skip the confirmation
    #[arg(long, short)]
    yes: bool,
}

impl Confirmation {
    /// Asks for confirmation on the terminal. Without a terminal, `--yes` is required.
    pub(super) fn ask(self, question: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(CliError::usage("there is no terminal to ask on: confirm with --yes"));
        }
        let _ = anstream::stderr().write_all(format!("{question} [y/N] ").as_bytes());
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        read.map_err(|source| CliError::Input { path: "the terminal".into(), source })?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(CliError::usage("nothing was changed")),
        }
    }
}
