//! Variables: set, list, delete, import from and export to `.env` files.

use super::error::CliError;
use super::input::Confirmation;
use super::session::Session;
use super::variables::{PlaceArgs, list_text, read_text};
use crate::error::ErrorCode;
use crate::model::{EnvironmentName, Timestamp, dotenv};
use crate::protocol::message::{SetVariablesRequest, VariableInfo, VariableInput};
use clap::{Args, Subcommand};

const SET_EXAMPLES: &str = "Examples:
  levain env set hello GREETING=Hello LANGUAGE=en
  levain env set hello GREETING=Moin --environment staging
  levain env set --all REGION=eu

Either all variables are set, or none. Running workers are replaced, new ones first: no call fails, and each call sees \
either all old values or all new ones. For confidential values, use `levain secret set`.";

const LIST_EXAMPLES: &str = "Examples:
  levain env list hello
  levain env list hello --resolved -e staging   effective values
  levain env list --all";

/// `levain env`.
#[derive(Debug, Subcommand)]
pub(super) enum Env {
    /// List a function's variables, or those for all functions
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(Which),
    /// Print the value of one variable
    #[command(after_help = "Examples:\n  levain env get hello GREETING\n  \
        levain env get hello GREETING --resolved -e staging\n\nA secret is never printed.")]
    Get {
        #[command(flatten)]
        place: PlaceArgs,
        /// The variable
        key: Vec<String>,
        #[command(flatten)]
        values: Values,
    },
    /// Set variables
    #[command(after_help = SET_EXAMPLES)]
    Set {
        #[command(flatten)]
        place: PlaceArgs,
        /// The variables
        #[arg(value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// Delete variables
    #[command(
        visible_alias = "unset",
        after_help = "Examples:\n  levain env delete hello GREETING LANGUAGE --yes\n  levain env delete --all REGION --yes"
    )]
    Delete {
        #[command(flatten)]
        place: PlaceArgs,
        /// The variables
        #[arg(value_name = "KEY")]
        keys: Vec<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Set the variables of a .env file, all or none
    #[command(
        after_help = "Examples:\n  levain env import hello .env\n  levain env import hello secrets.env --secret\n  \
        generate | levain env import hello -"
    )]
    Import {
        #[command(flatten)]
        place: PlaceArgs,
        /// The file, or `-` for standard input
        file: Vec<String>,
        /// Store all values as secrets
        #[arg(long)]
        secret: bool,
    },
    /// Print a function's variables as a .env file, with secrets as comments without values
    #[command(
        after_help = "Examples:\n  levain env export hello > .env\n  levain env export hello --resolved -e staging"
    )]
    Export(Which),
}

/// Variables of a place.
#[derive(Debug, Args)]
pub(super) struct Which {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    values: Values,
}

/// Which of the values of a place.
#[derive(Debug, Args)]
pub(super) struct Values {
    /// Effective values in the environment (production unless one is given), wherever they are set
    #[arg(long)]
    resolved: bool,
}

impl Env {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::List(Which { place, values }) => {
                let response = place.only()?.list(session, values.resolved).await?;
                session.out.response(&response, |it| list_text(&it.variables, Timestamp::now()))
            }
            Self::Get { place, key, values } => {
                let (place, key) = place.with_one(key, "one variable")?;
                let environment = place.environment.clone();
                let variables = place.list(session, values.resolved).await?.variables;
                let is_here = |it: &VariableInfo| {
                    let own = it.place.environment.as_ref().map(EnvironmentName::as_str);
                    values.resolved || own == environment.as_deref()
                };
                let found = variables.iter().find(|it| it.key == *key && is_here(it));
                session.out.response(value(found, &key)?, |it| it.value.clone().unwrap_or_default())
            }
            Self::Set { place, pairs } => {
                let (place, pairs) = place.split(pairs)?;
                if pairs.is_empty() {
                    return Err(CliError::usage("name the variables to set, as KEY=VALUE"));
                }
                let variables = pairs.iter().map(|it| assignment(it)).collect::<Result<_, _>>()?;
                place.set(session, SetVariablesRequest { variables, ..SetVariablesRequest::default() }).await
            }
            Self::Delete { place, keys, confirmation } => {
                let (place, keys) = place.split(keys)?;
                place.delete(session, keys, false, confirmation).await
            }
            Self::Import { place, file, secret } => {
                let (place, file) = place.with_one(file, "one file, or - for standard input")?;
                let (is_secret, dotenv) = (secret.then_some(true), Some(read_text(file.as_ref())?));
                place.set(session, SetVariablesRequest { is_secret, dotenv, ..SetVariablesRequest::default() }).await
            }
            Self::Export(Which { place, values }) => {
                let place = place.only()?;
                let is_everywhere = !values.resolved && place.environment.is_none();
                let mut variables = place.list(session, values.resolved).await?.variables;
                variables.retain(|it| !is_everywhere || it.place.environment.is_none());
                session.out.response(&variables, |it| export_text(it))
            }
        }
    }
}

/// The variable, unless its value cannot be shown.
fn value<'a>(found: Option<&'a VariableInfo>, key: &str) -> Result<&'a VariableInfo, CliError> {
    match found {
        None => Err(CliError::failed(
            ErrorCode::VariableNotFound,
            format!("there is no variable `{key}` in this place; `levain env list` shows all"),
        )),
        Some(it) if it.is_secret => Err(CliError::failed(
            ErrorCode::Forbidden,
            format!("`{key}` is a secret: its value is never shown; `levain secret set` gives it another one"),
        )),
        Some(it) => Ok(it),
    }
}

fn assignment(text: &str) -> Result<VariableInput, CliError> {
    // The argument is not shown, because it may be a secret.
    let (key, value) = text.split_once('=').ok_or_else(|| CliError::usage("a variable is KEY=VALUE"))?;
    Ok(VariableInput { key: key.into(), value: Some(value.into()), ..VariableInput::default() })
}

fn export_text(variables: &[VariableInfo]) -> String {
    let line = |it: &VariableInfo| match &it.value {
        Some(value) => dotenv::line(it.key.as_str(), value),
        None => format!("# {} is a secret\n", it.key),
    };
    variables.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::PlaceInfo;

    fn variable(key: &str, value: Option<&str>) -> VariableInfo {
        VariableInfo {
            key: key.parse().expect("a name"),
            value: value.map(Into::into),
            is_secret: value.is_none(),
            generation: value.is_none().then_some(3),
            place: PlaceInfo { function_id: Some("func-1".into()), environment: None },
            hides: Vec::new(),
            actor: "uid:0".into(),
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn an_export_has_no_secret() {
        let variables = [variable("A", Some("a \"b\"\n")), variable("KEY", None)];
        assert_eq!(export_text(&variables), "A=\"a \\\"b\\\"\\n\"\n# KEY is a secret\n");
    }
}
