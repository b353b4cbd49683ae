//! From what a client names to a bundle that is checked and staged: the source's files, unpacked if need be, then their
//! syntax. And from a published bundle to its bytecode. Beside them the manifests that deployments leave.
//!
//! What a folder or archive lacks to be a finished bundle is not built yet: [`SourceError::NotBuilt`] is said where the
//! build would begin, between [`Source::open`] and the staging of its files.
//!
//! Nothing of a bundle here knows of versions or aliases; that the bundle also *loads* is seen by starting a worker.

mod archive;
mod bytecode;
mod listing;
mod manifests;
mod scratch;
mod source;
mod spool;
mod syntax;

pub use archive::{ArchiveError, ArchiveLimits, Format, Input, Refusal};
pub use bytecode::{NotCompiled, compile, is_candidate};
pub use listing::list;
pub use manifests::Manifests;
pub use scratch::Scratch;
pub use source::{Opened, Source, SourceError, is_finished, stored_name};
pub use spool::Spool;
pub use syntax::{BundleProblem, check};
