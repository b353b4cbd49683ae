//! Previews: versions to try at their own address.

use super::error::CliError;
use super::input::Confirmation;
use super::print::{GREEN, styled, table};
use super::session::Session;
use super::text;
use crate::model::Timestamp;
use crate::protocol::message::{
    CleanupPreviewsRequest, DeletePreviewRequest, PreviewInfo, PreviewsRequest, PreviewsResponse,
    RemovedPreviewsResponse,
};
use clap::Subcommand;

/// `levain preview`. `levain deploy --preview` creates one.
#[derive(Debug, Subcommand)]
pub(super) enum Preview {
    /// List the previews
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  levain preview list\n  \
        levain preview list --function hello\n\nCreate one with `levain deploy hello ./hello.ts --preview 42`."
    )]
    List {
        /// Only previews of this function
        #[arg(long, value_name = "NAME")]
        function: Option<String>,
    },
    /// Delete a preview, of all functions that have it or of one
    #[command(after_help = "Examples:\n  levain preview delete 42 --yes\n  \
        levain preview delete 42 --function hello --yes\n\n\
        Its version stays until `levain cleanup` or `levain versions delete` removes it.")]
    Delete {
        /// The preview, without `preview-`
        name: String,
        /// Only the preview of this function
        #[arg(long, value_name = "NAME")]
        function: Option<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Delete expired previews, and those not deployed for some time
    #[command(
        after_help = "Examples:\n  levain preview cleanup --dry-run\n  levain preview cleanup --older-than 3d\n\n\
        The daemon deletes expired previews automatically."
    )]
    Cleanup {
        /// Only previews of this function
        #[arg(long, value_name = "NAME")]
        function: Option<String>,
        /// Also previews not deployed for this long, such as 12h or 3d
        #[arg(long, value_name = "AGE")]
        older_than: Option<String>,
        /// Show what would be deleted, without deleting it
        #[arg(long)]
        dry_run: bool,
    },
}

impl Preview {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::List { function } => {
                let request = PreviewsRequest { function_id: function, ..PreviewsRequest::default() };
                session.print_list(request, None, |it| list_text(it, Timestamp::now())).await
            }
            Self::Delete { name, function, confirmation } => {
                let of = function.as_deref().unwrap_or("all functions");
                confirmation.ask(&format!("Delete the preview {name} of {of}?"))?;
                session.print(&DeletePreviewRequest { name, function_id: function }, removed_text).await
            }
            Self::Cleanup { function, older_than, dry_run } => {
                let request = CleanupPreviewsRequest { function_id: function, older_than, dry_run };
                session.print(&request, removed_text).await
            }
        }
    }
}

fn list_text(response: &PreviewsResponse, now: Timestamp) -> String {
    if response.previews.is_empty() {
        return "no previews: `levain deploy NAME PATH --preview PREVIEW` creates one".into();
    }
    let rows = response.previews.iter().map(|it| {
        [
            it.function.clone(),
            it.name.clone(),
            it.version.to_string(),
            it.environment.clone(),
            text::age(it.updated_at, now),
            text::left(it.expires_at, now),
            text::or_dash(it.host_url.as_deref().or(it.url.as_deref())),
        ]
    });
    table(["FUNCTION", "PREVIEW", "VERSION", "ENVIRONMENT", "DEPLOYED", "EXPIRES IN", "URL"], rows)
}

fn removed_text(response: &RemovedPreviewsResponse) -> String {
    let what = if response.dry_run { "would be deleted" } else { "deleted" };
    if response.removed.is_empty() {
        return format!("{} nothing {what}", styled(GREEN, "ok"));
    }
    let line = |it: &PreviewInfo| {
        let ok = styled(GREEN, "ok");
        format!("{ok} {} preview {} {what}, it pointed at {}", it.function, it.name, it.version)
    };
    response.removed.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;

    #[test]
    fn a_list_says_where_previews_run() {
        let preview = PreviewInfo {
            function: "greet".into(),
            function_id: "func-1".into(),
            name: "pr-42".into(),
            alias: "preview-pr-42".parse().expect("a name"),
            environment: "preview-pr-42".into(),
            version: "v5".parse().expect("a name"),
            number: 5,
            url: Some("http://127.0.0.1:1/functions/greet:preview-pr-42".into()),
            host_url: None,
            expires_at: None,
            updated_at: Timestamp::from_millis(0),
        };
        let text = plain(&list_text(
            &PreviewsResponse { previews: vec![preview], next_cursor: None },
            Timestamp::from_millis(61_000),
        ));
        let expected = "FUNCTION  PREVIEW  VERSION  ENVIRONMENT    DEPLOYED  EXPIRES IN  URL\n\
            greet     pr-42    v5       preview-pr-42  1m ago    never       \
            http://127.0.0.1:1/functions/greet:preview-pr-42\n";
        assert_eq!(text, expected);
    }
}
