//! The `levain` binary: `serve` and `demo` run the daemon, everything else is one client call.

use std::process::ExitCode;

fn main() -> ExitCode {
    levain::cli::run()
}
