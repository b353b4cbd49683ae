//! From what a client names to a bundle that is checked and staged: the source's files, then its syntax.
//!
//! Nothing here knows of versions, aliases or workers; that the bundle also *loads* is seen by starting a worker.

mod source;
mod syntax;

pub use source::{Source, SourceError};
pub use syntax::{BundleProblem, check};
