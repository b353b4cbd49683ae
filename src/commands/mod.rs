//! The commands, whichever face they come through: the command socket or HTTP.
//!
//! A command is the `impl Command` of its request type, in a file of its own with a test file of the same name;
//! `dispatch` finds it by the table of commands. Commands that change something run to their end once they have begun,
//! even when the caller leaves; those that first load or build something can be cancelled until they commit
//! ([`cancel`]). Three rooms hold what is more than one command: [`access`], who may do what; [`placement`], pointing an
//! alias at a version; [`keepers`], the tasks that run as long as the daemon.

mod access;
mod aliases;
mod approval;
mod backup;
mod build;
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
mod error_map;
mod functions;
mod idempotency;
mod invoke;
mod keepers;
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
mod secrets;
mod status;
mod texts;
mod traffic;
mod variables;
mod versions;
mod warmup;

pub use access::{
    ADMIN_TOKEN_FILE, About, AdminTokenError, Authority, Needs, SCOPES, TokenRights, ensure_admin_token, needs,
    token_missing,
};
pub use call::{Call, Failed, call, check_head, check_method};
pub use caller::{Caller, CallerGone, Part, Partials};
pub use context::{Code, Context, HttpPlace, Wakes, entry};
pub use dispatch::{Response, execute, run};
pub use keepers::{keep_compiled, keep_expiring, keep_previews, keep_secret_audit, keep_token_uses, keep_watch};
pub use locks::Locks;
pub use previews::HOST_SEPARATOR;
pub use secrets::{OpenVariablesError, open_variables};
pub use status::disk;

use context::shutting_down;
use dispatch::Command;
