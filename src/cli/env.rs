//! Variables: set, list, delete, import from and export to `.env` files.

use super::error::CliError;
use super::functions::confirm;
use super::invoke::read_stdin;
use super::print::{DIM, GREEN, YELLOW, styled, table};
use super::session::Session;
use super::text;
use crate::error::ErrorCode;
use crate::model::{SecretText, Timestamp, dotenv};
use crate::protocol::message::{
    ChangeVariablesResponse, DeleteVariablesRequest, ListVariablesRequest, ListVariablesResponse, PlaceInfo,
    SetVariablesRequest, VariableInfo, VariableInput,
};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// Scope of variables: one function or all, in one environment or all.
#[derive(Debug, Args)]
pub(super) struct For {
    /// For all functions; leave NAME out
    #[arg(long)]
    pub(super) all: bool,
    /// Only in this environment [default: in all]
    #[arg(long, short, value_name = "ENVIRONMENT")]
    pub(super) environment: Option<String>,
}

impl For {
    /// Splits off the function, which is the first argument unless `--all` is given.
    pub(super) fn split(&self, mut args: Vec<String>) -> Result<(Option<String>, Vec<String>), CliError> {
        if self.all {
            return Ok((None, args));
        }
        if args.is_empty() {
            return Err(CliError::usage("name a function, or use --all for all functions"));
        }
        let name = args.remove(0);
        match name.contains('=') {
            true => Err(CliError::usage("name a function first, or use --all for all functions")),
            false => Ok((Some(name), args)),
        }
    }
}

const SET_EXAMPLES: &str = "Examples:
  levain env set hello GREETING=Hello LANGUAGE=en
  levain env set hello GREETING=Moin --environment staging
  levain env set --all REGION=eu

Either all variables are set, or none. Running workers are replaced, new ones first: no call fails, and each call sees \
either all old values or all new ones. For confidential values, use `levain secret set`.";

const LIST_EXAMPLES: &str = "Examples:
  levain env list hello
  levain env list hello --resolved --environment staging   effective values and their origins
  levain env list --all";

/// `levain env`.
#[derive(Debug, Subcommand)]
pub(super) enum Env {
    /// List a function's variables, or those for all functions
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List {
        /// The function's name or id
        #[arg(value_name = "NAME")]
        args: Vec<String>,
        #[command(flatten)]
        place: For,
        /// Effective values in the environment (production unless one is given), wherever they are set
        #[arg(long)]
        resolved: bool,
    },
    /// Set variables
    #[command(
        after_help = SET_EXAMPLES,
        override_usage = "levain env set [OPTIONS] <NAME> <KEY=VALUE>...\n       \
        levain env set [OPTIONS] --all <KEY=VALUE>..."
    )]
    Set {
        /// The function's name or id, then the variables
        #[arg(value_name = "NAME> <KEY=VALUE", required = true)]
        args: Vec<String>,
        #[command(flatten)]
        place: For,
    },
    /// Delete variables
    #[command(
        visible_alias = "unset",
        override_usage = "levain env delete [OPTIONS] <NAME> <KEY>...\n       \
        levain env delete [OPTIONS] --all <KEY>...",
        after_help = "Examples:\n  levain env delete hello GREETING LANGUAGE --yes\n  levain env delete --all REGION --yes"
    )]
    Delete {
        /// The function's name or id, then the names of the variables
        #[arg(value_name = "NAME> <KEY", required = true)]
        args: Vec<String>,
        #[command(flatten)]
        place: For,
        /// Skip the confirmation
        #[arg(long, short)]
        yes: bool,
    },
    /// Set the variables of a .env file, all or none
    #[command(
        override_usage = "levain env import [OPTIONS] <NAME> <FILE>\n       \
        levain env import [OPTIONS] --all <FILE>",
        after_help = "Examples:\n  levain env import hello .env\n  levain env import hello secrets.env --secret\n  \
        generate | levain env import hello -"
    )]
    Import {
        /// The function's name or id, then the file, or `-` for standard input
        #[arg(value_name = "NAME> <FILE", required = true)]
        args: Vec<String>,
        #[command(flatten)]
        place: For,
        /// Store all values as secrets
        #[arg(long)]
        secret: bool,
    },
    /// Print a function's variables as a .env file, with secrets as comments without values
    #[command(
        after_help = "Examples:\n  levain env export hello > .env\n  levain env export hello --resolved -e staging"
    )]
    Export {
        /// The function's name or id
        #[arg(value_name = "NAME")]
        args: Vec<String>,
        #[command(flatten)]
        place: For,
        /// Effective values in the environment (production unless one is given), wherever they are set
        #[arg(long)]
        resolved: bool,
    },
}

