//! Environments: where aliases run, which of them require approval, and the differences between two.

use super::error::CliError;
use super::input::Confirmation;
use super::print::{DIM, GREEN, YELLOW, styled, table};
use super::session::Session;
use super::text;
use super::views::targets_text;
use crate::protocol::message::{
    CompareEnvironmentsRequest, CompareEnvironmentsResponse, ComparedFunction, ComparedSide, ComparedState,
    ComparedVariable, CreateEnvironmentRequest, DeleteEnvironmentRequest, EnvironmentDetails, EnvironmentInfo,
    EnvironmentRequest, EnvironmentsRequest, EnvironmentsResponse, SetEnvironmentRequest,
};
use clap::{Args, Subcommand};

/// `levain environments`.
#[derive(Debug, Subcommand)]
pub(super) enum Environments {
    /// List the environments
    #[command(visible_alias = "ls", after_help = "Example:\n  levain environments list")]
    List,
    /// Show an environment and what runs in it
    #[command(after_help = "Example:\n  levain environments show staging")]
    Show {
        /// The environment
        name: String,
    },
    /// Create an environment
    Create(Create),
    /// Change an environment's parent, or whether it is protected
    Set(Set),
    /// Require approval for versions that are new in an environment
    #[command(after_help = "Example:\n  levain environments protect production\n\n\
        From then on, a version that is new to an alias there waits for `levain approve`. A version that already took \
        calls of the alias does not: going back never waits. An alias in the environment can be neither moved \
        elsewhere nor deleted, and its function cannot be deleted either. Where LIVE runs, a version that is called \
        by its own label or number answers only if it was approved there.")]
    Protect {
        /// The environment
        name: String,
    },
    /// Stop requiring approval in an environment; waiting deployments keep waiting
    #[command(after_help = "Example:\n  levain environments unprotect production")]
    Unprotect {
        /// The environment
        name: String,
        /// Let it keep its variables from production or a protected environment
        #[arg(long)]
        allow: bool,
    },
    /// Delete an unused environment; production, staging, dev and preview cannot be deleted
    #[command(after_help = "Example:\n  levain environments delete qa --yes")]
    Delete {
        /// The environment
        name: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Show which versions differ between two environments
    #[command(after_help = "Examples:\n  levain environments compare staging production\n  \
        levain environments compare staging production --function hello\n\n\
        `ahead` means that the first environment has a later version than the second. `levain promote` brings it \
        there.")]
    Compare {
        /// The first environment
        from: String,
        /// The second environment
        to: String,
        /// Only this function
        #[arg(long, value_name = "NAME")]
        function: Option<String>,
    },
}

const ALLOW: &str = "An environment that takes variables from `production` or a protected environment needs `--allow`, \
unless it is protected itself: any code deployed to it could read them.";

/// `levain environments create`.
#[derive(Debug, Args)]
#[command(after_help = format!("Examples:\n  levain environments create qa --parent staging\n  \
    levain environments create eu --protected --parent production\n\n{ALLOW}"))]
pub(super) struct Create {
    /// The environment's name: letters, digits, `_` and `-`
    name: String,
    /// The environment whose variables it takes where it has none of its own
    #[arg(long, value_name = "NAME")]
    parent: Option<String>,
    /// Require approval for versions that are new in it
    #[arg(long)]
    protected: bool,
    /// Let it take variables from production or a protected environment
    #[arg(long)]
    allow: bool,
}

/// `levain environments set`.
#[derive(Debug, Args)]
#[command(after_help = format!("Examples:\n  levain environments set dev --parent staging\n  \
    levain environments set dev --no-parent\n\n{ALLOW}"))]
#[group(required = true, multiple = true, args = ["parent", "no_parent", "protect", "unprotect"])]
pub(super) struct Set {
    /// The environment
    name: String,
    /// The environment whose variables it takes where it has none of its own
    #[arg(long, value_name = "NAME", conflicts_with = "no_parent")]
    parent: Option<String>,
    /// Take variables from no other environment
    #[arg(long)]
    no_parent: bool,
    /// Require approval for versions that are new in it
    #[arg(long, conflicts_with = "unprotect")]
    protect: bool,
    /// Stop requiring approval
    #[arg(long)]
    unprotect: bool,
    /// Let this change give an environment variables from production or a protected environment
    #[arg(long)]
    allow: bool,
}

impl Environments {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let ok = styled(GREEN, "ok");
        match self {
            Self::List => session.print_list(EnvironmentsRequest::default(), None, list_text).await,
            Self::Show { name } => session.print(&EnvironmentRequest { name }, show_text).await,
            Self::Create(Create { name, parent, protected, allow }) => {
                let text = |it: &EnvironmentInfo| {
                    let from = it.parent.as_ref().map(|it| format!(", with the variables of {it}")).unwrap_or_default();
                    let protected = if it.protected { ", protected" } else { "" };
                    format!("{ok} {} created{from}{protected}", it.name)
                };
                session.print(&CreateEnvironmentRequest { name, parent, protected, allow }, text).await
            }
            Self::Set(set) => set.run(session).await,
            Self::Delete { name, confirmation } => {
                confirmation.ask(&format!("Delete the environment {name}?"))?;
                session.print(&DeleteEnvironmentRequest { name }, |it| format!("{ok} {} deleted", it.name)).await
            }
            Self::Compare { from, to, function } => {
                session.print(&CompareEnvironmentsRequest { from, to, function_id: function }, compare_text).await
            }
            Self::Protect { name } => protect(session, name, true, false).await,
            Self::Unprotect { name, allow } => protect(session, name, false, allow).await,
        }
    }
}

