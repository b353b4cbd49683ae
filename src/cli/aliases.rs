//! Aliases: movable names for versions.

use super::arguments::Move;
use super::error::CliError;
use super::input::Confirmation;
use super::print::{DIM, styled, table};
use super::session::Session;
use super::views::targets_text;
use super::{outcome, text};
use crate::model::Timestamp;
use crate::protocol::message::{
    AliasesRequest, AliasesResponse, DeleteAliasRequest, DeleteAliasResponse, SetAliasRequest,
};
use clap::{Args, Subcommand};

/// `levain alias`.
#[derive(Debug, Subcommand)]
pub(super) enum Alias {
    /// Point an alias at a version once the version loads; creates a missing alias
    Set(Set),
    /// List a function's aliases
    #[command(visible_alias = "ls", after_help = "Example:\n  levain alias list hello")]
    List {
        /// The function's name or id
        name: String,
    },
    /// Delete an alias; LIVE and ROLLBACK cannot be deleted
    #[command(after_help = "Example:\n  levain alias delete hello preview-42 --yes")]
    Delete {
        /// The function's name or id
        name: String,
        /// The alias
        alias: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

const EXAMPLES: &str = "Examples:
  levain alias set hello STAGING v2      a label
  levain alias set hello LIVE 3          a number
  levain alias set hello LIVE STAGING    the version STAGING points at
  levain alias set hello canary v2 --environment staging
  levain alias set hello LIVE v2 --dry-run   show what would happen

STAGING runs in staging, DEV in dev, preview-… in preview, any other alias in production. ROLLBACK follows LIVE \
automatically. In a protected environment, a version that is new to the alias waits for `levain approve`; a version \
that already took calls of the alias does not. An alias in a protected environment can be neither deleted nor moved to \
another environment.";

/// `levain alias set`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Set {
    /// The function's name or id
    name: String,
    /// The alias's name: letters, digits, `_` and `-`
    alias: String,
    /// A label, a number, or another alias whose present version to use
    version: String,
    /// The environment it runs in [default: its present one, or the one of its name]
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Description of the alias; an empty text removes it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    how: Move,
}

impl Alias {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Set(set) => set.run(session).await,
            Self::List { name } => {
                let request = AliasesRequest { function_id: name, ..AliasesRequest::default() };
                session.print_list(request, None, |it| aliases_text(it, Timestamp::now())).await
            }
            Self::Delete { name, alias, confirmation } => {
                confirmation.ask(&format!("Delete the alias {alias} of {name}?"))?;
                let request = DeleteAliasRequest { function_id: name.clone(), name: alias };
                let text = |it: &DeleteAliasResponse| {
                    let before = styled(DIM, format!("it pointed at {}", it.version));
                    format!("{name} {} deleted, {before}", it.name)
                };
                session.print(&request, text).await
            }
        }
    }
}

impl Set {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Self { name, alias, version, environment, description, how: Move { reason, dry_run } } = self;
        let (function_id, version) = (name, version.into());
        let request = SetAliasRequest { function_id, name: alias, version, environment, description, reason, dry_run };
        outcome::call(session, &request).await
    }
}

fn aliases_text(response: &AliasesResponse, now: Timestamp) -> String {
    if response.aliases.is_empty() {
        return "no aliases yet: `levain deploy` points LIVE at a version".into();
    }
    let rows = response.aliases.iter().map(|it| {
        [
            it.name.to_string(),
            targets_text(&it.version, it.split.as_ref()),
            it.number.to_string(),
            text::or_dash(it.previous_version.as_ref()),
            it.environment.to_string(),
            text::age(it.updated_at, now),
            text::or_dash(it.description.as_deref()),
        ]
    });
    table(["ALIAS", "VERSION", ">NUMBER", "BEFORE", "ENVIRONMENT", "MOVED", "DESCRIPTION"], rows)
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::protocol::message::AliasDetails;

    #[test]
    fn aliases_stand_below_each_other() {
        let live = AliasDetails {
            name: "LIVE".parse().expect("a name"),
            environment: "production".parse().expect("a name"),
            version: "v2".parse().expect("a name"),
            number: 2,
            split: None,
            sticky: None,
            previous_version: Some("v1".parse().expect("a name")),
            description: None,
            updated_at: Timestamp::from_millis(0),
        };
        let text =
            aliases_text(&AliasesResponse { aliases: vec![live], next_cursor: None }, Timestamp::from_millis(60_000));
        let expected = "ALIAS  VERSION  NUMBER  BEFORE  ENVIRONMENT  MOVED   DESCRIPTION\n\
                        LIVE   v2            2  v1      production   1m ago  -\n";
        assert_eq!(plain(&text), expected);
    }
}