impl Env {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::List { args, place, resolved } => {
                let response = list(session, args, place, resolved).await?;
                session.out.response(&response, |it| list_text(&it.variables, Timestamp::now()))
            }
            Self::Set { args, place } => {
                let (function_id, args) = place.split(args)?;
                let variables = args.iter().map(|it| assignment(it)).collect::<Result<_, _>>()?;
                let request = SetVariablesRequest {
                    function_id,
                    environment: place.environment,
                    variables,
                    ..SetVariablesRequest::default()
                };
                let response = session.call(&request).await?;
                changed(session, &response)
            }
            Self::Delete { args, place, yes } => {
                let (function_id, keys) = place.split(args)?;
                delete(session, function_id, place.environment, keys, (false, yes)).await
            }
            Self::Import { args, place, secret } => {
                let (function_id, files) = place.split(args)?;
                let [file] = files.as_slice() else {
                    return Err(CliError::usage("name one file, or - for standard input"));
                };
                let dotenv = Some(read(Path::new(file))?);
                let request = SetVariablesRequest {
                    function_id,
                    environment: place.environment,
                    is_secret: secret.then_some(true),
                    dotenv,
                    ..SetVariablesRequest::default()
                };
                let response = session.call(&request).await?;
                changed(session, &response)
            }
            Self::Export { args, place, resolved } => {
                if !resolved && place.environment.is_none() {
                    let response = list(session, args, place, false).await?;
                    let everywhere: Vec<_> =
                        response.variables.into_iter().filter(|it| it.place.environment.is_none()).collect();
                    return session.out.response(&everywhere, |it| export_text(it));
                }
                let response = list(session, args, place, resolved).await?;
                session.out.response(&response.variables, |it| export_text(it))
            }
        }
    }
}

async fn list(
    session: &Session,
    args: Vec<String>,
    place: For,
    resolved: bool,
) -> Result<ListVariablesResponse, CliError> {
    let (function_id, rest) = place.split(args)?;
    if !rest.is_empty() {
        return Err(CliError::usage("name only one function"));
    }
    let environment = place.environment;
    session.call(&ListVariablesRequest { function_id, environment, resolved, reveal: false }).await
}

pub(super) async fn delete(
    session: &Session,
    function_id: Option<String>,
    environment: Option<String>,
    keys: Vec<String>,
    (only_secrets, yes): (bool, bool),
) -> Result<(), CliError> {
    if keys.is_empty() {
        return Err(CliError::usage("name the variables to delete"));
    }
    if !yes && !confirm(&format!("Delete {}?", text::names(&keys)))? {
        return Err(CliError::usage("nothing deleted"));
    }
    let request = DeleteVariablesRequest { function_id, environment, key: None, keys, only_secrets };
    let response = session.call(&request).await?;
    changed(session, &response)
}

fn assignment(text: &str) -> Result<VariableInput, CliError> {
    // The argument is not shown, because it may be a secret.
    let (key, value) = text.split_once('=').ok_or_else(|| CliError::usage("a variable is KEY=VALUE"))?;
    Ok(VariableInput { key: key.into(), value: Some(value.into()), ..VariableInput::default() })
}

/// Reads a file, or standard input for `-`, as text.
pub(super) fn read(path: &Path) -> Result<SecretText, CliError> {
    let bytes = match path == Path::new("-") {
        true => read_stdin()?.to_vec(),
        false => std::fs::read(path).map_err(|source| CliError::Input { path: path.to_owned(), source })?,
    };
    let not_text = |_| CliError::usage(format!("{} is not UTF-8 text", PathBuf::from(path).display()));
    String::from_utf8(bytes).map(SecretText::from).map_err(not_text)
}

/// Prints the outcome of a change. The command fails if new workers do not load with the change, which is stored: the
/// old values are still in use.
pub(super) fn changed(session: &Session, response: &ChangeVariablesResponse) -> Result<(), CliError> {
    session.out.response(response, changed_text)?;
    not_in_force(response).map_or(Ok(()), Err)
}

fn not_in_force(response: &ChangeVariablesResponse) -> Option<CliError> {
    response.workers.failure.as_ref()?;
    let message = "the change is stored, but calls do not see it until workers load with it: fix the code or the \
                   values, or delete the version";
    Some(CliError::Failed { message: message.into(), exit_code: ErrorCode::WorkerUnavailable.exit_code() })
}

fn changed_text(response: &ChangeVariablesResponse) -> String {
    let ChangeVariablesResponse { created, changed, unchanged, deleted, workers, warnings } = response;
    let mut lines = Vec::new();
    let ok = styled(GREEN, "ok");
    for (what, keys) in [("set", created), ("changed", changed), ("deleted", deleted)] {
        if !keys.is_empty() {
            lines.push(format!("{ok} {what} {}", text::names(keys)));
        }
    }
    if !unchanged.is_empty() {
        lines.push(styled(DIM, &format!("unchanged: {}", text::names(unchanged))));
    }
    let pools = text::count(workers.pools as usize, "pool", "pools");
    match (workers.pools, workers.pending) {
        (0, _) => {}
        (_, 0) => lines.push(format!("{ok} the workers of {pools} were replaced: calls see the new values")),
        (_, pending) => {
            let why = workers.failure.as_deref().unwrap_or("the replacement takes long");
            let pending = text::count(pending as usize, "pool", "pools");
            let note = format!("the workers of {pending} still have the old values: {}", text::harmless(why));
            lines.push(styled(YELLOW, &note));
        }
    }
    lines.extend(warnings.iter().map(|it| styled(YELLOW, it)));
    lines.join("\n")
}

