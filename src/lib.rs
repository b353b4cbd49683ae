//! Levain: a functions runtime for one machine.
//!
//! A daemon takes commands over a Unix socket, keeps functions and their immutable versions in SQLite, and runs each
//! version in a pool of Bun processes. The `levain` binary is the daemon and its command line; this crate is both, and
//! the [`client`] for other programs.
//!
//! # The life of an invocation
//!
//! ```text
//! client ─frame─▶ ipc::connection ─▶ commands::invoke ─▶ router ─▶ scheduler ─▶ worker::link ─HTTP/1.1─▶ Bun
//!                 one task for all    Invocation          version   a lease of   one kept-alive
//!                 of a connection                         + pool    a worker     connection
//! ```
//!
//! 1. [`ipc`] reads a frame, [`protocol::ipc`] decodes it, and the request's future joins those of its connection: no
//!    task is spawned for it, and no other thread is told.
//! 2. [`commands`] parses names, headers and limits once; [`router`] resolves `name:qualifier` in an immutable snapshot.
//! 3. [`scheduler`] asks the version's pool, a pure state machine behind a short lock, for a worker: an idle one at once,
//!    else a place in the queue while a worker starts.
//! 4. [`worker::link`] writes the request to the worker's own socket and drives that connection inside the same future.
//! 5. Over HTTP, [`http`] takes the place of [`ipc`] on the same lanes: what is not below `/api/` becomes the same call
//!    ([`commands::call`]), and bodies stream through it in both directions.
//! 6. The answer goes back as one frame, or in parts as it is produced. The lease gives the worker back, whatever became
//!    of the caller.
//!
//! A warm invocation thus touches neither SQLite nor a file, holds no lock while it waits, and stays on one thread, the
//! *lane* of its connection: a runtime of its own, whose reactor also watches the connections that its invocations have
//! to the workers. Alone, a call is six system calls of the daemon and two wake-ups of one thread: `epoll_wait` and
//! `recv` for the request, `send` to the worker, `epoll_wait` and `recv` for its answer, `send` to the client. Sockets
//! are registered for reading only ([`socket`]): else each read of a peer would wake the other side to say that there
//! is room to write. With many callers one `epoll_wait` serves several calls, and four system calls are left. A worker
//! that is given back on one lane to a caller on another costs a wake-up of that lane, if it sleeps.
//!
//! What is not an invocation, or has a large payload, runs on the daemon's main runtime, which has several threads; so
//! do the workers' supervisors, the scheduler's tasks and its ticks. A lane never waits for any of them.
//!
//! # Modules, from the ground up
//!
//! A module uses itself and those on lower lines, never a neighbour on its own line (`tests/tidy.rs` checks it).
//!
//! | modules | own |
//! |---|---|
//! | [`model`], [`error`], [`config`], [`crash_point`], [`file_id`] | plain data; what a client may see of a failure; every setting; where tests may kill the process; which file a name leads to |
//! | [`protocol`], [`socket`], [`lanes`], [`sqlite`], [`logging`], [`secrets`] | the bytes on both sockets; a socket that wakes seldom; the threads of connections; opening and migrating a database; the daemon's own log; variables in memory, secrets sealed |
//! | [`store`], [`bundle`], [`telemetry`], [`client`] | metadata on disk; code on disk; what functions log and how they do; the other end of the command socket |
//! | [`worker`] | one Bun process: launch, assignment, invocations, death; finding and installing Bun |
//! | [`router`], [`scheduler`], [`deploy`], [`backup`] | which version answers; which worker, and how many; from a source, built if need be, to a checked bundle; a node as one file |
//! | [`commands`] | what each command does |
//! | [`ipc`], [`http`], [`watch`] | who may ask and how, on the command socket and over HTTP; when the configuration is read again |
//! | [`daemon`] | opens everything in order and stops it in the opposite order |
//! | [`cli`] | the command line |
//!
//! # What always holds
//!
//! | invariant | where | shown by |
//! |---|---|---|
//! | A version never changes; its bundle is on disk before its row, and its row is gone before its bundle | [`store`], [`bundle`] | `tests/it/process.rs` kills the daemon at every step |
//! | An alias moves only to a version that has loaded, and points at one that is there | [`commands`], [`store`] | `tests/it/deploy.rs`, `tests/it/aliases.rs` |
//! | A command that its client cancels has changed nothing, or it had begun to commit and takes effect | [`commands`] | `tests/it/cancel.rs` |
//! | A function that a deployment makes is gone again if that fails, unless somebody else has asked for it | [`store`], [`commands`] | `tests/it/cancel.rs` kills the daemon meanwhile |
//! | A rollout's step and its version's share change together; whatever else moves the alias ends the rollout | [`store`], [`commands`] | `tests/it/rollout.rs` kills the daemon between steps |
//! | An alias goes back by itself only from a version that is worse than its policy allows, by no accident, and never to one that it left so | [`model::policy`], [`store`], [`commands`] | simulated runs beside the rule, `tests/it/policy.rs` |
//! | In a protected environment an alias sends calls only to what was approved for it there, and going back waits for nobody | [`store`], [`commands`] | property tests beside the store, `tests/it/approval.rs` |
//! | A worker runs in one environment and shares nothing with any other, and no name of a version leads past the approval of a protected one | [`router`], [`scheduler`] | `tests/it/environments.rs`, `tests/it/approval.rs` |
//! | A preview goes when its time is over and not before, once, and says so | [`store`], [`commands`] | `tests/it/previews.rs` kills the daemon around both |
//! | A dry run says what then happens, and changes nothing | [`commands`] | `tests/it/plan.rs` |
//! | An archive or folder writes new files in a folder of its own and nothing else, and no more of it than the limits say | [`deploy`] | `tests/it/archives.rs` |
//! | A build reaches nothing of the machine, takes no more than its limits, and leaves a bundle or nothing | [`deploy`], [`worker`] | `tests/it/build` |
//! | Bytecode is a cache: without it, or with a damaged one, every version does the same | [`bundle`], [`deploy`] | `tests/it/bytecode.rs`, `worker-shim/test/compile.test.ts` |
//! | A cleanup takes no version that something refers to, and nobody who calls an alias notices it | [`store`], [`commands`] | property tests of the store, `tests/it/cleanup.rs` |
//! | Nothing acknowledged is lost | [`store`] | `tests/it/storm.rs` |
//! | Every invocation ends exactly once, and no worker runs more than it may | [`scheduler::pool`] | property tests beside it |
//! | Workers keep to the node's caps, floors are kept, busy functions share fairly | [`scheduler::node`] | property tests and the simulation beside it, `tests/it/node.rs` |
//! | A worker dies with the daemon; all it has started dies with it, without isolation at the next start after a `kill -9` | [`worker::launch`], [`worker`] | `tests/it/process.rs`, `tests/it/worker.rs` |
//! | A function reaches nothing of the machine that `docs/isolation.md` does not grant it | [`worker::sandbox`] | `tests/it/isolation` runs each attempt at each level |
//! | A worker that does what no shim does is ended with the reason, and one that says a lot is read slowly; nobody else notices | [`worker`] | `tests/it/rogue.rs` |
//! | A token is nowhere but in the answer that made it, and counts until it is revoked or expires and no longer | [`commands`] | `tests/it/tokens.rs`, `tests/it/http/auth.rs` |
//! | A peer deploys nothing that it cannot read itself, and a folder leads to nothing outside of it | [`bundle`], [`ipc`] | `tests/it/sources.rs` exchanges folders for links and reads as another user |
//! | No worker starts with a bundle that is not what was published | [`bundle`], [`scheduler`] | `tests/it/integrity.rs` changes bundles on disk |
//! | What a slow or greedy HTTP client makes the daemon hold is bounded, and nothing below `/api/` answers without a token | [`http`] | `tests/it/http` |
//! | Who breaks the rules of HTTP/2 or sends what can be read in two ways is cut off, and nobody else notices | [`http`] | `tests/it/http/http2.rs`, `tests/it/http/smuggling.rs` |
//! | The daemon says that it is ready when its functions are served and its kept workers are warm, and takes it back when it begins to stop | [`http`], [`daemon`] | `tests/it/http/ready.rs` |
//! | A worker has one consistent set of variables; a change reaches every further call and fails none | [`secrets`], [`scheduler`] | `tests/it/variables.rs` |
//! | A secret lies sealed, goes to workers of its function, and is shown nowhere; a changed row does not open | [`secrets`], [`store`] | `tests/it/secrets.rs` searches disk, logs and processes |
//! | A failure shows its caller lines of that invocation only, and a stranger no facts at all | [`worker`], [`http`] | `tests/it/worker.rs`, `tests/it/http/details.rs` |
//! | A function speaks for no origin that it shares with others, and is no program of this machine | [`http`], [`worker`] | `tests/it/http/origin.rs`, `tests/it/http/details.rs` |
//! | A function cannot use the command socket | [`ipc`] | `tests/it/rogue.rs` |
//! | A peer can make the daemon hold only so much | [`ipc`] | `tests/it/hostile.rs` |

#[cfg(not(target_os = "linux"))]
compile_error!("Levain runs on Linux: it relies on pidfds, parent-death signals and /proc");

pub mod backup;
pub mod bundle;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod crash_point;
pub mod daemon;
pub mod deploy;
pub mod error;
pub mod file_id;
pub mod http;
pub mod ipc;
pub mod lanes;
pub mod logging;
pub mod model;
pub mod protocol;
pub mod router;
pub mod scheduler;
pub mod secrets;
pub mod socket;
pub mod sqlite;
pub mod store;
pub mod telemetry;
pub mod watch;
pub mod worker;

#[cfg(test)]
mod reference_tests;

/// The README's examples compile.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
#[derive(Debug)]
pub struct Readme;
