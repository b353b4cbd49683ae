//! Checks of a bundle that do not run it.

use super::{
    problem::summary,
    tool::{self, ShimError},
};
use crate::{
    bundle::Staged,
    protocol::worker::{CodeProblem, SyntaxCheck},
    worker::{Spawner, runtime::CHECK},
};
use std::time::Duration;

/// Time limit for checking a file, generous for a busy machine.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Values of `handler` that mean the default export.
const DEFAULT_HANDLERS: [&str; 2] = ["default", "handler"];

/// A fault for which a bundle cannot be a function.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BundleProblem {
    #[error("{0} is not UTF-8 text")]
    NotText(String),
    #[error("{}", describe(.entry, .problems))]
    Syntax { entry: String, problems: Vec<CodeProblem> },
    #[error(
        "{entry} exports no handler: export a default function (`export default async function handler(req) {{ … }}`){}",
        also(.handler, .exports)
    )]
    NoHandler { entry: String, handler: String, exports: Vec<String> },
    /// The check itself failed, which says nothing about the file.
    #[error("cannot check the syntax of {entry}: {source}")]
    Check { entry: String, source: ShimError },
    #[error("the staged bundle cannot be read: {0}")]
    Read(#[from] std::io::Error),
}

fn describe(entry: &str, problems: &[CodeProblem]) -> String {
    match problems {
        [] => format!("{entry} does not parse"),
        problems => format!("syntax error at {}", summary(Some(entry), problems)),
    }
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
