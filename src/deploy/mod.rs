//! From a source to a checked and staged bundle: unpacks archives, selects the files, checks their syntax. Also
//! compiles published bundles to bytecode, and keeps the manifests of deployments.
//!
//! Projects are first built into a bundle ([`build`]): their packages are installed and their entry is built.
//!
//! This module knows nothing of versions or aliases. That a bundle *loads* is checked elsewhere, by starting a worker.

mod archive;
mod build;
mod bytecode;
mod entry;
mod error;
mod listing;
mod manifests;
mod names;
mod problem;
mod project;
mod scratch;
mod source;
mod spool;
mod syntax;
mod tool;

pub use archive::{ArchiveError, ArchiveFormat, ArchiveInput, ArchiveLimits, EntryRefusal};
pub use build::{BuildError, BuildLog, BuildStep, Builder, Built};
pub use bytecode::{NotCompiled, compile, is_candidate};
pub use error::SourceError;
pub use manifests::Manifests;
pub use names::stored_name;
pub use project::{Project, SourceOptions};
pub use scratch::Scratch;
pub use source::{OpenedSource, Source, list_needed};
pub use spool::Spool;
pub use syntax::{BundleProblem, check};
pub use tool::ShimError;
