//! The integration tests: one file for each command, and one for what only a real process or a hostile peer can show.

mod harness;

