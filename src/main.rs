//! The `levain` binary: `serve` and `demo` run the daemon, every other command is a client call.

use std::process::ExitCode;

fn main() -> ExitCode {
    levain::cli::run()
}
