//! The measurements and their order.

use crate::{
    Result,
    bun::Bun,
    cold::Cold,
    daemon::{Daemon, sample},
    faces::Faces,
    faults::Faults,
    memory,
    overload::Overload,
    report::Report,
    sandbox::Sandbox,
    versions::Versions,
    warm::Warm,
    workerd::{self, Workerd},
};
use clap::ValueEnum;
use std::time::Duration;

/// Amount of measuring.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Number of rounds that count.
    pub(crate) rounds: usize,
    /// Time that one figure is measured in one round; the figures of a single caller, which take turns, and those
    /// beside a fault take twice as long.
    pub(crate) slice: Duration,
    /// Number of cold starts of either kind in one round.
    pub(crate) colds: usize,
    /// Number of deployed functions when the daemon's memory is measured.
    pub(crate) functions: usize,
}

impl Plan {
    pub(crate) const FULL: Self = Self { rounds: 6, slice: Duration::from_millis(300), colds: 8, functions: 2_000 };
    pub(crate) const QUICK: Self = Self { rounds: 2, slice: Duration::from_millis(120), colds: 5, functions: 100 };
}

/// A part of each round, or the part that follows the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    Warm,
    Faces,
    Cold,
    Sandbox,
    Versions,
    Faults,
    Overload,
    Memory,
}

/// Prewarmed processes, as in the default configuration.
pub(crate) const PREWARMED: u32 = 2;

/// Measures these parts, or everything if `parts` is empty.
pub(crate) async fn run(plan: &Plan, parts: &[Part]) -> Result<Report> {
    let wants = |part| parts.is_empty() || parts.contains(&part);
    let bun = Bun::prepare().await?;
    let mut peer = match workerd::find() {
        Some(executable) => Some(Workerd::start(&executable, &bun.javascript(&sample("hello"))?).await?),
        None => {
            eprintln!("{}", workerd::how_to_get_it());
            None
        }
    };
    let mut report = Report::default();
    report.set_conditions(plan, &bun.version(), peer.as_ref().map(Workerd::version));
    eprintln!("starting daemons, floors and bare Bun processes");
    let daemon = Daemon::start(bun.path(), PREWARMED).await?;
    // Faults and overload have a daemon of their own, because its workers come and go.
    let troubled = Daemon::start(bun.path(), PREWARMED).await?;
    let mut warm = some_if(wants(Part::Warm), Warm::start(&bun, &daemon)).await?;
    let mut faces = some_if(wants(Part::Faces), Faces::start(&daemon)).await?;
    let mut cold = some_if(wants(Part::Cold), Cold::start(&bun, &daemon, plan)).await?;
    let mut sandbox = some_if(wants(Part::Sandbox), Sandbox::start(&bun, plan)).await?;
    let mut versions = some_if(wants(Part::Versions), Versions::start(&daemon)).await?;
    let mut faults = some_if(wants(Part::Faults), Faults::start(&troubled)).await?;
    let mut overload = some_if(wants(Part::Overload), Overload::start(&troubled)).await?;
    for round in 0..=plan.rounds {
        match round {
            0 => eprintln!("warm-up round, not counted"),
            round => eprintln!("round {round} of {}", plan.rounds),
        }
        if round == 1 {
            report.clear();
        }
        if let Some(warm) = &mut warm {
            warm.round(&daemon, peer.as_ref(), plan.slice, &mut report).await?;
        }
        if let Some(faces) = &mut faces {
            faces.round(&daemon, peer.as_ref(), plan.slice, &mut report).await?;
        }
        if let Some(cold) = &mut cold {
            cold.round(&bun, &daemon, peer.as_mut(), &mut report).await?;
        }
        if let Some(sandbox) = &mut sandbox {
            sandbox.round(plan.slice, &mut report).await?;
        }
        if let Some(versions) = &mut versions {
            versions.round(plan.slice, &mut report).await?;
        }
        if let Some(faults) = &mut faults {
            faults.round(&troubled, 2 * plan.slice, &mut report).await?;
        }
        if let Some(overload) = &mut overload {
            overload.round(&troubled, plan.slice, &mut report).await?;
        }
    }
    drop((warm, faces, cold, sandbox, versions, faults, overload, daemon, troubled, peer));
    if wants(Part::Memory) {
        eprintln!("measuring memory with {} functions", plan.functions);
        memory::measure(&bun, plan, &mut report).await?;
    }
    Ok(report)
}

async fn some_if<T>(wanted: bool, start: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    if wanted { start.await.map(Some) } else { Ok(None) }
}
