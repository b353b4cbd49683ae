//! The command tree and the parsers of single values.

use super::{
    aliases, approvals, backup, bench, cleanup, compare, config, demo, deploy, env, environments, functions, invoke,
    logs, manifest, metrics, policy, previews, promote, rollout, runtime, secret, serve, tokens, traffic, versions,
};
use crate::client::EXIT_NO_DAEMON;
use crate::error::ErrorCode;
use crate::model::{Setting, SettingValues, Settings, SettingsPatch};
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Functions on one machine: immutable versions, warm Bun workers, answers that explain themselves.
#[derive(Debug, Parser)]
#[command(name = "levain", version, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options of every command.
#[derive(Debug, Default, Args)]
pub(super) struct Global {
    /// The daemon's socket [env: LEVAIN_SOCKET] [default: from the configuration]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub(super) socket: Option<PathBuf>,
    /// Print answers as JSON, one line each
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) json: bool,
    /// The configuration file [default: ./config.toml if it exists]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon until SIGINT or SIGTERM
    Serve(serve::Serve),
    /// Run the daemon with sample functions, call one, and show what to try next
    Demo(demo::Demo),
    /// Show the daemon: versions, uptime, workers, memory, disk
    Status,
    /// Install or show the Bun that runs the workers
    Runtime(runtime::Runtime),
    /// Register a function
    Register(functions::Register),
    /// List the functions
    #[command(visible_alias = "ls")]
    List(functions::List),
    /// Show a function with its settings, aliases and workers
    Show(functions::Show),
    /// Show or change a function's settings; changes apply to running workers at once
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
    /// Point movable names such as STAGING at versions, list them, or delete one
    #[command(subcommand)]
    Alias(aliases::Alias),
    /// Split an alias's calls between two versions: canary, A/B, blue-green
    #[command(subcommand)]
    Traffic(traffic::Traffic),
    /// Export the versions of all aliases as a document, and restore them from it
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
    /// Point an alias of one environment at the version of another, such as staging to production
    Promote(promote::Promote),
    /// List or delete previews, the versions deployed with `deploy --preview`
    #[command(subcommand)]
    Preview(previews::Preview),
    /// Create, list, change, compare and delete the environments that aliases run in
    #[command(subcommand)]
    Environments(environments::Environments),
    /// Set, list and delete the variables that functions read from process.env
    #[command(subcommand)]
    Env(env::Env),
    /// Set, rotate and delete secrets: variables that are sealed on disk and never shown
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
    /// Print or follow a function's logs
    Logs(logs::Logs),
    /// Show call counts and durations of a function and its versions
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

/// The command tree with the table of exit codes under its help.
pub(super) fn command() -> clap::Command {
    Cli::command().after_help(exit_code_help())
}

fn exit_code_help() -> String {
    let mut classes: BTreeMap<u8, Vec<&str>> = BTreeMap::from([(EXIT_NO_DAEMON, vec!["no daemon answers"])]);
    classes.entry(0).or_default().push("success");
    classes.entry(2).or_default().push("wrong usage");
    for code in ErrorCode::ALL {
        classes.entry(code.exit_code()).or_default().push(code.as_str());
    }
    let mut help = String::from("Exit codes:\n");
    for (code, names) in classes {
        let _ = writeln!(help, "  {code:>2}  {}", names.join(", "));
    }
    help.truncate(help.trim_end().len());
    help
}

/// Parses a header, `Name: value`.
pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is `Name: value`")?;
    let (name, value) = (name.trim(), value.trim());
    http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a valid header name"))?;
    http::HeaderValue::from_str(value).map_err(|_| format!("`{value}` is not a valid header value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Parses a query parameter, `name=value`; the value may be empty.
pub(super) fn parse_query(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a query parameter is `name=value`".into()),
    }
}

/// Parses the duration of a measurement in seconds; fractions are allowed.
pub(super) fn parse_seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds =
        text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok().filter(|it| (0.01..=86_400.0).contains(it));
    let duration = seconds.and_then(|it| std::time::Duration::try_from_secs_f64(it).ok());
    duration.ok_or_else(|| "a duration is a number of seconds from 0.01 to 86400".into())
}

/// Settings as flags, one for each of [`Settings::ALL`].
#[derive(Debug, Clone, Default)]
pub(super) struct SettingsArgs(Vec<(&'static str, Value)>);

impl Args for SettingsArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(Settings::ALL.iter().map(|setting| {
            let name = match setting.values {
                SettingValues::Numbers(..) => "N".into(),
                SettingValues::Words(words) => words.join("|"),
            };
            Arg::new(setting.key)
                .long(setting.key.replace('_', "-"))
                .value_name(name)
                .value_parser(|text: &str| setting.parse(text))
                .help(setting.doc.trim_end_matches('.'))
                .help_heading("Settings")
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |it: &Setting| Some((it.key, matches.get_one::<Value>(it.key)?.clone()));
        Ok(Self(Settings::ALL.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl SettingsArgs {
    /// Returns the given settings, which these assignments override, or `None` if there are none.
    pub(super) fn patch(self, assignments: Vec<Assignment>) -> Option<SettingsPatch> {
        let given = self.0.into_iter().chain(assignments).map(|(key, value)| (key.to_owned(), value));
        let given: serde_json::Map<String, Value> = given.collect();
        (!given.is_empty()).then(|| serde_json::from_value(given.into()).expect("each value was parsed"))
    }
}

/// A setting and its value, given as `key=value`.
pub(super) type Assignment = (&'static str, Value);

/// Parses `key=value`; `-` and `_` are equivalent in a key.
pub(super) fn parse_assignment(text: &str) -> Result<Assignment, String> {
    let (key, value) = text.split_once('=').ok_or("a setting is `key=value`")?;
    let wanted = key.trim().replace('-', "_");
    let setting = Settings::ALL.iter().find(|it| it.key == wanted).ok_or_else(|| {
        let keys: Vec<&str> = Settings::ALL.iter().map(|it| it.key).collect();
        format!("unknown setting `{wanted}`; the settings are {}", keys.join(", "))
    })?;
    setting.parse(value.trim()).map(|value| (setting.key, value))
}

#[cfg(test)]
mod tests;
