//! GET_LOGS.

use super::{
    Caller, Command, Context,
    page::{Asked, Page},
};
use crate::{
    error::Error,
    model::{FunctionId, InvocationId, Timestamp},
    protocol::message::{LogLine, LogsRequest, LogsResponse},
    router,
    telemetry::{LogEntry, LogPage, LogQuery},
};
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// Default number of lines in an answer.
const LINES_DEFAULT: u32 = 100;

impl Command for LogsRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<LogsResponse, Error> {
        let asked = Asked { limit: self.limit, offset: self.offset, cursor: self.cursor.as_deref() };
        let asked = Page::<i64>::new(context, "logs", &asked, (LINES_DEFAULT, LogQuery::LIMIT_MAX))?;
        if self.follow && asked.after.is_some() {
            return Err(Error::invalid("give `cursor` for older lines or `follow` for new ones, not both"));
        }
        let query = query(context, &self, &asked)?;
        let id = query.function_id;
        // Following begins before the first read, so that no line is lost between the two.
        let mut follower = self.follow.then(|| context.telemetry.logs().follow());
        let read = query.clone();
        let page = context.blocking(move |context| Ok(context.telemetry.logs().query(&read)?)).await?;
        let mut seen = page.entries.iter().map(|entry| entry.id).max().unwrap_or(0);
        let older = page.entries.last().filter(|_| page.has_more && !self.follow).map(|it| asked.cursor(&it.id));
        let mut response = LogsResponse { next_cursor: older, ..response(context, id, page) };
        let Some(follower) = &mut follower else { return Ok(response) };
        loop {
            if caller.send(&response).await.is_err() {
                return Ok(response);
            }
            let news = loop {
                let received = tokio::select! {
                    received = follower.recv() => received,
                    () = context.stopping.cancelled() => Err(RecvError::Closed),
                };
                match received {
                    Ok(entry) if entry.id > seen && query.matches(&entry.record) => {
                        seen = entry.id;
                        break Some(LogPage { entries: vec![LogEntry::clone(&entry)], total: 1, has_more: false });
                    }
                    Ok(_) => {}
                    // Lines of all functions come this way, and there may be many. Missed lines of this function are in the
                    // database.
                    Err(RecvError::Lagged(_)) => {
                        let missed =
                            LogQuery { after: Some(seen), limit: LogQuery::LIMIT_MAX, offset: 0, ..query.clone() };
                        let page =
                            context.blocking(move |context| Ok(context.telemetry.logs().query(&missed)?)).await?;
                        if let Some(newest) = page.entries.first() {
                            seen = newest.id;
                            break Some(page);
                        }
                    }
                    Err(RecvError::Closed) => break None,
                }
            };
            match news {
                Some(page) => response = self::response(context, id, page),
                None => {
                    return Ok(self::response(context, id, LogPage { entries: Vec::new(), total: 0, has_more: false }));
                }
            }
        }
    }
}

fn query(context: &Context, request: &LogsRequest, asked: &Page<i64>) -> Result<LogQuery, Error> {
    let (function, qualifier) = router::split(&request.function_id, request.qualifier.as_deref())?;
    let (function_id, version) = match qualifier {
        None => (context.router.function(function)?.function.id, None),
        Some(_) => {
            let route = context.router.look_up(function, qualifier)?;
            (route.entry.function.id, Some(route.version.label.clone()))
        }
    };
    let time = |text: &Option<String>| -> Result<Option<Timestamp>, Error> {
        text.as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|error: crate::model::time::TimeError| Error::invalid(error.to_string()))
    };
    let invocation = request.execution_id.as_deref().map(str::parse::<InvocationId>).transpose();
    Ok(LogQuery {
        function_id,
        version,
        invocation: invocation.map_err(|error| Error::invalid(format!("execution_id: {error}")))?,
        level_min: request.level,
        since: time(&request.since)?,
        until: time(&request.end_date)?,
        limit: asked.limit,
        before: asked.after,
        after: None,
        offset: request.offset.unwrap_or(0).into(),
    })
}

fn response(context: &Context, id: FunctionId, page: LogPage) -> LogsResponse {
    let logs = page.entries.iter().rev().map(line).collect();
    LogsResponse { logs, total: page.total, dropped: context.telemetry.logs().dropped(id), next_cursor: None }
}

fn line(entry: &LogEntry) -> LogLine {
    let record = &entry.record;
    LogLine {
        timestamp: record.at,
        level: record.level,
        stream: record.stream.as_str().into(),
        message: record.message.clone(),
        version: record.version.to_string(),
        execution_id: record.invocation.map(|it| it.to_string()),
    }
}
