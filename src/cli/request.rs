//! Request of an invocation, from the arguments that `invoke` and `bench` share.

use super::arguments::{parse_header, parse_query};
use super::error::CliError;
use super::input;
use crate::protocol::field::{Body, Fields};
use crate::protocol::message::InvokeRequest;
use bytes::Bytes;
use clap::Args;

/// Parts of a request.
#[derive(Debug, Args)]
pub(super) struct RequestArgs {
    /// The function's name or id, optionally with `:` and an alias, label or number
    #[arg(value_name = "NAME[:QUALIFIER]")]
    name: String,
    /// The body: text, `@file`, or `-` for standard input
    #[arg(long, short, value_name = "TEXT|@FILE|-")]
    data: Option<String>,
    /// The method [default: POST with a body, else GET]
    #[arg(long, short = 'X')]
    method: Option<String>,
    /// The path, optionally with a query
    #[arg(long)]
    path: Option<String>,
    /// A header; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// A query parameter; may be repeated
    #[arg(long = "query", value_name = "NAME=VALUE", value_parser = parse_query)]
    query: Vec<(String, String)>,
    /// Shorten the function's timeout to N milliseconds
    #[arg(long, value_name = "N")]
    timeout_ms: Option<u64>,
}

impl RequestArgs {
    pub(super) fn request(self) -> Result<InvokeRequest, CliError> {
        let body = self.data.as_deref().map(read_data).transpose()?;
        let mut headers = self.headers;
        let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !has_type && body.as_deref().is_some_and(is_json) {
            headers.push(("content-type".into(), "application/json".into()));
        }
        let fields = |fields: Vec<_>| (!fields.is_empty()).then_some(Fields(fields));
        Ok(InvokeRequest {
            function_id: self.name,
            method: self.method.map(|it| it.to_ascii_uppercase()),
            path: self.path,
            headers: fields(headers),
            query: fields(self.query),
            body: body.map(Body),
            timeout_ms: self.timeout_ms,
            ..InvokeRequest::default()
        })
    }
}

fn is_json(data: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok()
}

/// Reads the bytes that an argument stands for: `@file`, `-`, or its own text.
fn read_data(data: &str) -> Result<Bytes, CliError> {
    match data.strip_prefix('@') {
        Some(path) => input::read(path.as_ref()).map(Bytes::from),
        None if data == "-" => input::read(data.as_ref()).map(Bytes::from),
        None => Ok(Bytes::copy_from_slice(data.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        request: RequestArgs,
    }

    fn request(line: &[&str]) -> InvokeRequest {
        let line = Line::try_parse_from(["x", "hello"].iter().chain(line)).expect("valid arguments");
        line.request.request().expect("readable data")
    }

    #[test]
    fn json_data_gets_its_content_type_unless_one_is_given() {
        let typed = request(&["--data", r#"{"a": 1}"#]);
        assert_eq!(
            typed.headers.and_then(|it| it.get("content-type").map(str::to_owned)).as_deref(),
            Some("application/json")
        );
        assert_eq!(request(&["--data", "plain {"]).headers, None);
        let given = request(&["--data", "1", "-H", "Content-Type: text/plain"]).headers.expect("a header");
        assert_eq!(given.0, [("Content-Type".to_owned(), "text/plain".to_owned())]);
    }

    #[test]
    fn data_is_text_or_a_file() {
        assert_eq!(request(&["--data", "a@b"]).body, Some(Body(Bytes::from_static(b"a@b"))));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), [0, 159, 255]).expect("written");
        let data = format!("@{}", file.path().display());
        assert_eq!(request(&["--data", &data]).body, Some(Body(Bytes::from_static(&[0, 159, 255]))));
        let error = read_data("@/no/such/file").expect_err("no file");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().starts_with("cannot read /no/such/file: "), "{error}");
    }

    #[test]
    fn a_request_without_options_leaves_everything_to_the_daemon() {
        assert_eq!(request(&[]), InvokeRequest { function_id: "hello".into(), ..InvokeRequest::default() });
        assert_eq!(request(&["-X", "put"]).method.as_deref(), Some("PUT"));
    }
}
