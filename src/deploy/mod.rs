//! From what a client names to a bundle that is checked and staged: the source's files, then its syntax. And from a
//! published bundle to its bytecode.
//!
//! Nothing here knows of versions or aliases; that the bundle also *loads* is seen by starting a worker.

mod bytecode;
mod source;
mod syntax;

pub use bytecode::{NotCompiled, compile, is_candidate};
pub use source::{Source, SourceError};
pub use syntax::{BundleProblem, check};
