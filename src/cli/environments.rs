//! Environments: where aliases run, and which of them need approval for what is new.

use super::error::CliError;
use super::print::{GREEN, styled, table};
use super::session::Session;
use super::text;
use crate::protocol::message::{EnvironmentInfo, EnvironmentsRequest, EnvironmentsResponse, SetEnvironmentRequest};
use clap::Subcommand;

/// `levain environments`.
#[derive(Debug, Subcommand)]
pub(super) enum Environments {
    /// List the environments
    #[command(visible_alias = "ls", after_help = "Example:\n  levain environments list")]
    List,
    /// Have what is new in an environment wait for approval
    #[command(after_help = "Example:\n  levain environments protect production\n\n\
        From then on a version that is new to an alias there waits for `levain approve`. What took calls of the alias\n\
        before does not: going back never waits. Nothing is taken out: an alias in it is neither moved elsewhere nor\n\
        deleted, nor is its function.")]
    Protect {
        /// The environment
        name: String,
    },
    /// Let what is new in an environment take calls at once; what waits goes on waiting
    #[command(after_help = "Example:\n  levain environments unprotect production")]
    Unprotect {
        /// The environment
        name: String,
    },
}

impl Environments {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let (name, protected) = match self {
            Self::List => {
                let response = session.call(&EnvironmentsRequest {}).await?;
                return session.out.response(&response, list_text);
            }
            Self::Protect { name } => (name, true),
            Self::Unprotect { name } => (name, false),
        };
        let response = session.call(&SetEnvironmentRequest { name, protected }).await?;
        session.out.response(&response, changed_text)
    }
}

fn changed_text(environment: &EnvironmentInfo) -> String {
    let name = &environment.name;
    let what = match environment.protected {
        true => "is protected: a version that is new to an alias there waits for `levain approve`",
        false => "is not protected: a version takes calls there once it has loaded",
    };
    format!("{} {name} {what}", styled(GREEN, "ok"))
}

fn list_text(response: &EnvironmentsResponse) -> String {
    let rows = response.environments.iter().map(|it| {
        let protected = if it.protected { "yes" } else { "no" };
        [it.name.clone(), protected.into(), it.aliases.to_string(), text::or_dash(it.parent.as_deref())]
    });
    table(["NAME", "PROTECTED", ">ALIASES", "PARENT"], rows)
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn environments_say_whether_they_are_protected() {
        let production = EnvironmentInfo {
            name: "production".into(),
            parent: None,
            protected: true,
            aliases: 12,
            created_at: Timestamp::from_millis(0),
        };
        let text = list_text(&EnvironmentsResponse { environments: vec![production.clone()] });
        let expected = "NAME        PROTECTED  ALIASES  PARENT\nproduction  yes             12  -\n";
        assert_eq!(plain(&text), expected);
        assert!(changed_text(&production).contains("waits for `levain approve`"));
        assert!(changed_text(&EnvironmentInfo { protected: false, ..production }).contains("is not protected"));
    }
}
