//! Checks of a bundle that do not run it.

use super::{ShimError, tool};
use crate::{
    bundle::Staged,
    protocol::worker::{SyntaxCheck, SyntaxProblem},
    worker::{Spawner, runtime::CHECK},
};
use std::time::Duration;

/// Time limit for checking a file, generous for a busy machine.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Values of `handler` that mean the default export.
const DEFAULT_HANDLERS: [&str; 2] = ["default", "handler"];

/// A fault for which a bundle cannot be a function.
#[derive(Debug, thiserror::Error)]
pub enum BundleProblem {
    /// The file to import is not text.
    #[error("{0} is not UTF-8 text")]
    NotText(String),
    /// The file to import does not parse.
    #[error("{}", describe(.entry, .problems))]
    Syntax {
        /// The file.
        entry: String,
        /// Errors, in the order of their places.
        problems: Vec<SyntaxProblem>,
    },
    /// The file exports no possible handler.
    #[error(
        "{entry} exports no handler: export a default function (`export default async function handler(req) {{ … }}`){}",
        also(.handler, .exports)
    )]
    NoHandler {
        /// Name of the file.
        entry: String,
        /// Export the function is registered with.
        handler: String,
        /// Actual exports.
        exports: Vec<String>,
    },
    /// The check itself failed, which says nothing about the file.
    #[error("cannot check the syntax of {entry}: {source}")]
    Check {
        /// Name of the file.
        entry: String,
        /// Cause of the failure.
        source: ShimError,
    },
    /// The staged file cannot be read.
    #[error("the staged bundle cannot be read: {0}")]
    Read(#[from] std::io::Error),
}

fn describe(entry: &str, problems: &[SyntaxProblem]) -> String {
    let Some(first) = problems.first() else { return format!("{entry} does not parse") };
    let place = match (first.line, first.column) {
        (Some(line), Some(column)) => format!("{entry}:{line}:{column}"),
        (Some(line), None) => format!("{entry}:{line}"),
        _ => entry.to_owned(),
    };
    let code = first.line_text.as_deref().map_or(String::new(), |it| format!("\n  {}", it.trim()));
    let more = match problems.len() {
        1 => String::new(),
        count => format!("\n  and {} more", count - 1),
    };
    format!("syntax error at {place}: {}{code}{more}", first.message)
}

fn also(handler: &str, exports: &[String]) -> String {
    let wanted = if DEFAULT_HANDLERS.contains(&handler) {
        String::new()
    } else {
        format!(", or `{handler}`, which the function is registered with")
    };
    let found = if exports.is_empty() { "nothing".into() } else { exports.join(", ") };
    format!("{wanted}; it exports {found}")
}

/// Runs the shim's syntax check on the entry, in a workplace of its own.
async fn ask(spawner: &Spawner, staged: &Staged) -> Result<SyntaxCheck, ShimError> {
    let place = tool::workplace(spawner)?;
    place.deliver(staged.folder()).await?;
    let file = place.inside(staged.entry()).into_os_string();
    tool::ask(&place, CHECK, [file], false, TIME_MAX).await
}

/// Checks a staged bundle: its entry is text, parses, and exports a possible handler.
pub async fn check(spawner: &Spawner, staged: &Staged, handler: &str) -> Result<(), BundleProblem> {
    let entry = staged.entry().to_owned();
    let path = staged.folder().join(&entry);
    if std::str::from_utf8(&tokio::fs::read(&path).await?).is_err() {
        return Err(BundleProblem::NotText(entry));
    }
    let asked = ask(spawner, staged).await;
    let check = asked.map_err(|source| BundleProblem::Check { entry: entry.clone(), source })?;
    if !check.ok {
        return Err(BundleProblem::Syntax { entry, problems: check.errors });
    }
    let exports = |name: &str| check.exports.iter().any(|it| it == name);
    let has_handler = exports(handler) || (DEFAULT_HANDLERS.contains(&handler) && exports("default"));
    // The exports of CommonJS are known only after it has run, and `export *` may export any name.
    let may_have = has_handler || check.commonjs || exports("*");
    if !may_have {
        return Err(BundleProblem::NoHandler { entry, handler: handler.into(), exports: check.exports });
    }
    Ok(())
}
