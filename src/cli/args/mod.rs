//! The command tree, the grouped list of commands, and the table of exit codes.

use super::error::{CliError, EXIT_STATUS};
use super::print::BOLD;
use super::session::{Global, Session};
use super::{
    aliases, approvals, backup, bench, cleanup, compare, config, demo, deploy, env, environments, functions, invoke,
    logs, manifest, metrics, policy, previews, promote, rollout, runtime, secret, serve, status, stop, tokens, traffic,
    versions,
};
use crate::client::EXIT_NO_DAEMON;
use crate::error::ErrorCode;
use clap::{CommandFactory, Parser, Subcommand};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Functions on one machine: immutable versions, warm Bun workers.
#[derive(Debug, Parser)]
#[command(name = "levain", version, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon until SIGINT or SIGTERM
    Serve(serve::Serve),
    /// Run the daemon with samples, call one, and show what to try next
    Demo(demo::Demo),
    /// Show the daemon: versions, uptime, workers, memory, disk
    Status,
    /// Stop the daemon, and wait until it is gone
    Stop(stop::Stop),
    /// Install or show the Bun that runs the workers
    Runtime(runtime::Runtime),
    /// Register a function
    Register(functions::Register),
    /// List the functions
    #[command(visible_alias = "ls")]
    List(functions::List),
    /// Show a function with its settings, aliases and workers
    Show(functions::Show),
    /// Show or change a function's settings, which apply at once
    ConfigOf(functions::ConfigOf),
    /// Delete a function, stop its workers and free its name
    Delete(functions::Delete),
    /// Start workers ahead of traffic
    Warmup(functions::Warmup),
    /// Publish a version and point LIVE, or another alias, at it
    Deploy(deploy::Deploy),
    /// List, show, tag or delete versions
    Versions(versions::Versions),
    /// Compare the metadata, settings and code of two versions
    Compare(compare::Compare),
    /// Remove old, unused versions with their bundles
    Cleanup(cleanup::Cleanup),
    /// List a function's deployments, newest first
    Deployments(versions::Deployments),
    /// Point LIVE, or another alias, back at an earlier version
    Rollback(versions::Rollback),
    /// Set, list and delete aliases: movable names for versions
    #[command(subcommand)]
    Alias(aliases::Alias),
    /// Split an alias's calls between two versions
    #[command(subcommand)]
    Traffic(traffic::Traffic),
    /// Save the versions that all aliases point at, and restore them
    #[command(subcommand)]
    Manifest(manifest::Manifest),
    /// Back up the whole node to one file, while it runs
    Backup(backup::Backup),
    /// Restore a backup into an empty data directory
    Restore(backup::Restore),
    /// Move an alias's calls to a version step by step
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Roll an alias back automatically on errors, latency or crashes
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Point one environment's alias at the version of another
    Promote(promote::Promote),
    /// List and delete previews (`deploy --preview` creates them)
    #[command(subcommand)]
    Preview(previews::Preview),
    /// Manage the environments that aliases run in
    #[command(subcommand)]
    Environments(environments::Environments),
    /// Set, list and delete variables of functions (process.env)
    #[command(subcommand)]
    Env(env::Env),
    /// Set, rotate and delete secrets: variables that are never shown
    #[command(subcommand)]
    Secret(secret::Secret),
    /// List the deployments that wait for approval
    Approvals(approvals::Approvals),
    /// Approve a waiting deployment
    Approve(approvals::Approve),
    /// Reject a waiting deployment; its alias does not move
    Reject(approvals::Reject),
    /// Create, list and revoke tokens for HTTP
    #[command(subcommand)]
    Token(tokens::Token),
    /// Invoke a function and print the body of its answer
    Invoke(invoke::Invoke),
    /// Print or follow logs, of a function or of all
    Logs(logs::Logs),
    /// Show call counts and durations, of a function or of all
    Metrics(metrics::Metrics),
    /// Generate load on a function and measure its answers
    Bench(bench::Bench),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  levain completions bash > ~/.local/share/bash-completion/completions/levain")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

