//! From a source to a checked and staged bundle: unpacks archives, selects the files, checks their syntax. Also
//! compiles published bundles to bytecode, and keeps the manifests of deployments.
//!
//! Projects are first built into a bundle ([`build`]): their packages are installed and their entry is built.
//!
//! This module knows nothing of versions or aliases. That a bundle *loads* is checked elsewhere, by starting a worker.

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
