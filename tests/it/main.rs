//! The integration tests: one file for each command, and one for each topic that needs a real process, a hostile peer
//! or heavy traffic. All of them run real Bun workers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs,
    reason = "a test that cannot go on fails, and says why"
)]

mod harness;

mod aliases;
mod approval;
mod archives;
mod backup;
mod build;
mod bytecode;
mod cancel;
mod cleanup;
mod compare;
mod concurrency;
mod crash_loop;
mod delete;
mod deploy;
mod environments;
mod faulty;
mod functions;
mod hostile;
mod http;
mod idempotency;
mod integrity;
mod invoke;
mod isolation;
mod logs;
mod manifests;
mod metrics;
mod node;
mod overload;
mod paging;
mod plan;
mod policy;
mod previews;
mod prewarm;
mod process;
mod promotion;
mod protocol;
mod recycling;
mod register;
mod rogue;
mod rollback;
mod rollout;
mod secrets;
mod sources;
mod spawner;
mod status;
mod storm;
mod tokens;
mod traffic;
mod variables;
mod versions;
mod warmup;
mod worker;
