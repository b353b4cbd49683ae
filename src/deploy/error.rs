//! Errors of sources.

use super::archive::ArchiveError;
use std::{io, path::PathBuf};

/// A source that does not yield a bundle.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SourceError {
    #[error(
        "`{}` does not exist on the daemon's machine, or it may not be read with the rights of {}: {cause}",
        path.display(), uid.map_or_else(|| "the daemon".to_owned(), |it| format!("user {it}"))
    )]
    NotFound {
        path: PathBuf,
        /// User whose rights were not enough, if not the daemon's own.
        uid: Option<u32>,
        cause: io::Error,
    },
    /// The daemon cannot take the identity of the user who names the path.
    #[error(
        "the daemon reads paths with your rights only, and cannot read as user {uid} ({cause}): send the code \
         itself, with `levain deploy --upload`, or as `bundle`, `files` or `archive`"
    )]
    OtherUser { uid: u32, cause: io::Error },
    #[error("`{}` is relative: the daemon does not know your working directory, so give an absolute path", .0.display())]
    Relative(PathBuf),
    #[error("the bundle has no files")]
    Empty,
    #[error(
        "`{0}` is not JavaScript or TypeScript, nor an archive: the file to import must end in .js, .mjs, .cjs, .ts, \
         .mts, .cts, .jsx or .tsx; archives are tar, tar.gz or zip"
    )]
    Extension(String),
    #[error("it is not clear which of {} is the file to import: name it with `entry`", list(.0))]
    SeveralEntries(Vec<String>),
    #[error(
        "no file to import is found: name it with `entry`, or in `module` of a package.json, or call it index, function, \
         handler, main, app, server or worker, such as index.ts or src/index.ts"
    )]
    NoEntry,
    #[error("the file to build, `{0}`, is missing")]
    EntryMissing(String),
    #[error(
        "package.json lists dependencies, and there is no lockfile that fixes their versions: run `bun install`, and keep \
         the bun.lock that it writes beside package.json (bun.lockb, package-lock.json, yarn.lock and pnpm-lock.yaml do, \
         too); or deploy it with its node_modules and without a build (`--no-build`)"
    )]
    NoLockfile,
    #[error("package.json cannot be read: {0}")]
    Package(String),
    #[error("`{0}` is left out by a .gitignore or .levainignore: include it with a line `!{0}` in .levainignore")]
    LeftOut(String),
    #[error("the rules in {} cannot be read: {reason}", path.display())]
    IgnoreFile { path: PathBuf, reason: String },
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the folder to unpack the archive to cannot be created: {0}")]
    Scratch(#[source] io::Error),
    #[error("`{}` is not a UTF-8 name", .0.display())]
    Name(PathBuf),
    #[error("`{}` has more than {max} files", path.display())]
    TooManyFiles { path: PathBuf, max: usize },
}

/// Number of files that an error lists.
const LISTED_MAX: usize = 8;

fn list(files: &[String]) -> String {
    let shown: Vec<_> = files.iter().take(LISTED_MAX).map(|it| format!("`{it}`")).collect();
    match files.len().saturating_sub(LISTED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
