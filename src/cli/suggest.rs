//! Suggestions for misspelt names: the nearest name that exists.
//!
//! The daemon does not suggest: it would tell a caller of one function the names of others. The owner of the command
//! socket may read them all.

use super::error::CliError;
use super::session::{Session, list};
use crate::config::meant;
use crate::error::ErrorCode;
use crate::protocol::message::ListRequest;
use serde_json::Value;

/// Returns the sentence that suggests a name, for an error about an unknown one.
pub(super) async fn hint(session: &Session, error: &CliError) -> Option<String> {
    let refusal = error.refusal()?;
    let details = refusal.details.as_ref()?;
    let (wanted, known) = match refusal.code {
        ErrorCode::FunctionNotFound => (details.get("function")?, functions(session).await?),
        ErrorCode::AliasNotFound => (details.get("alias")?, names(details.get("aliases")?)),
        ErrorCode::EnvironmentNotFound => (details.get("environment")?, names(details.get("environments")?)),
        _ => return None,
    };
    let nearest = nearest(wanted.as_str()?, &known)?;
    Some(format!("did you mean `{nearest}`?"))
}

async fn functions(session: &Session) -> Option<Vec<String>> {
    let client = session.client().await.ok()?;
    let functions = list(&client, ListRequest::default(), None).await.ok()?.functions;
    Some(functions.into_iter().map(|it| it.name).collect())
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn nearest(wanted: &str, known: &[String]) -> Option<String> {
    // Of a name as short as its distance, nothing would be left.
    let is_long = wanted.chars().count() > 2;
    is_long.then(|| meant(wanted, known.iter().map(String::as_str))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_no_other() {
        let known = ["hello", "checkout", "STAGING"].map(str::to_owned);
        for (wanted, expected) in [
            ("helo", Some("hello")),
            ("chekout", Some("checkout")),
            ("staging", Some("STAGING")),
            ("resize", None),
            ("he", None),
        ] {
            assert_eq!(nearest(wanted, &known).as_deref(), expected, "{wanted}");
        }
    }
}