async fn protect(session: &Session, name: String, protected: bool, allow: bool) -> Result<(), CliError> {
    let request = SetEnvironmentRequest { name, protected: Some(protected), parent: None, allow };
    session.print(&request, changed_text).await
}

impl Set {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let protected = (self.protect || self.unprotect).then_some(self.protect);
        let parent = if self.no_parent { Some(String::new()) } else { self.parent };
        let text = |it: &EnvironmentInfo| {
            let parent = it.parent.as_deref().unwrap_or("no other environment");
            format!("{}\n   it takes variables from {parent}", changed_text(it))
        };
        session.print(&SetEnvironmentRequest { name: self.name, protected, parent, allow: self.allow }, text).await
    }
}

fn changed_text(environment: &EnvironmentInfo) -> String {
    let name = &environment.name;
    let what = match environment.protected {
        true => "is protected: a version that is new to an alias there waits for `levain approve`",
        false => "is not protected: a version takes calls there once it has loaded",
    };
    let warnings = environment.warnings.iter().map(|it| format!("\n{}", styled(YELLOW, it))).collect::<String>();
    format!("{} {name} {what}{warnings}", styled(GREEN, "ok"))
}

fn list_text(response: &EnvironmentsResponse) -> String {
    let rows = response.environments.iter().map(|it| {
        let protected = if it.protected { "yes" } else { "no" };
        [it.name.to_string(), protected.into(), it.aliases.to_string(), text::or_dash(it.parent.as_ref())]
    });
    table(["NAME", "PROTECTED", ">ALIASES", "PARENT"], rows)
}

fn show_text(environment: &EnvironmentDetails) -> String {
    let EnvironmentDetails { info, ancestors, children, runs } = environment;
    let protected = if info.protected { "protected" } else { "not protected" };
    let mut head = format!("{}, {protected}", info.name);
    if !ancestors.is_empty() {
        head += &format!(", takes variables from {}", ancestors.join(", then "));
    }
    if !children.is_empty() {
        head += &format!(", gives variables to {}", children.join(", "));
    }
    if runs.is_empty() {
        return format!("{head}\nnothing runs in it");
    }
    let rows = runs.iter().map(|it| {
        let version = targets_text(&it.version, it.split.as_ref());
        [it.function.clone(), it.alias.clone(), version, it.number.to_string()]
    });
    format!("{}\n\n{}", styled(DIM, &head), table(["FUNCTION", "ALIAS", "VERSION", ">NUMBER"], rows))
}

fn compare_text(response: &CompareEnvironmentsResponse) -> String {
    let CompareEnvironmentsResponse { from, to, functions } = response;
    if functions.is_empty() {
        return format!("nothing runs in {from} or {to}");
    }
    let side = |side: Option<&ComparedSide>| match side {
        None => ["-".to_owned(), "-".to_owned()],
        Some(it) => {
            let version = targets_text(&it.version, it.split.as_ref());
            [format!("{}: {version} ({})", it.alias, it.number), it.digest.to_string()[..12].to_owned()]
        }
    };
    let row = |it: &ComparedFunction| {
        let ([first, one], [second, other]) = (side(it.from.as_ref()), side(it.to.as_ref()));
        [it.function.clone(), state_text(it.state).into(), first, one, second, other]
    };
    let (first, second) = (from.to_uppercase(), to.to_uppercase());
    let mut shown = table(["FUNCTION", "STATE", &first, "CODE", &second, "CODE"], functions.iter().map(row));
    for (function, note) in functions.iter().filter_map(|it| Some((&it.function, it.note.as_ref()?))) {
        shown.push_str(&format!("\n{function}: {note}\n"));
    }
    let variables = functions.iter().flat_map(|it| it.variables.iter().map(|variable| (&it.function, variable)));
    let rows: Vec<_> = variables.map(|(function, it)| variable_row(function, it, [from, to])).collect();
    if !rows.is_empty() {
        shown.push('\n');
        shown.push_str(&table(["FUNCTION", "VARIABLE", "STATE", &first, &second], rows));
    }
    shown
}

