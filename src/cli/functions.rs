//! Functions: register, list, show, settings, delete, warm up.

use super::error::CliError;
use super::input::Confirmation;
use super::print::{DIM, GREEN, facts, styled, table};
use super::session::Session;
use super::settings::{SettingArg, SettingsArgs, parse_setting, settings_text};
use super::text;
use super::views::{NO_FUNCTIONS, pools_text, targets_text};
use crate::model::Timestamp;
use crate::protocol::message::{
    DeleteRequest, FunctionInfo, GetRequest, ListRequest, ListResponse, RegisterRequest, RegisterResponse,
    UpdateRequest, WarmupRequest, WarmupResponse,
};
use clap::Args;
use serde_json::Map;

/// `levain register`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  levain register resize --memory-mb 512 --timeout-seconds 10")]
pub(super) struct Register {
    /// The function's name: letters, digits, `_` and `-`
    name: String,
    /// The export to call
    #[arg(long, value_name = "EXPORT")]
    handler: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Register {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Self { name, handler, settings } = self;
        let request = RegisterRequest { name, runtime: None, handler, settings: settings.patch(&[]) };
        let text = |it: &RegisterResponse| {
            let what = if it.created { "registered" } else { "is registered already" };
            let next = format!("next: levain deploy {} ./index.ts", it.name);
            format!("{} {what} {}\n{}", it.name, styled(DIM, it.function_id), styled(DIM, &next))
        };
        session.print(&request, text).await
    }
}

/// `levain list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Maximum number of functions [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Number of functions to skip
    #[arg(long, value_name = "N")]
    offset: Option<u32>,
}

impl List {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let request = ListRequest { offset: self.offset, ..ListRequest::default() };
        session.print_list(request, self.limit, |it| list_text(it, Timestamp::now())).await
    }
}

fn list_text(response: &ListResponse, now: Timestamp) -> String {
    if response.total == 0 {
        return NO_FUNCTIONS.into();
    }
    let rows = response.functions.iter().map(|it| {
        [
            it.name.clone(),
            it.status.name().into(),
            text::or_dash(it.active_version.as_deref()),
            it.versions.to_string(),
            it.warm.to_string(),
            text::age(it.updated_at, now),
        ]
    });
    let mut text = table(["NAME", "STATUS", "LIVE", ">VERSIONS", ">WARM", "CHANGED"], rows);
    if (response.functions.len() as u64) < response.total {
        text.push_str(&styled(DIM, format!("{} of {} functions", response.functions.len(), response.total)));
    }
    text
}

/// `levain show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The function's name or id
    name: String,
}

impl Show {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        session.print(&GetRequest { function_id: self.name }, |it| function_text(it, Timestamp::now())).await
    }
}

fn function_text(function: &FunctionInfo, now: Timestamp) -> String {
    let mut text = facts([
        ("name", function.name.clone()),
        ("id", function.function_id.to_string()),
        ("status", function.status.name().into()),
        ("live", text::or_dash(function.active_version.as_deref())),
        ("versions", format!("{}, {} on disk", function.versions, text::size(function.disk_bytes))),
        ("handler", function.handler.clone()),
        ("runtime", function.runtime.clone()),
        ("registered", format!("{} ({})", function.created_at, text::age(function.created_at, now))),
        ("changed", format!("{} ({})", function.updated_at, text::age(function.updated_at, now))),
    ]);
    text.push('\n');
    text.push_str(&settings_text(&function.settings));
    if !function.aliases.is_empty() {
        let rows = function.aliases.iter().map(|it| {
            let versions = targets_text(&it.version, it.split.as_ref());
            [it.name.to_string(), versions, it.environment.to_string()]
        });
        text.push('\n');
        text.push_str(&table(["ALIAS", "VERSION", "ENVIRONMENT"], rows));
    }
    if !function.pools.is_empty() {
        text.push('\n');
        text.push_str(&pools_text(&function.pools));
    }
    text
}

/// `levain config-of`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  levain config-of hello                   all settings
  levain config-of hello timeout_seconds   one of them
  levain config-of hello timeout_seconds=5 warm_workers=2")]
pub(super) struct ConfigOf {
    /// The function's name or id
    name: String,
    /// A setting to show, or settings to change [default: show all]
    #[arg(value_name = "KEY[=VALUE]", value_parser = parse_setting)]
    settings: Vec<SettingArg>,
    #[command(flatten)]
    flags: SettingsArgs,
}

impl ConfigOf {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let (function_id, shown): (_, Vec<_>) =
            (self.name, self.settings.iter().filter(|it| it.value.is_none()).map(|it| it.key).collect());
        let response = match self.flags.patch(&self.settings) {
            None => session.call(&GetRequest { function_id }).await?,
            Some(settings) if shown.is_empty() => session.call(&UpdateRequest { function_id, settings }).await?,
            Some(_) => {
                return Err(CliError::usage(format!("give `{}` a value, or change nothing", shown.join("`, `"))));
            }
        };
        if shown.is_empty() {
            return session.out.response(&response, |it| settings_text(&it.settings));
        }
        let found: Map<_, _> = shown.iter().map(|key| ((*key).to_owned(), response.settings.value(key))).collect();
        session.out.response(&found, |it| it.values().map(|value| text::setting(value) + "\n").collect())
    }
}

/// `levain delete`.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The function's name or id
    name: String,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Delete {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        self.confirmation.ask(&format!("Delete {} and end its workers?", self.name))?;
        let request = DeleteRequest { function_id: self.name.clone() };
        session.print(&request, |it| format!("{} deleted {}", self.name, styled(DIM, it.function_id))).await
    }
}

/// `levain warmup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  levain warmup hello 4\n  levain warmup hello:STAGING 2")]
pub(super) struct Warmup {
    /// The function's name or id, optionally with `:` and an alias, label or number
    #[arg(value_name = "NAME[:QUALIFIER]")]
    name: String,
    /// Number of workers to have ready
    count: u32,
    /// Alias, version label or number [default: LIVE]
    #[arg(long)]
    qualifier: Option<String>,
}

impl Warmup {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Self { name, count, qualifier } = self;
        let request = WarmupRequest { function_id: name, count, qualifier };
        let text = |it: &WarmupResponse| {
            let warm = styled(GREEN, format!("{} warm", it.warm));
            if it.failed == 0 { warm } else { format!("{warm}, {} failed to start", it.failed) }
        };
        session.print(&request, text).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::model::FunctionStatus;
    use crate::protocol::message::FunctionSummary;

    #[test]
    fn a_list_shows_each_function_on_a_line() {
        let at = Timestamp::from_millis;
        let functions = vec![FunctionSummary {
            function_id: "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("an id"),
            name: "hello".into(),
            status: FunctionStatus::Deployed,
            active_version: Some("v2".into()),
            versions: 2,
            warm: 1,
            updated_at: at(0),
        }];
        let text = plain(&list_text(&ListResponse { functions, total: 3, next_cursor: None }, at(120_000)));
        let expected = "NAME   STATUS    LIVE  VERSIONS  WARM  CHANGED\n\
                        hello  deployed  v2           2     1  2m ago\n\
                        1 of 3 functions";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_empty_list_says_what_to_do() {
        let text =
            list_text(&ListResponse { functions: Vec::new(), total: 0, next_cursor: None }, Timestamp::from_millis(0));
        assert!(text.contains("levain deploy"), "{text}");
    }
}
