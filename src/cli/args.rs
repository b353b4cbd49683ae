//! The command tree and the parsers of single values.

use super::{
    aliases, approvals, backup, bench, cleanup, compare, config, demo, deploy, env, environments, functions, invoke,
    logs, manifest, metrics, policy, previews, promote, rollout, runtime, secret, serve, tokens, traffic, versions,
};
use crate::client::EXIT_NO_DAEMON;
use crate::error::ErrorCode;
use crate::model::{Auth, Network, Setting, Settings, SettingsPatch};
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
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

/// Settings whose values are words instead of numbers.
const NETWORK: &str = "network";
const AUTH: &str = "auth";

fn parse_network(text: &str) -> Result<Network, String> {
    let found = Network::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, network)| *network).ok_or_else(|| format!("network is `on` or `off`, not `{text}`"))
}

fn parse_auth(text: &str) -> Result<Auth, String> {
    let found = Auth::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, auth)| *auth).ok_or_else(|| format!("auth is `public` or `token`, not `{text}`"))
}

/// Settings as flags, one for each of [`Settings::ALL`], `--network` and `--auth`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SettingsArgs(SettingsPatch);

impl Args for SettingsArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let flag = |setting: &Setting| {
            let range = i64::from(setting.min)..=i64::from(setting.max);
            let help = setting.doc.trim().trim_end_matches('.').replace('`', "");
            Arg::new(setting.key)
                .long(setting.key.replace('_', "-"))
                .value_name("N")
                .value_parser(clap::value_parser!(u32).range(range))
                .help(help)
                .help_heading("Settings")
        };
        let network = Arg::new(NETWORK)
            .long(NETWORK)
            .value_name("on|off")
            .value_parser(parse_network)
            .help("Network access; off leaves the function only its own loopback device")
            .help_heading("Settings");
        let auth = Arg::new(AUTH)
            .long(AUTH)
            .value_name("public|token")
            .value_parser(parse_auth)
            .help("Who may invoke the function over HTTP: anyone, or holders of a token with the scope invoke")
            .help_heading("Settings");
        command.args(Settings::ALL.iter().map(flag)).args([network, auth])
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut patch = SettingsPatch::default();
        for setting in Settings::ALL {
            *(setting.place)(&mut patch) = matches.get_one(setting.key).copied();
        }
        patch.network = matches.get_one(NETWORK).copied();
        patch.auth = matches.get_one(AUTH).copied();
        Ok(Self(patch))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl SettingsArgs {
    /// Returns the given settings, or `None` if there are none.
    pub(super) fn patch(self) -> Option<SettingsPatch> {
        (self.0 != SettingsPatch::default()).then_some(self.0)
    }
}

/// A setting as `key=value`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Assignment {
    /// A numeric setting and its value.
    Number(&'static Setting, u32),
    /// A value of `network`.
    Network(Network),
    /// A value of `auth`.
    Auth(Auth),
}

/// Parses `key=value`; `-` and `_` are equivalent in a key.
pub(super) fn parse_assignment(text: &str) -> Result<Assignment, String> {
    let (key, value) = text.split_once('=').ok_or("a setting is `key=value`")?;
    let wanted = key.trim().replace('-', "_");
    if wanted == NETWORK {
        return parse_network(value.trim()).map(Assignment::Network);
    }
    if wanted == AUTH {
        return parse_auth(value.trim()).map(Assignment::Auth);
    }
    let setting = Settings::ALL.iter().find(|it| it.key == wanted).ok_or_else(|| {
        let keys: Vec<&str> = Settings::ALL.iter().map(|it| it.key).chain([NETWORK, AUTH]).collect();
        format!("unknown setting `{wanted}`; the settings are {}", keys.join(", "))
    })?;
    let value = value.trim().parse().map_err(|_| format!("{} is a whole number, not `{value}`", setting.key))?;
    Ok(Assignment::Number(setting, value))
}

impl Assignment {
    /// Writes the value into the patch.
    pub(super) fn apply(self, patch: &mut SettingsPatch) {
        match self {
            Self::Number(setting, value) => *(setting.place)(patch) = Some(value),
            Self::Network(network) => patch.network = Some(network),
            Self::Auth(auth) => patch.auth = Some(auth),
        }
    }
}

#[cfg(test)]
mod tests;
