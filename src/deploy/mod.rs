//! From what a client names to a bundle that is checked and staged: the source's files, unpacked if need be, then their
//! syntax. And from a published bundle to its bytecode. Beside them the manifests that deployments leave.
//!
//! What is no finished bundle becomes one in between ([`build`]): its packages are installed and its entry is built.
//!
//! Nothing of a bundle here knows of versions or aliases; that the bundle also *loads* is seen by starting a worker.

mod archive;
mod build;
mod bytecode;
mod listing;
mod manifests;
mod scratch;
mod source;
mod spool;
mod syntax;
mod tool;

pub use archive::{ArchiveError, ArchiveLimits, Format, Input, Refusal};
pub use build::{BuildError, BuildLog, Builder, Built, Project, Step, Wanted};
pub use bytecode::{NotCompiled, compile, is_candidate};
pub use manifests::Manifests;
pub use scratch::Scratch;
pub use source::{Opened, Source, SourceError, list_needed, stored_name};
pub use spool::Spool;
pub use syntax::{BundleProblem, check};
pub use tool::ShimError;
