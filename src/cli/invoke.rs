//! Invoke: calls a function once and writes the body of its answer to standard output unchanged.

use super::args::{parse_header, parse_query};
use super::error::CliError;
use super::print::{DIM, RED, styled};
use super::session::Session;
use super::text;
use crate::model::ColdStart;
use crate::protocol::field::{Body, Fields};
use crate::protocol::message::{InvokeRequest, InvokeResponse, StreamChunk, StreamHead};
use bytes::Bytes;
use clap::Args;
use std::io::{self, IsTerminal, Read};

const EXAMPLES: &str = "Examples:
  levain invoke hello
  levain invoke hello:STAGING
  levain invoke hello:v2 --path /greet --query name=Ada
  levain invoke echo --data '{\"a\": 1}' -i
  levain invoke upload --data @photo.jpg --header 'content-type: image/jpeg'
  levain invoke stream --stream";

/// `levain invoke`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Invoke {
    #[command(flatten)]
    request: RequestArgs,
    /// Print the status and the headers before the body, and the timing on standard error
    #[arg(long, short)]
    include: bool,
    /// Print the body as it is produced
    #[arg(long)]
    stream: bool,
}

/// Parts of a request, shared with `bench`.
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
        Some(path) => {
            std::fs::read(path).map(Bytes::from).map_err(|source| CliError::Input { path: path.into(), source })
        }
        None if data == "-" => read_stdin(),
        None => Ok(Bytes::copy_from_slice(data.as_bytes())),
    }
}

/// Reads all of standard input.
pub(super) fn read_stdin() -> Result<Bytes, CliError> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|source| CliError::Input { path: "standard input".into(), source })?;
    Ok(bytes.into())
}

impl Invoke {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let mut request = self.request.request()?;
        request.stream = self.stream;
        let client = session.client().await?;
        if !self.stream {
            let response = client.call(&request).await?;
            if session.out.is_json {
                session.out.json(&response)?;
            } else if response.success {
                if self.include {
                    session.out.text(&head_text(response.status, &response.headers))?;
                }
                print_body(session, &response.body.0)?;
            }
            return finish(session, &response, self.include);
        }
        let mut answer = client.call_streaming(&request)?;
        if let Some(head) = answer.next_partial::<StreamHead>().await? {
            if session.out.is_json {
                session.out.json(&head)?;
            } else if self.include {
                session.out.text(&head_text(head.status, &head.headers))?;
            }
        }
        while let Some(chunk) = answer.next_partial::<StreamChunk>().await? {
            if session.out.is_json { session.out.json(&chunk)? } else { session.out.bytes(&chunk.body.0)? }
        }
        let response = answer.finish().await?;
        if session.out.is_json {
            session.out.json(&response)?;
        }
        finish(session, &response, self.include)
    }
}

/// Prints the body unchanged; on a terminal, the prompt gets its own line.
fn print_body(session: &Session, body: &[u8]) -> Result<(), CliError> {
    session.out.bytes(body)?;
    if io::stdout().is_terminal() && !body.is_empty() && !body.ends_with(b"\n") {
        session.out.bytes(b"\n")?;
    }
    Ok(())
}

/// Reports the function's failure, if any, and the timing if it was requested.
fn finish(session: &Session, response: &InvokeResponse, include: bool) -> Result<(), CliError> {
    if !session.out.is_json {
        if !response.success {
            session.out.note(&failure_text(response));
        }
        if include || !response.success {
            session.out.note(&styled(DIM, &timing_text(response)));
        }
    }
    match response.code {
        Some(code) if !response.success => Err(CliError::Function(code)),
        _ => Ok(()),
    }
}

fn head_text(status: u16, headers: &Fields) -> String {
    let mut text = format!("HTTP {status}\n");
    for (name, value) in &headers.0 {
        text.push_str(&text::harmless(&format!("{name}: {value}\n")));
    }
    text.push('\n');
    text
}

fn failure_text(response: &InvokeResponse) -> String {
    let code = response.code.map_or("ERROR", |it| it.as_str());
    let mut message = response.error.clone().unwrap_or_else(|| "the function gave no answer".into());
    let mut details = response.details.clone().unwrap_or_default();
    // A stack usually begins with the error's name and message, which need not be read twice.
    if let Some(facts) = details.as_object_mut() {
        facts.remove("name");
        let stack = facts.get("stack").and_then(|it| it.as_str()).filter(|it| it.starts_with(&message));
        if let Some(stack) = stack.map(|it| it.trim_end().to_owned()) {
            message = stack;
            facts.remove("stack");
        }
        let rest = text::details(&details);
        if !rest.is_empty() {
            message = format!("{message}\n{rest}");
        }
    }
    format!("{} {}", styled(RED, code), text::harmless(&message))
}

fn timing_text(response: &InvokeResponse) -> String {
    let InvokeResponse { version, execution_id, execution_time_ms, queue_ms, start_ms, .. } = response;
    let [total, queue, start] = [*execution_time_ms, *queue_ms, *start_ms].map(text::duration_ms);
    let worker = match response.cold_start {
        ColdStart::None => "warm",
        ColdStart::Prewarmed => "cold (prewarmed)",
        ColdStart::Spawned => "cold (spawned)",
    };
    format!("{version}, {worker}, {total} (queue {queue}, start {start}), {execution_id}")
}

#[cfg(test)]
mod tests;
