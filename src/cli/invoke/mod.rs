//! Invoke: calls a function once and writes the body of its answer to standard output unchanged.

use super::error::CliError;
use super::print::{DIM, error_text, styled};
use super::request::RequestArgs;
use super::session::Session;
use super::text;
use crate::error::ErrorCode;
use crate::model::ColdStart;
use crate::protocol::field::Fields;
use crate::protocol::message::{InvokeResponse, StreamChunk, StreamHead};
use clap::Args;
use std::io::{self, IsTerminal};

const EXAMPLES: &str = "Examples:
  levain invoke hello
  levain invoke hello:STAGING
  levain invoke hello:v2 --path /greet --query name=Ada
  levain invoke echo --data '{\"a\": 1}' -i
  levain invoke upload --data @photo.jpg --header 'content-type: image/jpeg'
  levain invoke stream --stream
  levain invoke health --fail || echo unhealthy

The exit code is 0 for any answer of the function, whatever its status; with --fail it is 11 for 400 and above. A \
function that gives no answer has the exit code of its error.";

/// `levain invoke`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Invoke {
    #[command(flatten)]
    request: RequestArgs,
    /// Print the status and the headers before the body, and the timing on standard error
    #[arg(long, short)]
    include: bool,
    /// Exit with code 11 if the status of the answer is 400 or above
    #[arg(long)]
    fail: bool,
    /// Print the body as it is produced
    #[arg(long)]
    stream: bool,
}

impl Invoke {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Self { request, include, fail, stream } = self;
        let mut request = request.request()?;
        request.stream = stream;
        let client = session.client().await?;
        if !stream {
            let response = client.call(&request).await?;
            if session.out.is_json {
                session.out.json(&response)?;
            } else if response.success {
                if include {
                    session.out.text(&head_text(response.status, &response.headers))?;
                }
                print_body(session, &response.body.0)?;
            }
            return finish(session, &response, include, fail);
        }
        let mut answer = client.call_streaming(&request)?;
        if let Some(head) = answer.next_partial::<StreamHead>().await? {
            if session.out.is_json {
                session.out.json(&head)?;
            } else if include {
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
        finish(session, &response, include, fail)
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
fn finish(session: &Session, response: &InvokeResponse, include: bool, fail: bool) -> Result<(), CliError> {
    if !session.out.is_json {
        if !response.success {
            session.out.note(&failure_text(response));
        } else if !include && !fail && !(200..300).contains(&response.status) && io::stderr().is_terminal() {
            session.out.note(&styled(DIM, format!("the function answered with status {}", response.status)));
        }
        if include || !response.success {
            session.out.note(&styled(DIM, timing_text(response)));
        }
    }
    match response.code {
        Some(code) if !response.success => Err(CliError::Function(code)),
        _ if fail && response.status >= 400 => Err(CliError::Status(response.status)),
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
    let code = response.code.unwrap_or(ErrorCode::Internal);
    let message = response.error.as_deref().unwrap_or("the function gave no answer");
    error_text(code, message, None, response.details.as_ref())
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
