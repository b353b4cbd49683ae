//! Measures Levain beside its floors and its peers: the real daemon with real Bun workers, the bare hops and processes
//! that it consists of, and other platforms that are installed.
//!
//! ```text
//! cargo bench --bench invoke                      about four minutes
//! cargo bench --bench invoke -- --quick           about half a minute
//! cargo bench --bench invoke -- --only cold       one part of it, or several
//! cargo bench --bench invoke -- --json FILE       the figures as JSON too
//! cargo bench --bench invoke -- --install-peers   workerd from npm, below target/, before all that
//! ```
//!
//! Figures are taken in rounds (A B C, A B C, …), so that the machine's other load falls on all of them alike, and a
//! ratio is formed within its round. The tables show medians over the rounds, with the least and the greatest value.
//! Only ratios can be compared between machines.
//!
//! On several processors, most of a hop is the wake-up of another processor. Under `taskset -c 0` there are no such
//! wake-ups, the spread is far smaller, and only the work remains.
//!
//! Modules, from the ground up:
//! - `load`: closed loops of callers, and the latencies they see;
//! - `process`: CPU time and private memory of a process, and its end;
//! - `floor`: a bare socket pair, and bare frames on a Unix socket;
//! - `http1`: a minimal client for every server that is not our daemon;
//! - `bun`: Bun processes without a daemon, with the shim or with only `Bun.serve`;
//! - `daemon`: `levain serve` and its callers;
//! - `workerd`: a peer, if it is installed;
//! - `warm`, `faces`, `cold`, `sandbox`, `versions`, `faults`, `overload`, `memory`: the measurements, each a part of a
//!   round save the last;
//! - `rounds`: the amount and order of the measurements;
//! - `figures`: the names of all figures, the ratios and their targets;
//! - `report`: the tables and the JSON.
//!
//! Another platform to compare with is one more module beside `workerd`, whose callers implement [`load::Caller`].

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its results")]

mod bun;
mod cold;
mod daemon;
mod faces;
mod faults;
mod figures;
mod floor;
mod http1;
mod load;
mod memory;
mod overload;
mod process;
mod report;
mod rounds;
mod sandbox;
mod versions;
mod warm;
mod workerd;

use clap::Parser;
use rounds::{Part, Plan};
use std::{error::Error, path::PathBuf, process::ExitCode};

/// Any error makes the measurement worthless and ends it.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures Levain beside its floors and its peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run a few short rounds: about half a minute, with a wider spread
    #[arg(long)]
    quick: bool,
    /// Measure these parts only
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// Install the platforms to compare with below target/, using npm
    #[arg(long)]
    install_peers: bool,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Passed by `cargo bench` to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if let Some(served) = floor::serve_if_asked() {
        return exit_code(served);
    }
    // `cargo test --benches` runs this without `--bench`: the test is that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        eprintln!("nothing is measured without --bench: run `cargo bench --bench invoke`");
        return ExitCode::SUCCESS;
    }
    exit_code(measure(&Arguments::parse()))
}

fn measure(arguments: &Arguments) -> Result<()> {
    if arguments.install_peers {
        workerd::install()?;
    }
    let plan = if arguments.quick { Plan::QUICK } else { Plan::FULL };
    // One thread makes the load: it then takes one processor at most, and calls are not handed between threads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(rounds::run(&plan, &arguments.only))?;
    println!("{}", report.text());
    if let Some(file) = &arguments.json {
        std::fs::write(file, report.json()?).map_err(|error| format!("{}: {error}", file.display()))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}

fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
