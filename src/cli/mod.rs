//! The command line: one file per noun, with its arguments, its requests and the output of its answers.
//!
//! From the roof down: this file runs the commands, [`args`] has their tree, then come the commands. Below them are what
//! several share (`arguments`, `request`, `settings`, `variables`, `views`, `outcome`), `suggest` and `interrupt`, and
//! on the ground `session`, the connection to the daemon, `input`, `print`, `text` and `error`. No file uses one above
//! it.
//!
//! A command returns [`CliError`] or nothing; this file turns that into an exit code: the error code's own
//! ([`crate::error::ErrorCode::exit_code`]), 2 for wrong usage, 10 when no daemon answers, or 11 for `invoke --fail`.

mod aliases;
mod approvals;
mod args;
mod arguments;
mod backup;
mod bench;
mod cleanup;
mod compare;
mod config;
mod demo;
mod deploy;
mod env;
mod environments;
mod error;
mod functions;
mod git;
mod input;
mod interrupt;
mod invoke;
mod logs;
mod manifest;
mod metrics;
mod outcome;
mod pack;
mod policy;
mod previews;
mod print;
mod promote;
mod request;
mod rollout;
mod runtime;
mod secret;
mod serve;
mod session;
mod settings;
mod status;
mod stop;
mod suggest;
mod text;
mod tokens;
mod traffic;
mod variables;
mod versions;
mod views;

use args::{Cli, Command};
use clap::FromArgMatches;
use error::CliError;
use session::Session;
use std::{pin::Pin, process::ExitCode};
use tokio::runtime::Builder;

/// Parses the arguments of this process, runs the command and returns the exit code.
#[must_use]
pub fn run() -> ExitCode {
    // clap ends the process itself for `--help`, `--version` and wrong usage.
    let matches = args::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let mut session = Session::new(cli.global);
    let mut runtime =
        if cli.command.is_threaded() { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ExitCode::from(session.out.failure(&CliError::System(error), None)),
    };
    // Boxed: the runtimes would otherwise each have a copy of all commands.
    let work: Pin<Box<dyn Future<Output = ExitCode>>> = Box::pin(run_command(cli.command, &mut session));
    let code = runtime.block_on(work);
    // A read of the terminal cannot be cancelled, and nothing else should delay the exit.
    runtime.shutdown_background();
    code
}

async fn run_command(command: Command, session: &mut Session) -> ExitCode {
    let Err(error) = command.run(session).await else { return ExitCode::SUCCESS };
    // A program gets the daemon's words alone.
    let hint = if session.out.is_json { None } else { suggest::hint(session, &error).await };
    ExitCode::from(session.out.failure(&error, hint.as_deref()))
}
