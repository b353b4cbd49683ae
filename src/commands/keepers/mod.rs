//! Tasks that run as long as the daemon, each with one thing to keep as it should be.

mod approvals;
mod bytecode;
mod previews;
mod secret_audit;
mod token_uses;
mod watch;

pub use approvals::keep_expiring;
pub use bytecode::keep_compiled;
pub use previews::keep_previews;
pub use secret_audit::keep_secret_audit;
pub use token_uses::keep_token_uses;
pub use watch::keep_watch;