/// Table row of a variable that differs between two environments. Values of secrets are not compared.
fn variable_row(function: &str, variable: &ComparedVariable, [from, to]: [&String; 2]) -> [String; 5] {
    let state = match (variable.from, variable.to) {
        (Some(_), None) => format!("only in {from}"),
        (None, Some(_)) => format!("only in {to}"),
        _ if variable.secret => "set separately".into(),
        _ => "differs".into(),
    };
    let side = |generation: Option<u32>| match generation {
        None => "-".to_owned(),
        Some(0) => "plain".to_owned(),
        Some(generation) => format!("secret, generation {generation}"),
    };
    [function.to_owned(), variable.name.clone(), state, side(variable.from), side(variable.to)]
}

fn state_text(state: ComparedState) -> &'static str {
    match state {
        ComparedState::InSync => "in sync",
        ComparedState::Ahead => "ahead",
        ComparedState::Behind => "behind",
        ComparedState::OnlyFrom => "only first",
        ComparedState::OnlyTo => "only second",
        ComparedState::Unclear => "unclear",
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::model::{Digest, Timestamp};

    #[test]
    fn environments_say_whether_they_are_protected() {
        let production = EnvironmentInfo {
            name: "production".parse().expect("a name"),
            parent: None,
            protected: true,
            aliases: 12,
            created_at: Timestamp::from_millis(0),
            warnings: Vec::new(),
        };
        let text = list_text(&EnvironmentsResponse { environments: vec![production.clone()], next_cursor: None });
        let expected = "NAME        PROTECTED  ALIASES  PARENT\nproduction  yes             12  -\n";
        assert_eq!(plain(&text), expected);
        assert!(changed_text(&production).contains("waits for `levain approve`"));
        let warned = EnvironmentInfo { warnings: vec!["2 secrets are".into()], ..production.clone() };
        assert!(plain(&changed_text(&warned)).ends_with("`levain approve`\n2 secrets are"));
        assert!(changed_text(&EnvironmentInfo { protected: false, ..production }).contains("is not protected"));
    }

    #[test]
    fn two_environments_stand_side_by_side() {
        let side = |alias: &str, number: u32| ComparedSide {
            alias: alias.into(),
            version: format!("v{number}").parse().expect("a name"),
            number,
            digest: Digest([0xab; 32]),
            split: None,
        };
        let function = ComparedFunction {
            function: "hello".into(),
            function_id: "func-1".into(),
            state: ComparedState::Ahead,
            from: Some(side("STAGING", 2)),
            to: Some(side("LIVE", 1)),
            note: None,
            variables: Vec::new(),
        };
        let (from, to) = ("staging".into(), "production".into());
        let text = compare_text(&CompareEnvironmentsResponse { from, to, functions: vec![function] });
        let expected = "FUNCTION  STATE  STAGING          CODE          PRODUCTION    CODE\n\
                        hello     ahead  STAGING: v2 (2)  abababababab  LIVE: v1 (1)  abababababab\n";
        assert_eq!(plain(&text), expected);
    }

    #[test]
    fn variables_that_differ_are_a_table() {
        let variable = |name: &str, secret, from, to| ComparedVariable { name: name.into(), secret, from, to };
        let function = ComparedFunction {
            function: "hello".into(),
            function_id: "func-1".into(),
            state: ComparedState::InSync,
            from: None,
            to: None,
            note: None,
            variables: vec![
                variable("GLOB", false, Some(0), Some(0)),
                variable("KEY", true, Some(2), Some(1)),
                variable("MIXED", true, Some(0), Some(3)),
                variable("NEW", false, Some(0), None),
                variable("OLD", true, None, Some(4)),
            ],
        };
        let (from, to) = ("staging".into(), "production".into());
        let text = plain(&compare_text(&CompareEnvironmentsResponse { from, to, functions: vec![function] }));
        let expected = "\n\
            FUNCTION  VARIABLE  STATE               STAGING               PRODUCTION\n\
            hello     GLOB      differs             plain                 plain\n\
            hello     KEY       set separately      secret, generation 2  secret, generation 1\n\
            hello     MIXED     set separately      plain                 secret, generation 3\n\
            hello     NEW       only in staging     plain                 -\n\
            hello     OLD       only in production  -                     secret, generation 4\n";
        assert!(text.ends_with(expected), "{text}");
    }
}
