//! Measures what commands cost on a node that has grown: with more functions, versions, variables, deployments and log
//! lines.
//!
//! ```text
//! cargo bench --bench growth                 about a minute
//! cargo bench --bench growth -- --long       larger nodes: about twenty minutes
//! cargo bench --bench growth -- --only logs  the rows whose name contains a text
//! ```
//!
//! Each row grows a fresh daemon in steps and measures one operation after each. The figures are the daemon's CPU time
//! for one operation, the least of several rounds; the ratio of the last to the first is what counts, and 1 is flat.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its results")]

mod node;
#[path = "../invoke/process.rs"]
#[allow(dead_code, reason = "the other benchmark uses more of it")]
mod process;
mod rows;

use clap::Parser;
use node::Node;
use rows::{ROWS, Row};
use std::{error::Error, process::ExitCode};

/// Any error makes the measurement worthless and ends it.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures what commands cost on a node that has grown.
#[derive(Debug, Parser)]
struct Arguments {
    /// Grow further: about twenty minutes
    #[arg(long)]
    long: bool,
    /// Measure the rows whose name contains this text only
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Passed by `cargo bench` to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // `cargo test --benches` runs this without `--bench`: the test is that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        eprintln!("nothing is measured without --bench: run `cargo bench --bench growth`");
        return ExitCode::SUCCESS;
    }
    let measured = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(measure(&Arguments::parse())));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    println!("| operation | grows by | sizes | daemon's CPU for one, ms | last / first |\n|---|---|---|---|---|");
    for row in ROWS.iter().filter(|row| row.name.contains(&arguments.only)) {
        let sizes = if arguments.long { row.long } else { row.short };
        let costs = cost(row, sizes).await.map_err(|error| format!("{}: {error}", row.name))?;
        let shown = |values: &[String]| values.join(" / ");
        let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        let figures: Vec<String> = costs.iter().map(|it| format!("{it:.2}")).collect();
        let ratio = costs.last().zip(costs.first()).map_or(f64::NAN, |(last, first)| last / first);
        let Row { name, grows_by, .. } = row;
        println!("| {name} | {grows_by} | {} | {} | {ratio:.1} |", shown(&sizes), shown(&figures));
    }
    Ok(())
}

/// CPU milliseconds of one operation at each size.
async fn cost(row: &Row, sizes: &[u32]) -> Result<Vec<f64>> {
    let node = Node::start().await?;
    (row.prepare)(&node).await?;
    let (mut costs, mut present) = (Vec::new(), 0);
    for size in sizes {
        (row.grow)(&node, present, *size).await?;
        present = *size;
        costs.push(node.cost(row.operations, || (row.operate)(&node)).await?);
    }
    Ok(costs)
}
