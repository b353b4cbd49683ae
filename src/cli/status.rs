//! Status of the daemon.

use super::error::CliError;
use super::print::facts;
use super::session::Session;
use super::text::{duration_ms, size};
use super::views::pools_text;
use crate::protocol::message::{DiskInfo, SandboxInfo, StatusRequest, StatusResponse};

/// `levain status`.
pub(super) async fn run(session: &mut Session) -> Result<(), CliError> {
    session.print(&StatusRequest {}, text).await
}

fn text(status: &StatusResponse) -> String {
    let dropped = if status.logs_dropped == 0 { String::new() } else { format!("{} lines", status.logs_dropped) };
    let mut text = facts([
        ("daemon", format!("levain {}, process {}", status.version, status.pid)),
        ("uptime", duration_ms(status.uptime_ms as f64)),
        ("data", status.data_dir.clone()),
        ("bun", format!("{} at {}", status.bun_version, status.bun_path)),
        ("functions", status.functions.to_string()),
        ("prewarmed", status.prewarmed.to_string()),
        ("workers", format!("{} of {}", status.workers, status.workers_max)),
        (
            "memory",
            format!(
                "{} daemon, {} of {} workers",
                size(status.memory_bytes),
                size(status.workers_memory_bytes),
                size(status.workers_memory_bytes_max)
            ),
        ),
        ("disk", disk_text(&status.disk)),
        ("sandbox", sandbox_text(&status.sandbox)),
        ("secrets", status.secrets_unavailable.as_ref().map(|it| format!("unavailable: {it}")).unwrap_or_default()),
        ("http", http_text(status)),
        ("logs dropped", dropped),
    ]);
    for missing in &status.sandbox.missing {
        text.push_str(&format!("missing    {missing}\n"));
    }
    if !status.pools.is_empty() {
        text.push('\n');
        text.push_str(&pools_text(&status.pools));
    }
    text
}

fn disk_text(disk: &DiskInfo) -> String {
    let DiskInfo { bundles_bytes, bytecode_bytes, store_bytes, logs_bytes, free_bytes } = *disk;
    let [bundles, bytecode, store, logs] = [bundles_bytes, bytecode_bytes, store_bytes, logs_bytes].map(size);
    let free = free_bytes.map(|it| format!(", {} free", size(it))).unwrap_or_default();
    format!("{bundles} bundles, {bytecode} bytecode, {store} store, {logs} logs{free}")
}

fn sandbox_text(sandbox: &SandboxInfo) -> String {
    match &sandbox.cgroups {
        Some(cgroups) => format!("{}, {cgroups}", sandbox.level),
        None => sandbox.level.clone(),
    }
}

fn http_text(status: &StatusResponse) -> String {
    let url = status.http_url.as_deref().unwrap_or("off");
    match &status.http_taken {
        Some(taken) => format!("{url}; another process listens on {taken}, so localhost may lead to it"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::protocol::message::PoolInfo;

    #[test]
    fn the_status_shows_the_daemon_and_its_pools() {
        let pool = PoolInfo {
            function: "hello".into(),
            version: "v1".parse().expect("a name"),
            environment: "production".parse().expect("a name"),
            planned: 0,
            starting: 0,
            idle: 2,
            busy: 1,
            retiring: 0,
            stopping: 0,
            running: 1,
            queued: 0,
            failed_starts: 3,
            retry_in_ms: 400,
        };
        let status = StatusResponse {
            version: "0.1.0".into(),
            bun_version: "1.3.0".into(),
            bun_path: "/bun".into(),
            pid: 7,
            uptime_ms: 65_000,
            data_dir: "/data".into(),
            functions: 1,
            pools: vec![pool],
            memory_bytes: 20 << 20,
            prewarmed: 2,
            workers: 3,
            workers_max: 512,
            workers_memory_bytes: 90 << 20,
            workers_memory_bytes_max: 6 << 30,
            disk: DiskInfo {
                bundles_bytes: 3 << 20,
                bytecode_bytes: 0,
                store_bytes: 200 << 10,
                logs_bytes: 5 << 20,
                free_bytes: Some(40 << 30),
            },
            logs_dropped: 0,
            sandbox: SandboxInfo {
                level: "user-namespace".into(),
                cgroups: Some("cgroup v2 (memory, pids)".into()),
                missing: vec!["privileged: the daemon is not root".into()],
            },
            secrets_unavailable: Some("the master key is missing".into()),
            http_url: Some("http://127.0.0.1:8080".into()),
            http_taken: Some("[::1]:8080".into()),
        };
        let expected = "\
daemon     levain 0.1.0, process 7
uptime     1m 05s
data       /data
bun        1.3.0 at /bun
functions  1
prewarmed  2
workers    3 of 512
memory     20 MiB daemon, 90 MiB of 6.0 GiB workers
disk       3.0 MiB bundles, 0 B bytecode, 200 KiB store, 5.0 MiB logs, 40 GiB free
sandbox    user-namespace, cgroup v2 (memory, pids)
secrets    unavailable: the master key is missing
http       http://127.0.0.1:8080; another process listens on [::1]:8080, so localhost may lead to it
missing    privileged: the daemon is not root

FUNCTION  VERSION  ENVIRONMENT  STARTING  IDLE  BUSY  RETIRING  STOPPING  QUEUED
hello     v1       production          0     2     1         0         0       0
hello v1 is unhealthy: 3 starts failed in a row, the next is tried in 400 ms
";
        assert_eq!(plain(&text(&status)), expected);
    }
}
