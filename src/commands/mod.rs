//! The commands, whichever face they come through: the command socket or HTTP.
//!
//! A command is the `impl Command` of its request type, in a file of its own with a test file of the same name;
//! `dispatch` finds it by the table of commands. Commands that change something run to their end once they have begun,
//! even when the caller leaves; those that first load or build something can be cancelled until they commit
//! ([`cancel`]).

mod admin_token;
mod aliases;
mod approval;
mod auth;
mod backup;
mod build;
mod bytecode;
mod call;
mod caller;
mod cancel;
mod cleanup;
mod compare;
mod context;
mod delete;
mod deploy;
mod dispatch;
mod environments;
mod explain;
mod failures;
mod functions;
mod idempotency;
mod invoke;
mod locks;
mod logs;
mod manifests;
mod metrics;
mod page;
mod placement;
mod policy;
mod previews;
mod promotion;
mod register;
mod rollback;
mod rollout;
mod scopes;
mod secrets;
mod status;
mod texts;
mod tokens;
mod traffic;
mod variables;
mod versions;
mod warmup;

pub use admin_token::{ADMIN_TOKEN_FILE, AdminTokenError, ensure_admin_token};
pub use approval::keep_expiring;
pub use auth::{Authority, Grant, token_missing};
pub use bytecode::keep_compiled;
pub use call::{Call, Failed, call, check_head, check_method};
pub use caller::{Caller, CallerGone, Part, Partials};
pub use context::{Context, HttpPlace, entry};
pub use dispatch::{Response, execute, run};
pub use locks::{ChangeLocks, ClaimedKeys};
pub use policy::keep_watch;
pub use previews::{HOST_SEPARATOR, keep_previews};
pub use scopes::{About, Needs, SCOPES, needs};
pub use secrets::{OpenVariablesError, keep_secret_audit, open_variables};
pub use status::disk;
pub use tokens::keep_token_uses;

use context::shutting_down;
use dispatch::Command;
