//! `/metrics`, for Prometheus and other tools that read its format.
//!
//! The numbers come from memory and from a few queries to the file system. The page is built on a thread for blocking
//! work, so that no invocation waits for it. A version's numbers begin with its first invocation and end with the
//! version or its function.

mod families;
mod process;
mod text;

use super::{
    answer::{self, Answer},
    auth,
    counters::RESPONSE_CLASSES,
    exchange::Note,
    face::{Face, Phase},
    local,
    peer::Peer,
};
use crate::{
    commands::{self, Context},
    config::Metrics,
    error::Error,
    router::Functions,
    scheduler::{PoolSnapshot, pool::Health},
    telemetry::{
        CLASSES,
        totals::{Durations, START_KINDS, VersionTotals},
    },
};
use families as of;
use http::{Request, StatusCode};
use std::{collections::HashMap, sync::Arc};
use text::Page;
use tokio::runtime::Handle;

/// Answers a scrape, if the client may see metrics.
pub(super) async fn run<B>(
    (face, context): (&Arc<Face>, &Arc<Context>),
    main: &Handle,
    peer: &Peer,
    request: &Request<B>,
    note: &mut Note,
) -> Answer {
    let config = context.config.load_full();
    let is_open = match config.http.metrics {
        Metrics::Open => true,
        Metrics::Token => false,
        Metrics::Auto => {
            face.is_loopback()
                && local::looks_local(face, peer, request.version(), request.headers())
                && local::is_local(face, context, main, peer).await
        }
        Metrics::Off => return answer::not_found(request.method(), request.uri().path()),
    };
    if !is_open {
        let allowed = auth::authorize(context, request.headers(), peer.address.ip()).and_then(|grant| {
            note.grant(&grant);
            grant.may_read()
        });
        if let Err(error) = allowed {
            return answer::error(&error, None);
        }
    }
    let versions_max = config.http.metrics_versions_max as usize;
    let (face, context) = (Arc::clone(face), Arc::clone(context));
    match main.spawn_blocking(move || page(&face, &context, versions_max)).await {
        Ok(text) => answer::typed(StatusCode::OK, text::CONTENT_TYPE, text.into()),
        Err(error) => answer::error(&Error::internal(error), None),
    }
}

fn page(face: &Face, context: &Context, versions_max: usize) -> String {
    let mut page = Page::default();
    let functions = context.router.functions();
    let spawner = context.scheduler.spawner();
    let bun = spawner.runtime().version.to_string();
    page.family(&of::BUILD).add(&[env!("CARGO_PKG_VERSION"), &bun, spawner.sandbox().level.name()], 1);
    page.number(&of::READY, u8::from(face.phase() == Phase::Ready));
    let totals = context.router.totals();
    page.number(&of::FUNCTIONS, totals.functions);
    page.number(&of::VERSIONS, totals.versions);
    versions(&mut page, context, &functions, versions_max);
    workers(&mut page, context, versions_max);
    faces(&mut page, face);
    page.number(&of::LOG_DROPPED, context.telemetry.logs().dropped_total());
    let disk = commands::disk(context);
    let mut kinds = page.family(&of::DISK);
    kinds.add(&["bundles"], disk.bundles_bytes);
    kinds.add(&["bytecode"], disk.bytecode_bytes);
    kinds.add(&["store"], disk.store_bytes);
    kinds.add(&["logs"], disk.logs_bytes);
    let mut free = page.family(&of::DISK_FREE);
    disk.free_bytes.iter().for_each(|bytes| free.add(&[], bytes));
    process::write(&mut page, face.started);
    page.into_text()
}

