//! The command line: one file per noun, with its arguments, its requests and the output of its answers.
//!
//! [`args`] has the command tree and the parsers of single values, `print` the output to the terminal, `session` the
//! connection to the daemon. A command returns [`CliError`] or nothing; this file turns that into an exit code: the
//! error code's own ([`crate::error::ErrorCode::exit_code`]), 2 for wrong usage, or 10 when no daemon answers.

mod aliases;
mod approvals;
mod args;
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
mod rollout;
mod runtime;
mod secret;
mod serve;
mod session;
mod status;
mod text;
mod tokens;
mod traffic;
mod versions;

use args::{Cli, Command};
use clap::{CommandFactory, FromArgMatches};
use error::CliError;
use session::Session;
use std::{pin::Pin, process::ExitCode};
use tokio::runtime::{Builder, Runtime};

/// Parses the arguments of this process, runs the command and returns the exit code.
#[must_use]
pub fn run() -> ExitCode {
    // clap ends the process itself for `--help`, `--version` and wrong usage.
    let matches = args::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let mut session = Session::new(&cli.global);
    match run_command(cli.command, &mut session) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(session.out.failure(&error)),
    }
}

fn run_command(command: Command, session: &mut Session) -> Result<(), CliError> {
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "levain", &mut script);
            session.out.bytes(&script)
        }
        Command::Config(command) => command.run(session),
        command => {
            let is_threaded = matches!(command, Command::Serve(_) | Command::Demo(_) | Command::Bench(_));
            let runtime = tokio_runtime(is_threaded)?;
            // Boxed: the runtimes would otherwise each have a copy of all commands.
            let work: Pin<Box<dyn Future<Output = _>>> = Box::pin(run_async(command, session));
            let result = runtime.block_on(work);
            // A read of the terminal cannot be cancelled, and nothing else should delay the exit.
            runtime.shutdown_background();
            result
        }
    }
}

/// A single request starts faster on one thread; the daemon and the load generator use all processors.
fn tokio_runtime(is_threaded: bool) -> Result<Runtime, CliError> {
    let mut builder = if is_threaded { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.enable_all().build().map_err(CliError::System)
}

async fn run_async(command: Command, session: &mut Session) -> Result<(), CliError> {
    match command {
        Command::Serve(command) => command.run(session).await,
        Command::Demo(command) => command.run(session).await,
        Command::Status => status::run(session).await,
        Command::Runtime(command) => command.run(session).await,
        Command::Register(command) => command.run(session).await,
        Command::List(command) => command.run(session).await,
        Command::Show(command) => command.run(session).await,
        Command::ConfigOf(command) => command.run(session).await,
        Command::Delete(command) => command.run(session).await,
        Command::Warmup(command) => command.run(session).await,
        Command::Deploy(command) => command.run(session).await,
        Command::Versions(command) => command.run(session).await,
        Command::Compare(command) => command.run(session).await,
        Command::Cleanup(command) => command.run(session).await,
        Command::Deployments(command) => command.run(session).await,
        Command::Rollback(command) => command.run(session).await,
        Command::Alias(command) => command.run(session).await,
        Command::Traffic(command) => command.run(session).await,
        Command::Manifest(command) => command.run(session).await,
        Command::Policy(command) => command.run(session).await,
        Command::Backup(command) => command.run(session).await,
        Command::Restore(command) => command.run(session).await,
        Command::Rollout(command) => command.run(session).await,
        Command::Promote(command) => command.run(session).await,
        Command::Preview(command) => command.run(session).await,
        Command::Environments(command) => command.run(session).await,
        Command::Env(command) => command.run(session).await,
        Command::Secret(command) => command.run(session).await,
        Command::Approvals(command) => command.run(session).await,
        Command::Approve(command) => command.run(session).await,
        Command::Reject(command) => command.run(session).await,
        Command::Token(command) => command.run(session).await,
        Command::Invoke(command) => command.run(session).await,
        Command::Logs(command) => command.run(session).await,
        Command::Metrics(command) => command.run(session).await,
        Command::Bench(command) => command.run(session).await,
        Command::Config(_) | Command::Completions { .. } => Ok(()),
    }
}
