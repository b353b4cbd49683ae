//! Metrics of the daemon's own process, under Prometheus's standard names.

use super::{families as of, text::Page};
use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeValLike,
};
use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

pub(super) fn write(page: &mut Page, started: SystemTime) {
    let mut cpu = page.family(&of::CPU);
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        cpu.add(&[], us as f64 / 1e6);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let rest = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let files = fs::read_dir("/proc/self/fd").ok();
    for (family, value) in [
        (&of::RESIDENT, field("VmRSS").map(|kib| kib << 10)),
        (&of::VIRTUAL, field("VmSize").map(|kib| kib << 10)),
        // The descriptor that lists the folder is not counted.
        (&of::OPEN_FILES, files.map(|it| (it.count() as u64).saturating_sub(1))),
        (&of::FILES_MAX, getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)),
        (&of::THREADS, field("Threads")),
    ] {
        let mut samples = page.family(family);
        value.iter().for_each(|value| samples.add(&[], value));
    }
    let since_1970 = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    page.number(&of::STARTED, since_1970.as_secs_f64());
}
