//! Variables and secrets: the place they are set for, requests that change them, and their texts.

use super::error::CliError;
use super::input::{self, Confirmation};
use super::print::{DIM, GREEN, YELLOW, styled, table};
use super::session::Session;
use super::text;
use crate::error::ErrorCode;
use crate::model::{SecretText, Timestamp};
use crate::protocol::message::{
    ChangeVariablesResponse, DeleteVariablesRequest, ListVariablesRequest, ListVariablesResponse, PlaceInfo,
    SetVariablesRequest, VariableInfo,
};
use clap::Args;
use std::path::Path;

/// Place of variables: one function or all, in one environment or all.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// The function's name or id; left out with --all
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// For all functions
    #[arg(long)]
    all: bool,
    /// Only in this environment [default: in all]
    #[arg(long, short, value_name = "ENVIRONMENT")]
    environment: Option<String>,
}

/// A place whose command takes no other argument.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) function_id: Option<String>,
    pub(super) environment: Option<String>,
}

impl PlaceArgs {
    /// The place, and the other arguments: with `--all`, the first argument is one of those.
    pub(super) fn split(self, others: Vec<String>) -> Result<(Place, Vec<String>), CliError> {
        let Self { name, all, environment } = self;
        if all {
            return Ok((Place { function_id: None, environment }, name.into_iter().chain(others).collect()));
        }
        match name.as_ref().is_some_and(|it| it.contains('=')) {
            true => Err(CliError::usage("name a function first, or use --all for all functions")),
            false => Ok((Place { function_id: name, environment }, others)),
        }
    }

    /// The place, for a command without other arguments.
    pub(super) fn only(self) -> Result<Place, CliError> {
        match self.split(Vec::new())? {
            (place, others) if others.is_empty() => Ok(place),
            _ => Err(CliError::usage("name a function or use --all, not both")),
        }
    }

    /// The place and the one other argument, which `what` describes.
    pub(super) fn with_one(self, others: Vec<String>, what: &str) -> Result<(Place, String), CliError> {
        let (place, mut others) = self.split(others)?;
        match (others.pop(), others.is_empty()) {
            (Some(one), true) => Ok((place, one)),
            // The arguments are not shown: one may be the value of a secret.
            _ => Err(CliError::usage(format!("name {what}"))),
        }
    }
}

impl Place {
    /// Lists the variables, or with `resolved` the effective ones.
    pub(super) async fn list(self, session: &Session, resolved: bool) -> Result<ListVariablesResponse, CliError> {
        let Self { function_id, environment } = self;
        session.call(&ListVariablesRequest { function_id, environment, resolved, reveal: false }).await
    }

    /// Sends variables and prints the outcome.
    pub(super) async fn set(self, session: &Session, request: SetVariablesRequest) -> Result<(), CliError> {
        let Self { function_id, environment } = self;
        changed(session, &session.call(&SetVariablesRequest { function_id, environment, ..request }).await?)
    }

    /// Deletes variables, or only secrets, and prints the outcome.
    pub(super) async fn delete(
        self,
        session: &Session,
        keys: Vec<String>,
        only_secrets: bool,
        confirmation: Confirmation,
    ) -> Result<(), CliError> {
        if keys.is_empty() {
            return Err(CliError::usage("name the variables to delete"));
        }
        confirmation.ask(&format!("Delete {}?", text::names(&keys)))?;
        let Self { function_id, environment } = self;
        let request = DeleteVariablesRequest { function_id, environment, key: None, keys, only_secrets };
        changed(session, &session.call(&request).await?)
    }
}

/// Reads a file, or standard input for `-`, as text.
pub(super) fn read_text(path: &Path) -> Result<SecretText, CliError> {
    let not_text = |_| CliError::usage(format!("{} is not UTF-8 text", path.display()));
    String::from_utf8(input::read(path)?).map(SecretText::from).map_err(not_text)
}

/// Prints the outcome of a change. The command fails if new workers do not load with the change, which is stored: the
/// old values are still in use.
fn changed(session: &Session, response: &ChangeVariablesResponse) -> Result<(), CliError> {
    session.out.response(response, changed_text)?;
    not_in_force(response).map_or(Ok(()), Err)
}

fn not_in_force(response: &ChangeVariablesResponse) -> Option<CliError> {
    response.workers.failure.as_ref()?;
    let message = "the change is stored, but calls do not see it until workers load with it: fix the code or the \
                   values, or delete the version";
    Some(CliError::failed(ErrorCode::WorkerUnavailable, message))
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
        lines.push(styled(DIM, format!("unchanged: {}", text::names(unchanged))));
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
        let hides = it.hides.iter().map(place_text).collect::<Vec<_>>().join("; ");
        [it.key.to_string(), value, place_text(&it.place), text::or_dash(Some(&hides)), text::age(it.updated_at, now)]
    });
    table(["KEY", "VALUE", "FOR", "INSTEAD OF", "SET"], rows)
}

fn place_text(place: &PlaceInfo) -> String {
    let function = if place.function_id.is_some() { "this function" } else { "all functions" };
    match &place.environment {
        Some(environment) => format!("{function} in {environment}"),
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

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::protocol::message::RenewalInfo;

    fn variable(key: &str, value: Option<&str>, environment: Option<&str>) -> VariableInfo {
        VariableInfo {
            key: key.parse().expect("a name"),
            value: value.map(Into::into),
            is_secret: value.is_none(),
            generation: value.is_none().then_some(3),
            place: PlaceInfo {
                function_id: Some("func-1".into()),
                environment: environment.map(|it| it.parse().expect("a name")),
            },
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
    fn the_function_comes_first_unless_it_is_for_all() {
        let place = |name: Option<&str>, all| PlaceArgs { name: name.map(Into::into), all, environment: None };
        let args = |args: &[&str]| args.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let of = |function: Option<&str>| Place { function_id: function.map(Into::into), environment: None };
        let (function, rest) = place(Some("hello"), false).split(args(&["A=1"])).expect("a function");
        assert_eq!((function, rest), (of(Some("hello")), args(&["A=1"])));
        assert!(place(Some("A=1"), false).split(args(&[])).is_err());
        let all = place(Some("A=1"), true).split(args(&["B=2"])).expect("none is needed");
        assert_eq!(all, (of(None), args(&["A=1", "B=2"])));
        assert_eq!(place(None, true).only().expect("all functions"), of(None));
        assert!(place(Some("hello"), true).only().is_err());
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
