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
//! 1. [`ipc`] reads a frame, [`protocol::ipc`] decodes it, and the request's future joins the others of its connection:
//!    no task is spawned for it, and no other thread is involved.
//! 2. [`commands`] parses names, headers and limits once; [`router`] resolves `name:qualifier` in an immutable snapshot.
//! 3. [`scheduler`] asks the version's pool, a pure state machine behind a short lock, for a worker: it gets an idle one
//!    at once, or a place in the queue while a worker starts.
//! 4. [`worker::link`] writes the request to the worker's own socket and drives that connection inside the same future.
//! 5. Over HTTP, [`http`] takes the place of [`ipc`] on the same lanes: a request outside `/api/` becomes the same
//!    invocation ([`commands::call`]), and bodies stream through it in both directions.
//! 6. The answer goes back as one frame, or in parts as it is produced. The lease gives the worker back, even if the
//!    caller has left.
//!
//! A warm invocation thus touches neither SQLite nor a file, holds no lock while it waits, and stays on one thread, the
//! *lane* of its connection. A lane is a runtime of its own, whose reactor also watches the connections of its
//! invocations to the workers. A single invocation costs the daemon six system calls and two wake-ups of one thread:
//! `epoll_wait` and `recv` for the request, `send` to the worker, `epoll_wait` and `recv` for its answer, `send` to the
//! client. Sockets are registered for reading only ([`socket`]); otherwise each read of a peer would wake the other side
//! just to report room to write. With many callers, one `epoll_wait` serves several invocations, which leaves four
//! system calls for each. A worker given back on one lane to a caller on another costs a wake-up of that lane, if it
//! sleeps.
//!
//! Other commands, and invocations with a large payload, run on the daemon's main runtime, which has several threads; so
//! do the workers' supervisors, the scheduler's tasks and its ticks. A lane never waits for any of them.
//!
//! # Modules, from the ground up
//!
//! A module uses itself and modules on lower lines, never a neighbour on its own line (`tests/tidy.rs` checks this).
//!
//! | modules | own |
//! |---|---|
//! | [`model`], [`error`], [`crash_point`], [`file_id`] | plain data, and the settings of functions; the part of a failure that a client may see; points where tests may kill the process; the identity of the file that a name leads to |
//! | [`config`] | every key of the configuration |
//! | [`protocol`], [`socket`], [`lanes`], [`sqlite`], [`logging`], [`secrets`] | the bytes on both sockets; sockets with few wake-ups; the threads of connections; opening and migrating a database; the daemon's own log; variables in memory, sealed secrets |
//! | [`store`], [`bundle`], [`telemetry`], [`client`] | metadata on disk; code on disk; the functions' logs and metrics; the other end of the command socket |
//! | [`worker`] | one Bun process: launch, assignment, invocations, death; finding and installing Bun |
//! | [`router`], [`scheduler`], [`deploy`], [`backup`] | which version answers; which worker, and how many; from a source, built if necessary, to a checked bundle; a node as one file |
//! | [`commands`] | the commands |
//! | [`ipc`], [`http`], [`watch`] | authorization and transport, on the command socket and over HTTP; when the configuration is read again |
//! | [`daemon`] | opens everything in order and stops it in reverse order |
//! | [`cli`] | the command line |
//!
//! Within a module, files do not use each other in circles either, except those above them in their own path, which
//! hold what they share. One circle stays: the pages of [`http`] show the document that describes them.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | invocation | one call of a function, from the request to its answer; its id is the `execution_id` of the protocol |
//! | version, label, number | immutable code of a function; its name, and its place in the order of versions |
//! | alias, `LIVE`, `ROLLBACK` | a movable name for a version; the one of invocations without a qualifier; the one that follows it |
//! | qualifier | the part of a name behind the colon: an alias, a label or a number |
//! | deployment | one act that published a version or moved an alias, with its row in the audit trail |
//! | split, share, sticky | two versions behind one alias; the percentage of invocations of the second; what keeps a caller at one of them |
//! | rollout, policy, guard | a plan that raises a share in steps; the limits that roll an alias back; the counts that a policy is judged by |
//! | environment, preview | the variables and the protection that aliases run with; an alias for a look at code, which expires |
//! | entry, catalogue | a function with its versions and aliases, in the router; all of them, in the store |
//! | bundle, stage, publish | the files of a version; to write them aside; to put them in their place |
//! | worker, pool, cell | one Bun process; the workers of a version in an environment, as a state machine; that machine behind its lock |
//! | node, driver, host | the places that pools share, as a state machine; what passes events to pools and node; processes, tasks and clock as the driver needs them |
//! | slot, lease, floor | room for one invocation in a worker; the right to one; the workers that a pool keeps warm |
//! | launcher, spawner, prewarming | the thread that starts processes; what makes workers of them; starting Bun before it is needed |
//! | lane | a thread with a runtime of its own, which serves the connections of clients |
//! | shim | the program in a worker that loads the function and speaks the worker protocol |
//! | master key, generation | the key that seals secrets; one of the values that a secret has had |
//! | actor, caller | the user or program that the audit trail names; the actor of a command with its rights and its connection |
//!
//! # What always holds
//!
//! | invariant | where | shown by |
//! |---|---|---|
//! | A version never changes; its bundle is on disk before its row, and its row is gone before its bundle | [`store`], [`bundle`] | `tests/it/process.rs` kills the daemon at every step |
//! | An alias moves only to a version that has loaded, and points at one that exists | [`commands`], [`store`] | `tests/it/deploy.rs`, `tests/it/aliases.rs` |
//! | A command that its client cancels has either changed nothing, or had begun to commit and takes full effect | [`commands`] | `tests/it/cancel.rs` |
//! | A function created by a deployment is removed if the deployment fails, unless another client has asked for it | [`store`], [`commands`] | `tests/it/cancel.rs` kills the daemon in between |
//! | A rollout's step and its version's share change together; any other move of the alias ends the rollout | [`store`], [`commands`] | `tests/it/rollout.rs` kills the daemon between steps |
//! | A policy rolls an alias back only from a version that is significantly worse than it allows, and never to a version that the alias left this way | [`model::policy`], [`store`], [`commands`] | simulated runs beside the rule, `tests/it/policy.rs` |
//! | In a protected environment an alias sends invocations only to versions approved for it there, and a rollback needs no approval | [`store`], [`commands`] | property tests beside the store, `tests/it/approval.rs` |
//! | A worker runs in one environment and shares nothing with any other, and naming a version directly does not bypass the approval of a protected environment | [`router`], [`scheduler`] | `tests/it/environments.rs`, `tests/it/approval.rs` |
//! | A preview is removed when its time is over and not before, exactly once, and the removal is reported | [`store`], [`commands`] | `tests/it/previews.rs` kills the daemon around both |
//! | A dry run reports what the real run will do, and changes nothing | [`commands`] | `tests/it/plan.rs` |
//! | An archive or folder writes only new files in a folder of its own, and no more than the limits allow | [`deploy`] | `tests/it/archives.rs` |
//! | A build has no access to the machine, stays within its limits, and leaves either a bundle or nothing | [`deploy`], [`worker`] | `tests/it/build` |
//! | Bytecode is a cache: without it, or if it is damaged, every version behaves the same | [`bundle`], [`deploy`] | `tests/it/bytecode.rs`, `worker-shim/test/compile.test.ts` |
//! | A cleanup deletes no version that is referred to, and callers of an alias do not notice it | [`store`], [`commands`] | property tests of the store, `tests/it/cleanup.rs` |
//! | Acknowledged changes are never lost | [`store`] | `tests/it/storm.rs` |
//! | Every invocation ends exactly once, and no worker runs more at once than its settings allow | [`scheduler::pool`] | property tests beside it |
//! | Workers keep to the node's caps, floors are kept, busy functions share fairly | [`scheduler::node`] | property tests and the simulation beside it, `tests/it/node.rs` |
//! | A worker dies with the daemon, and its child processes die with it; without isolation, after a `kill -9`, they die at the next start | [`worker::launch`], [`worker`] | `tests/it/process.rs`, `tests/it/worker.rs` |
//! | A function has only the access to the machine that `docs/isolation.md` grants it | [`worker::sandbox`] | `tests/it/isolation` runs each attempt at each level |
//! | A worker that breaks the shim's protocol is killed with a reason, and one that writes too much is read slowly; other workers are not affected | [`worker`] | `tests/it/rogue.rs` |
//! | A token is shown only in the answer that created it, and is valid until it is revoked or expires | [`commands`] | `tests/it/tokens.rs`, `tests/it/http/auth.rs` |
//! | A peer deploys only files that it can read itself, and a folder gives access to no file outside it | [`bundle`], [`ipc`] | `tests/it/sources.rs` swaps folders for links and reads as another user |
//! | No worker starts with a bundle other than the published one | [`bundle`], [`scheduler`] | `tests/it/integrity.rs` changes bundles on disk |
//! | A slow or greedy HTTP client can make the daemon hold only bounded memory, and no route below `/api/` answers without a token | [`http`] | `tests/it/http` |
//! | A client that violates HTTP/2 or sends an ambiguous request is disconnected, and other clients are not affected | [`http`] | `tests/it/http/http2.rs`, `tests/it/http/smuggling.rs` |
//! | The daemon reports ready once its functions are served and their kept workers are warm, and not ready once it begins to stop | [`http`], [`daemon`] | `tests/it/http/ready.rs` |
//! | A worker has one consistent set of variables; a change reaches every later invocation and fails none | [`secrets`], [`scheduler`] | `tests/it/variables.rs` |
//! | A secret is stored sealed, goes only to workers of its function, and is never shown; a row that was tampered with does not open | [`secrets`], [`store`] | `tests/it/secrets.rs` searches disk, logs and processes |
//! | A failure shows its caller only log lines of that invocation, and an unauthenticated caller no details at all | [`worker`], [`http`] | `tests/it/worker.rs`, `tests/it/http/details.rs` |
//! | A function cannot act for an origin that it shares with others, and is not a trusted local program | [`http`], [`worker`] | `tests/it/http/origin.rs`, `tests/it/http/details.rs` |
//! | A function cannot use the command socket | [`ipc`] | `tests/it/rogue.rs` |
//! | A peer can make the daemon hold only bounded memory | [`ipc`] | `tests/it/hostile.rs` |

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