/// Writes the invocations of existing versions, at most `versions_max` of them.
fn versions(page: &mut Page, context: &Context, functions: &Functions, versions_max: usize) {
    let known: HashMap<_, _> = functions.iter().map(|it| (it.function.id, it)).collect();
    let find = |totals: VersionTotals| {
        let entry = *known.get(&totals.function_id)?;
        let number = entry.version(totals.version_id)?.number;
        Some((entry, number, totals))
    };
    let mut called: Vec<_> = context.telemetry.metrics().totals().into_iter().filter_map(find).collect();
    let omitted = called.len().saturating_sub(versions_max);
    if omitted > 0 {
        called.sort_by_key(|(_, _, totals)| std::cmp::Reverse(totals.invocations));
        called.truncate(versions_max);
    }
    called.sort_by(|(a, first, _), (b, second, _)| (&a.function.name, first).cmp(&(&b.function.name, second)));
    let all = called.iter().map(|(entry, _, totals)| ([entry.function.name.as_str(), totals.version.as_str()], totals));
    page.number(&of::VERSIONS_OMITTED, omitted);
    let mut samples = page.family(&of::INVOCATIONS);
    for ([function, version], totals) in all.clone() {
        samples.add(&[function, version, "OK"], totals.invocations - totals.errors);
        for (code, count) in &totals.errors_by_code {
            samples.add(&[function, version, code.as_str()], count);
        }
    }
    let mut samples = page.family(&of::ANSWERS);
    for ([function, version], totals) in all.clone() {
        for (class, count) in CLASSES.iter().zip(totals.answers) {
            samples.add(&[function, version, class], count);
        }
    }
    for (family, durations) in [
        (&of::DURATION, (|it| &it.run) as fn(&VersionTotals) -> &Durations),
        (&of::QUEUE, |it| &it.queue),
        (&of::START, |it| &it.start),
    ] {
        let mut samples = page.family(family);
        all.clone().for_each(|(labels, totals)| samples.durations(&labels, durations(totals)));
    }
    let mut samples = page.family(&of::STARTS);
    for ([function, version], totals) in all {
        for (kind, count) in START_KINDS.iter().zip(totals.starts) {
            samples.add(&[function, version, kind], count);
        }
    }
}

/// Writes the pools, at most `versions_max` of them, and the node.
fn workers(page: &mut Page, context: &Context, versions_max: usize) {
    let mut pools = context.scheduler.snapshot();
    let labels = |pool: &PoolSnapshot| {
        let it = &pool.blueprint;
        [it.function.to_string(), it.version.to_string(), it.environment.to_string()]
    };
    let is_in_use =
        |it: &PoolSnapshot| it.counts.alive() + it.counts.retiring + it.counts.stopping + it.counts.queued > 0;
    pools.retain(|it| is_in_use(it) || it.health != Health::Healthy);
    pools.sort_by_cached_key(labels);
    pools.truncate(versions_max);
    let pools: Vec<_> = pools.iter().map(|it| (labels(it), it.counts, it.health)).collect();
    let mut samples = page.family(&of::WORKERS);
    for ([function, version, environment], counts, _) in &pools {
        for (state, count) in [
            ("starting", counts.starting),
            ("idle", counts.idle),
            ("busy", counts.busy),
            ("retiring", counts.retiring),
            ("stopping", counts.stopping),
        ] {
            samples.add(&[function, version, environment, state], count);
        }
    }
    for (family, number) in [
        (&of::RUNNING, (|it, _| it.running) as fn(&crate::scheduler::pool::Counts, &Health) -> usize),
        (&of::QUEUED, |it, _| it.queued),
        (&of::WANTED, |it, _| it.planned),
        (&of::FAILED_STARTS, |_, health| match health {
            Health::Healthy => 0,
            Health::Unhealthy { failures, .. } => *failures as usize,
        }),
    ] {
        let mut samples = page.family(family);
        for (labels, counts, health) in &pools {
            samples.add(&labels.each_ref().map(String::as_str), number(counts, health));
        }
    }
    let (node, spawner) = (context.scheduler.node(), context.scheduler.spawner());
    page.number(&of::NODE_WORKERS, node.workers);
    page.number(&of::NODE_WORKERS_MAX, node.caps.workers_max);
    page.number(&of::PREWARMED, spawner.prewarmed());
    page.number(&of::WORKERS_MEMORY, spawner.memory());
    page.number(&of::WORKERS_MEMORY_MAX, node.caps.memory_max);
}

/// Writes the metrics of HTTP itself.
fn faces(page: &mut Page, face: &Face) {
    let counted = face.counters.now();
    page.number(&of::HTTP_OPEN, counted.connections_open);
    page.number(&of::HTTP_CONNECTIONS, counted.connections);
    page.number(&of::HTTP_RUNNING, counted.requests_running);
    let mut classes = page.family(&of::HTTP_RESPONSES);
    for (class, count) in RESPONSE_CLASSES.iter().zip(counted.responses) {
        classes.add(&[class], count);
    }
    page.number(&of::HTTP_IN, counted.body_bytes_in);
    page.number(&of::HTTP_OUT, counted.body_bytes_out);
    page.number(&of::HTTP_SLOW, counted.slow_clients);
    page.number(&of::HTTP_TLS_FAILURES, counted.tls_failures);
    let (written, dropped) = face.access_log.totals();
    page.number(&of::ACCESS_LOG_LINES, written);
    page.number(&of::ACCESS_LOG_DROPPED, dropped);
}
