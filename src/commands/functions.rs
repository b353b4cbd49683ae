//! LIST_FUNCTIONS, GET_FUNCTION and UPDATE_FUNCTION.

use super::{
    Caller, Command, Context,
    page::{Asked, PAGE_MAX, Page},
    placement::check_capacity,
};
use crate::{
    error::Error,
    model::Timestamp,
    protocol::message::{
        AliasInfo, FunctionInfo, FunctionSummary, GetRequest, ListRequest, ListResponse, PoolInfo, SplitInfo,
        UpdateRequest,
    },
    router::Entry,
    scheduler::{PoolSnapshot, pool::Health},
};
use std::{sync::Arc, time::Duration};

impl Command for ListRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<ListResponse, Error> {
        let asked = Asked { limit: self.limit, offset: self.offset, cursor: self.cursor.as_deref() };
        let page = Page::<String>::new(context, "functions", &asked, (PAGE_MAX, PAGE_MAX))?;
        let functions = context.router.functions();
        // Every name comes after the empty text.
        let behind = functions.after(page.after.as_deref().unwrap_or_default());
        let rows = behind.skip(self.offset.unwrap_or(0) as usize);
        let summary = |entry: &Arc<Entry>| FunctionSummary {
            function_id: entry.function.id,
            name: entry.function.name.to_string(),
            status: entry.function.status,
            active_version: entry.live().map(|it| it.label.to_string()),
            versions: entry.versions.len() as u32,
            warm: pools(context, entry).iter().map(|it| it.idle + it.busy).sum(),
            updated_at: entry.function.updated_at,
        };
        let (rows, next_cursor) = page.fill(rows, |it| it.function.name.to_string(), summary);
        Ok(ListResponse { functions: rows, total: context.router.totals().functions as u64, next_cursor })
    }
}

impl Command for GetRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<FunctionInfo, Error> {
        info(context, &self.function_id)
    }
}

/// Describes a function with its aliases and workers.
fn info(context: &Context, function_id: &str) -> Result<FunctionInfo, Error> {
    let entry = context.router.function(function_id)?;
    let function = &entry.function;
    let aliases = entry.aliases.iter().filter_map(|alias| {
        let split = alias.split.and_then(|it| Some(SplitInfo::new(entry.version(it.version_id)?, it)));
        let version = entry.version(alias.version)?.label.clone();
        Some(AliasInfo { name: alias.name.clone(), environment: alias.environment.to_string(), version, split })
    });
    Ok(FunctionInfo {
        function_id: function.id,
        name: function.name.to_string(),
        runtime: function.runtime.clone(),
        handler: function.handler.clone(),
        status: function.status,
        active_version: entry.live().map(|it| it.label.to_string()),
        active_version_id: entry.live().map(|it| it.id),
        settings: function.settings,
        aliases: aliases.collect(),
        versions: entry.versions.len() as u32,
        disk_bytes: entry.versions.bytes(),
        pools: pools(context, &entry),
        created_at: function.created_at,
        updated_at: function.updated_at,
    })
}

impl Command for UpdateRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<FunctionInfo, Error> {
        let entry = context.router.function(&self.function_id)?;
        let id = entry.function.id;
        let owner = Arc::clone(context);
        context
            .to_its_end(async move {
                let (_changing, entry) = owner.hold(id).await?;
                let settings = entry.function.settings.with(&self.settings)?;
                if entry.live().is_some() {
                    check_capacity(&owner, &entry, &settings)?;
                }
                owner
                    .blocking(move |context| {
                        context.store.update_settings(id, &settings, Timestamp::now())?;
                        context.refresh_aliases(id, None)
                    })
                    .await?;
                for version in entry.versions.iter() {
                    owner.scheduler.pools_of(version.id).iter().for_each(|pool| pool.set_settings(&settings));
                }
                owner.prepare_floor(&*owner.router.by_id(id)?);
                info(&owner, &id.to_string())
            })
            .await
    }
}

/// Pools of one function that have a worker or a waiting invocation.
fn pools(context: &Context, entry: &Entry) -> Vec<PoolInfo> {
    let pools = entry.versions.iter().flat_map(|version| context.scheduler.pools_of(version.id));
    pools.map(|pool| pool_info(&pool.snapshot())).filter(is_in_use).collect()
}

/// Whether a pool has anything worth a row.
pub(super) fn is_in_use(pool: &PoolInfo) -> bool {
    let PoolInfo { planned, starting, idle, busy, retiring, stopping, queued, failed_starts, .. } = pool;
    planned + starting + idle + busy + retiring + stopping + queued + failed_starts > 0
}

/// A pool in wire form.
pub(super) fn pool_info(pool: &PoolSnapshot) -> PoolInfo {
    let PoolSnapshot { blueprint, counts, health } = pool;
    let (failed_starts, retry_in) = match *health {
        Health::Healthy => (0, Duration::ZERO),
        Health::Unhealthy { failures, retry_in } => (failures, retry_in),
    };
    PoolInfo {
        function: blueprint.function.to_string(),
        version: blueprint.version.clone(),
        environment: blueprint.environment.clone(),
        planned: counts.planned as u32,
        starting: counts.starting as u32,
        idle: counts.idle as u32,
        busy: counts.busy as u32,
        retiring: counts.retiring as u32,
        stopping: counts.stopping as u32,
        running: counts.running as u32,
        queued: counts.queued as u32,
        failed_starts,
        retry_in_ms: retry_in.as_millis() as u64,
    }
}