macro_rules! run {
    ($command:expr, $session:ident, $($variant:ident)*) => {
        match $command {
            $(Command::$variant(command) => command.run($session).await,)*
            Command::Status => status::run($session).await,
            Command::Config(command) => command.run($session),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "levain", &mut script);
                $session.out.bytes(&script)
            }
        }
    };
}

impl Command {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        run!(self, session, Serve Demo Stop Runtime Register List Show ConfigOf Delete Warmup Deploy Versions Compare
            Cleanup Deployments Rollback Alias Traffic Manifest Policy Backup Restore Rollout Promote Preview
            Environments Env Secret Approvals Approve Reject Token Invoke Logs Metrics Bench)
    }

    /// Whether the command uses all processors. A single request starts faster on one thread.
    pub(super) fn is_threaded(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Demo(_) | Self::Bench(_))
    }
}

/// The commands by purpose, in the order of the help.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Run", &["serve", "demo", "stop", "runtime"]),
    (
        "Publish",
        &[
            "deploy",
            "register",
            "list",
            "show",
            "delete",
            "versions",
            "compare",
            "deployments",
            "rollback",
            "preview",
            "cleanup",
        ],
    ),
    (
        "Traffic",
        &["invoke", "warmup", "alias", "traffic", "rollout", "policy", "promote", "approvals", "approve", "reject"],
    ),
    ("Configure", &["config-of", "env", "secret", "environments", "token"]),
    ("Observe", &["status", "logs", "metrics", "bench"]),
    ("Operate", &["backup", "restore", "manifest", "config", "completions"]),
];

/// Width of the help where it is not clap's: no terminal is narrower.
const WIDTH: usize = 80;

/// The command tree, with the commands in groups and the table of exit codes.
pub(super) fn command() -> clap::Command {
    let tree = Cli::command();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{{all-args}}\n\n{}",
        groups_help(&tree),
        exit_code_help()
    );
    // The groups take the place of clap's own list.
    tree.mut_subcommands(|it| it.hide(true)).help_template(template).override_usage("levain [OPTIONS] <COMMAND>")
}

fn groups_help(tree: &clap::Command) -> String {
    let mut help = String::new();
    for (group, names) in GROUPS {
        let _ = writeln!(help, "{BOLD}{group}:{BOLD:#}");
        for command in names.iter().filter_map(|name| tree.find_subcommand(name)) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let alias = command.get_visible_aliases().map(|it| format!(" [alias: {it}]")).collect::<String>();
            let _ = writeln!(help, "  {:12}  {about}{alias}", command.get_name());
        }
        help.push('\n');
    }
    help + "`levain help COMMAND` shows a command's options and examples.\n\n"
}

fn exit_code_help() -> String {
    let mut classes: BTreeMap<u8, Vec<&str>> = BTreeMap::from([
        (0, vec!["success"]),
        (2, vec!["wrong usage"]),
        (EXIT_NO_DAEMON, vec!["no daemon answers"]),
        (EXIT_STATUS, vec!["`invoke --fail`: the status is 400 or above"]),
    ]);
    for code in ErrorCode::ALL {
        classes.entry(code.exit_code()).or_default().push(code.as_str());
    }
    let mut help = format!("{BOLD}Exit codes:{BOLD:#}");
    for (code, names) in classes {
        let mut line = format!("\n  {code:>3}  ");
        for (index, name) in names.iter().enumerate() {
            let end = if index + 1 < names.len() { ", " } else { "" };
            if line.len() + name.len() + end.trim_end().len() > WIDTH {
                help += line.trim_end();
                line = "\n       ".into();
            }
            line = line + name + end;
        }
        help += &line;
    }
    help
}

#[cfg(test)]
mod tests;
