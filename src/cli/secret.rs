//! Secrets: set, rotated, listed without values and deleted; their generations, audit trail and master key.

use super::error::CliError;
use super::input::Confirmation;
use super::print::{GREEN, styled, table};
use super::session::Session;
use super::text;
use super::variables::{Place, PlaceArgs, list_text, read_text};
use crate::model::{EnvironmentName, SecretAction, SecretText, Timestamp};
use crate::protocol::message::{
    RotateMasterKeyRequest, RotateMasterKeyResponse, SecretAuditInfo, SecretAuditRequest, SecretGenerationsRequest,
    SecretGenerationsResponse, SetVariablesRequest, VariableInput,
};
use clap::{Args, Subcommand};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

/// Name of one secret.
#[derive(Debug, Args)]
pub(super) struct Named {
    #[command(flatten)]
    place: PlaceArgs,
    /// The secret
    key: Vec<String>,
}

/// Name of a secret, and source of its value: never an argument, which every user of the machine can read.
#[derive(Debug, Args)]
pub(super) struct Value {
    #[command(flatten)]
    named: Named,
    /// Read the value from this file, unchanged [default: from standard input, without the last line end]
    #[arg(long, value_name = "FILE", conflicts_with = "from_env")]
    from_file: Option<PathBuf>,
    /// Read the value from this environment variable of the command
    #[arg(long, value_name = "VARIABLE")]
    from_env: Option<String>,
}

const SET_EXAMPLES: &str = "Examples:
  levain secret set shop API_KEY < key.txt
  levain secret set shop API_KEY --environment staging --from-env STAGING_KEY
  pass show shop/key | levain secret set shop API_KEY

The value is never an argument, because every user of the machine can see those. It cannot be shown again.";

/// `levain secret`.
#[derive(Debug, Subcommand)]
pub(super) enum Secret {
    /// Set a secret to a value from standard input
    #[command(after_help = SET_EXAMPLES)]
    Set(Value),
    /// Give an existing secret another value; workers are replaced without a failed call
    #[command(after_help = "Example:\n  levain secret rotate shop API_KEY < new-key.txt")]
    Rotate(Value),
    /// Restore an earlier value of a secret, as a new generation
    #[command(after_help = "Example:\n  levain secret restore shop API_KEY --generation 2")]
    Restore {
        #[command(flatten)]
        named: Named,
        /// The generation to restore
        #[arg(long, value_name = "N")]
        generation: u32,
    },
    /// List a function's secrets, or those for all functions, without their values
    #[command(visible_alias = "ls", after_help = "Examples:\n  levain secret list shop\n  levain secret list --all")]
    List {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Delete secrets with all their generations
    #[command(visible_alias = "revoke", after_help = "Example:\n  levain secret delete shop API_KEY --yes")]
    Delete {
        #[command(flatten)]
        place: PlaceArgs,
        /// The secrets
        #[arg(value_name = "KEY")]
        keys: Vec<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// List the kept generations of a secret
    #[command(after_help = "Example:\n  levain secret generations shop API_KEY")]
    Generations(Named),
    /// Show the audit trail of secrets, newest first
    #[command(after_help = "Examples:\n  levain secret audit\n  levain secret audit shop --limit 20")]
    Audit {
        /// The function's name or id [default: all]
        name: Option<String>,
        /// Maximum number of rows, 1 to 1000 [default: 100]
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// Seal all secrets with another master key; nothing stops, and no value changes
    #[command(after_help = "Example:\n  levain secret rotate-master-key\n\n\
        The key in the data directory is replaced by a new one. If the configuration names a file, put the new key \
        there first, and keep the old one until this has succeeded.")]
    RotateMasterKey,
}

impl Secret {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Set(value) => value.set(session, false).await,
            Self::Rotate(value) => value.set(session, true).await,
            Self::Restore { named, generation } => {
                let (place, key) = named.split()?;
                let input = VariableInput { key, from_generation: Some(generation), ..VariableInput::default() };
                set(session, place, input, true).await
            }
            Self::List { place } => {
                let mut response = place.only()?.list(session, false).await?;
                response.variables.retain(|it| it.is_secret);
                session.out.response(&response, |it| list_text(&it.variables, Timestamp::now()))
            }
            Self::Delete { place, keys, confirmation } => {
                let (place, keys) = place.split(keys)?;
                place.delete(session, keys, true, confirmation).await
            }
            Self::Generations(named) => {
                let (Place { function_id, environment }, key) = named.split()?;
                let request = SecretGenerationsRequest { function_id, environment, key };
                session.print(&request, |it| generations_text(it, Timestamp::now())).await
            }
            Self::Audit { name, limit } => {
                session.print(&SecretAuditRequest { function_id: name, limit }, |it| audit_text(&it.entries)).await
            }
            Self::RotateMasterKey => session.print(&RotateMasterKeyRequest {}, rotated_text).await,
        }
    }
}

impl Named {
    fn split(self) -> Result<(Place, String), CliError> {
        const WHAT: &str = "one secret and nothing else: its value is not an argument, but comes from standard input";
        let named = self.place.with_one(self.key, WHAT)?;
        match named.1.contains('=') {
            true => Err(CliError::usage(format!("name {WHAT}"))),
            false => Ok(named),
        }
    }
}

async fn set(session: &Session, place: Place, input: VariableInput, only_existing: bool) -> Result<(), CliError> {
    let (is_secret, variables) = (Some(true), vec![input]);
    place.set(session, SetVariablesRequest { is_secret, variables, only_existing, ..Default::default() }).await
}

impl Value {
    async fn set(self, session: &Session, only_existing: bool) -> Result<(), CliError> {
        let (place, key) = self.named.split()?;
        let value = Some(value(self.from_file, self.from_env, &key)?);
        set(session, place, VariableInput { key, value, ..VariableInput::default() }, only_existing).await
    }
}

fn value(file: Option<PathBuf>, variable: Option<String>, key: &str) -> Result<SecretText, CliError> {
    if let Some(file) = file {
        return read_text(&file);
    }
    if let Some(variable) = variable {
        let missing = |_| CliError::usage(format!("the variable {variable} is not set, or is not UTF-8 text"));
        return std::env::var(&variable).map(SecretText::from).map_err(missing);
    }
    if io::stdin().is_terminal() {
        return ask(key);
    }
    let text = read_text("-".as_ref())?;
    let line = text.expose().strip_suffix('\n').map(|it| it.strip_suffix('\r').unwrap_or(it));
    Ok(line.map_or_else(|| text.clone(), SecretText::from))
}

/// Asks for the value on the terminal, without showing it.
fn ask(key: &str) -> Result<SecretText, CliError> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let failed = |source: io::Error| CliError::Input { path: "the terminal".into(), source };
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "Value of {key} (not shown): ");
    let before = tcgetattr(io::stdin()).map_err(|error| failed(error.into()))?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent).map_err(|error| failed(error.into()))?;
    let mut line = String::new();
    let outcome = io::stdin().read_line(&mut line);
    let restored = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &before);
    let _ = writeln!(stderr);
    outcome.map_err(failed)?;
    restored.map_err(|error| failed(error.into()))?;
    let line = SecretText::from(line);
    Ok(line.expose().trim_end_matches(['\r', '\n']).into())
}

