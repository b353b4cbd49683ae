//! GET_LOGS.

use super::{
    Caller, Command, Context,
    page::{Asked, Page},
    versions::function_name,
};
use crate::{
    error::Error,
    model::{FunctionId, InvocationId, Timestamp},
    protocol::message::{LogLine, LogsRequest, LogsResponse},
    router,
    telemetry::{LogEntry, LogPage, LogQuery},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
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
        let mut response = LogsResponse { next_cursor: older, ..response(context, id, page).await? };
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
            let is_end = news.is_none();
            let page = news.unwrap_or(LogPage { entries: Vec::new(), total: 0, has_more: false });
            response = self::response(context, id, page).await?;
            if is_end {
                return Ok(response);
            }
        }
    }
}

fn query(context: &Context, request: &LogsRequest, asked: &Page<i64>) -> Result<LogQuery, Error> {
    let (function, qualifier) = router::split(&request.function_id, request.qualifier.as_deref())?;
    let (function_id, version) = match (function, qualifier) {
        ("", None) => (None, None),
        ("", Some(_)) => return Err(Error::invalid("`qualifier` is for one function: give `function_id` as well")),
        (_, None) => (Some(context.router.function(function)?.function.id), None),
        (_, Some(_)) => {
            let route = context.router.look_up(function, qualifier)?;
            (Some(route.entry.function.id), Some(route.version.label.clone()))
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

async fn response(context: &Arc<Context>, id: Option<FunctionId>, page: LogPage) -> Result<LogsResponse, Error> {
    let logs = context.telemetry.logs();
    let (total, dropped) = (page.total, id.map_or_else(|| logs.dropped_total(), |id| logs.dropped(id)));
    let ids: HashSet<FunctionId> = page.entries.iter().map(|it| it.record.function_id).collect();
    let present = |id| Some((id, context.router.function(&FunctionId::to_string(&id)).ok()?.function.name.to_string()));
    let mut names: HashMap<FunctionId, String> = ids.iter().filter_map(|id| present(*id)).collect();
    if names.len() < ids.len() {
        // Lines of deleted functions; the disk knows their names.
        let find = move |context: &Context| ids.into_iter().map(|id| Ok((id, function_name(context, id)?))).collect();
        names = context.blocking(find).await?;
    }
    let line = |entry: &LogEntry| line(entry, names.get(&entry.record.function_id).cloned().unwrap_or_default());
    let logs = page.entries.iter().rev().map(line).collect();
    Ok(LogsResponse { logs, total, dropped, next_cursor: None })
}

fn line(entry: &LogEntry, function: String) -> LogLine {
    let record = &entry.record;
    LogLine {
        timestamp: record.at,
        level: record.level,
        stream: record.stream.as_str().into(),
        message: record.message.clone(),
        function,
        version: record.version.clone(),
        execution_id: record.invocation,
    }
}