pub(super) fn list_text(variables: &[VariableInfo], now: Timestamp) -> String {
    let rows = variables.iter().map(|it| {
        let value = match (&it.value, it.generation) {
            (Some(value), _) => shown(value),
            (None, generation) => format!("secret, generation {}", generation.unwrap_or(0)),
        };
        let hides = it.hides.iter().map(|it| place_text(it, " ")).collect::<Vec<_>>().join("; ");
        [
            it.key.clone(),
            value,
            place_text(&it.place, " "),
            text::or_dash(Some(&hides).filter(|it| !it.is_empty()).map(String::as_str)),
            text::age(it.updated_at, now),
        ]
    });
    table(["KEY", "VALUE", "FOR", "INSTEAD OF", "SET"], rows)
}

fn place_text(place: &PlaceInfo, between: &str) -> String {
    let function = if place.function_id.is_some() { "this function" } else { "all functions" };
    match &place.environment {
        Some(environment) => format!("{function}{between}in {environment}"),
        None => function.to_owned(),
    }
}

/// Shows a value on one line, and cuts a long one.
fn shown(value: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let line = value.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
    match line.chars().count() > CHARACTERS_MAX {
        true => line.chars().take(CHARACTERS_MAX).chain(['…']).collect(),
        false => line,
    }
}

fn export_text(variables: &[VariableInfo]) -> String {
    let line = |it: &VariableInfo| match &it.value {
        Some(value) => dotenv::line(&it.key, value),
        None => format!("# {} is a secret\n", it.key),
    };
    variables.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::protocol::message::RenewalInfo;

    fn variable(key: &str, value: Option<&str>, environment: Option<&str>) -> VariableInfo {
        VariableInfo {
            key: key.into(),
            value: value.map(Into::into),
            is_secret: value.is_none(),
            generation: value.is_none().then_some(3),
            place: PlaceInfo { function_id: Some("func-1".into()), environment: environment.map(Into::into) },
            hides: Vec::new(),
            actor: "uid:0".into(),
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn a_list_says_where_values_come_from_and_what_they_hide() {
        let mut first = variable("A", Some("two\nlines"), Some("staging"));
        first.hides = vec![PlaceInfo { function_id: None, environment: None }];
        let text = plain(&list_text(&[first, variable("KEY", None, None)], Timestamp::from_millis(61_000)));
        let expected = "KEY  VALUE                 FOR                       INSTEAD OF     SET\n\
            A    two\\nlines            this function in staging  all functions  1m ago\n\
            KEY  secret, generation 3  this function             -              1m ago\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_export_has_no_secret() {
        let variables = [variable("A", Some("a \"b\"\n"), None), variable("KEY", None, None)];
        assert_eq!(export_text(&variables), "A=\"a \\\"b\\\"\\n\"\n# KEY is a secret\n");
    }

    #[test]
    fn the_function_comes_first_unless_it_is_for_all() {
        let place = |all| For { all, environment: None };
        let args = |args: &[&str]| args.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let (function, rest) = place(false).split(args(&["hello", "A=1"])).expect("a function");
        assert_eq!((function.as_deref(), rest), (Some("hello"), args(&["A=1"])));
        assert!(place(false).split(args(&["A=1"])).is_err());
        assert!(place(false).split(args(&[])).is_err());
        assert_eq!(place(true).split(args(&["A=1"])).expect("none is needed"), (None, args(&["A=1"])));
    }

    #[test]
    fn a_change_says_whether_calls_have_it() {
        let workers = RenewalInfo { pools: 2, pending: 0, failure: None };
        let mut response = ChangeVariablesResponse {
            created: vec!["A".into()],
            changed: Vec::new(),
            unchanged: vec!["B".into()],
            deleted: Vec::new(),
            workers,
            warnings: Vec::new(),
        };
        let text = plain(&changed_text(&response));
        assert_eq!(text, "ok set A\nunchanged: B\nok the workers of 2 pools were replaced: calls see the new values");
        response.workers = RenewalInfo { pools: 2, pending: 1, failure: Some("it throws".into()) };
        assert!(
            plain(&changed_text(&response)).ends_with("the workers of 1 pool still have the old values: it throws")
        );
        let failed = not_in_force(&response).expect("a script must notice");
        assert_eq!(failed.exit_code(), ErrorCode::WorkerUnavailable.exit_code());
        // A slow replacement continues without the user.
        response.workers.failure = None;
        assert!(not_in_force(&response).is_none());
    }
}