fn generations_text(response: &SecretGenerationsResponse, now: Timestamp) -> String {
    let rows = response.generations.iter().map(|it| {
        let is_current = if it.is_current { "present" } else { "former" };
        [it.generation.to_string(), is_current.into(), it.actor.clone(), text::age(it.created_at, now)]
    });
    table([">GENERATION", "VALUE", "BY", "SET"], rows)
}

fn audit_text(entries: &[SecretAuditInfo]) -> String {
    let rows = entries.iter().map(|it| {
        let place = match (it.function.clone().or(it.function_id.as_ref().map(ToString::to_string)), &it.environment) {
            (None, None) => "-".to_owned(),
            (function, environment) => {
                let function = function.unwrap_or_else(|| "all functions".to_owned());
                format!("{function} {}", environment.as_ref().map_or("everywhere", EnvironmentName::as_str))
            }
        };
        let key = match (&it.key, it.generation) {
            (Some(key), Some(generation)) => format!("{key}@{generation}"),
            (key, _) => text::or_dash(key.as_ref()),
        };
        let times = if it.count > 1 { format!(" ({} times, last {})", it.count, it.last_at) } else { String::new() };
        let detail = format!("{}{times}", it.detail.as_deref().unwrap_or("-"));
        [it.at.to_string(), action(it.action).into(), place, key, it.actor.clone(), detail]
    });
    table(["AT", "WHAT", "FOR", "SECRET", "BY", "MORE"], rows)
}

fn action(action: SecretAction) -> &'static str {
    match action {
        SecretAction::Set => "set",
        SecretAction::Rotate => "rotated",
        SecretAction::Delete => "deleted",
        SecretAction::Inject => "given to workers",
        SecretAction::RevealDenied => "not shown",
        SecretAction::RotateMasterKey => "new master key",
        SecretAction::ChangeEnvironment => "environment changed",
    }
}

fn rotated_text(response: &RotateMasterKeyResponse) -> String {
    let keys = text::count(response.data_keys as usize, "data key", "data keys");
    format!("{} {keys} sealed with the new master key {}", styled(GREEN, "ok"), response.key_id)
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        named: Named,
    }

    #[test]
    fn a_value_is_no_argument() {
        let split = |line: &[&str]| Line::parse_from(["x"].iter().chain(line)).named.split();
        for line in [["shop", "KEY=hunter22"].as_slice(), &["shop", "KEY", "hunter22"], &["--all", "KEY", "hunter22"]] {
            let error = split(line).expect_err("an argument").to_string();
            assert!(!error.contains("hunter") && error.contains("value is not an argument"), "{error}");
        }
        let (place, key) = split(&["shop", "KEY"]).expect("a name");
        assert_eq!((place.function_id.as_deref(), key.as_str()), (Some("shop"), "KEY"));
    }

    #[test]
    fn the_trail_is_a_table() {
        let at = Timestamp::from_millis(0);
        let row = SecretAuditInfo {
            at,
            action: SecretAction::Inject,
            actor: "daemon".into(),
            function_id: Some("func-1".into()),
            function: Some("shop".into()),
            environment: Some("production".parse().expect("a name")),
            key: None,
            generation: None,
            detail: Some("version v1: KEY@2".into()),
            count: 3,
            last_at: at,
        };
        let text = plain(&audit_text(&[row]));
        assert!(text.contains("given to workers  shop production  -"), "{text}");
        assert!(text.contains("version v1: KEY@2 (3 times, last 1970-01-01T00:00:00"), "{text}");
    }
}
