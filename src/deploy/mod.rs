//! From what a client names to a bundle that is checked and staged: the source's files, then its syntax. And from a
//! published bundle to its bytecode. Beside them the manifests that deployments leave.
//!
//! Nothing of a bundle here knows of versions or aliases; that the bundle also *loads* is seen by starting a worker.

mod bytecode;
mod manifests;
mod source;
mod syntax;

pub use bytecode::{NotCompiled, compile, is_candidate};
pub use manifests::Manifests;
pub use source::{Source, SourceError};
pub use syntax::{BundleProblem, check};
