//! Which files a bundle has and which of them is imported.

use crate::bundle::Content;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Endings of files Bun can import.
const EXTENSIONS: [&str; 8] = ["js", "mjs", "cjs", "ts", "mts", "cts", "jsx", "tsx"];

/// Names of the file that is imported, without ending, best first.
const ENTRY_NAMES: [&str; 2] = ["bundle", "index"];

/// The name of a bundle that came as bytes only.
const UPLOADED_NAME: &str = "bundle.js";

/// Where code comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file or folder on this machine.
    Path(PathBuf),
    /// The bytes of one file.
    Bytes(Bytes),
    /// Files by their relative path.
    Files(BTreeMap<String, Bytes>),
}

/// A source that is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is nothing at the path.
    #[error("`{}` does not exist on the daemon's machine, or the daemon may not read it: {cause}", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The path is relative.
    #[error("`{}` is relative: the daemon does not know your working directory, so give an absolute path", .0.display())]
    Relative(PathBuf),
    /// There is nothing in it.
    #[error("the bundle has no files")]
    Empty,
    /// A file has no ending Bun can import.
    #[error(
        "`{0}` is not JavaScript or TypeScript: the file to import must end in .js, .mjs, .cjs, .ts, .mts, .cts, .jsx or .tsx"
    )]
    Extension(String),
    /// It is not clear what to import.
    #[error("the bundle has no `bundle` or `index` file to import (such as index.ts): name one with `entry`")]
    NoEntry,
    /// A name that is not UTF-8.
    #[error("`{}` is not a UTF-8 name", .0.display())]
    Name(PathBuf),
    /// There are more files than any bundle may have.
    #[error("`{}` has more than {max} files", path.display())]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
}

impl Source {
    /// The files of the bundle and the one to import. Blocks on the disk for [`Source::Path`].
    pub fn files(
        self,
        entry: Option<String>,
        files_max: usize,
    ) -> Result<(Vec<(String, Content)>, String), SourceError> {
        let files = match self {
            Self::Bytes(bytes) => {
                let name = entry.clone().unwrap_or_else(|| UPLOADED_NAME.into());
                vec![(name, Content::Bytes(bytes))]
            }
            Self::Files(files) => files.into_iter().map(|(path, bytes)| (path, Content::Bytes(bytes))).collect(),
            Self::Path(path) if path.is_relative() => return Err(SourceError::Relative(path)),
            Self::Path(path) => read_path(&path, files_max)?,
        };
        let entry = match entry {
            Some(entry) => entry,
            None => find_entry(&files)?,
        };
        match extension(&entry) {
            Some(it) if EXTENSIONS.contains(&it) => Ok((files, entry)),
            _ => Err(SourceError::Extension(entry)),
        }
    }
}

fn extension(path: &str) -> Option<&str> {
    Path::new(path).extension()?.to_str()
}

fn find_entry(files: &[(String, Content)]) -> Result<String, SourceError> {
    if let [(only, _)] = files {
        return Ok(only.clone());
    }
    if files.is_empty() {
        return Err(SourceError::Empty);
    }
    let candidates = ENTRY_NAMES.iter().flat_map(|name| EXTENSIONS.iter().map(move |it| format!("{name}.{it}")));
    let mut candidates = candidates.filter(|candidate| files.iter().any(|(path, _)| path == candidate));
    candidates.next().ok_or(SourceError::NoEntry)
}

fn read_path(path: &Path, files_max: usize) -> Result<Vec<(String, Content)>, SourceError> {
    let not_found = |cause| SourceError::NotFound { path: path.to_owned(), cause };
    if fs::metadata(path).map_err(not_found)?.is_dir() {
        let mut files = Vec::new();
        read_folder(path, "", &mut files, files_max)?;
        return Ok(files);
    }
    // Following a link is right here: it is what the caller named.
    let path = path.canonicalize().map_err(not_found)?;
    let ending = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
    // One file is stored under one name, whatever it was called, so that its version always looks the same.
    let name = if EXTENSIONS.contains(&ending) {
        format!("bundle.{ending}")
    } else {
        return Err(SourceError::Extension(path.to_string_lossy().into_owned()));
    };
    Ok(vec![(name, Content::File(path))])
}

/// Adds all files below `folder`, hidden ones apart: those hold tools' own data, and often secrets.
fn read_folder(
    folder: &Path,
    prefix: &str,
    files: &mut Vec<(String, Content)>,
    files_max: usize,
) -> Result<(), SourceError> {
    let at_folder = |cause| SourceError::NotFound { path: folder.to_owned(), cause };
    for child in fs::read_dir(folder).map_err(at_folder)? {
        let child = child.map_err(at_folder)?;
        let path = child.path();
        let name = child.file_name().into_string().map_err(|_| SourceError::Name(path.clone()))?;
        if name.starts_with('.') {
            continue;
        }
        let inside = format!("{prefix}{name}");
        if child.file_type().map_err(at_folder)?.is_dir() {
            read_folder(&path, &format!("{inside}/"), files, files_max)?;
        } else {
            files.push((inside, Content::File(path)));
        }
        if files.len() > files_max {
            return Err(SourceError::TooManyFiles { path: folder.to_owned(), max: files_max });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Source {
        Source::Files(names.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect())
    }

    #[test]
    fn the_entry_is_named_found_or_asked_for() {
        let entry = |source: Source, entry: Option<&str>| source.files(entry.map(Into::into), 10).map(|(_, it)| it);
        assert_eq!(entry(Source::Bytes(Bytes::new()), None).expect("one file"), "bundle.js");
        assert_eq!(entry(files(&["lib.ts", "index.ts"]), None).expect("index"), "index.ts");
        assert_eq!(entry(files(&["index.ts", "bundle.js"]), None).expect("bundle"), "bundle.js");
        assert_eq!(entry(files(&["only.mjs"]), None).expect("one file"), "only.mjs");
        assert!(matches!(entry(files(&["a.ts", "b.ts"]), None), Err(SourceError::NoEntry)));
        assert!(matches!(entry(files(&["a.ts", "b.py"]), Some("b.py")), Err(SourceError::Extension(_))));
        assert!(matches!(entry(files(&[]), None), Err(SourceError::Empty)));
    }

    #[test]
    fn a_folder_is_read_without_its_hidden_files() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("lib/.git")).expect("folders");
        for name in ["index.ts", "lib/a.ts", ".env", "lib/.git/config"] {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        let (mut files, entry) = Source::Path(folder.path().into()).files(None, 10).expect("a bundle");
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, entry.as_str()), (vec!["index.ts", "lib/a.ts"], "index.ts"));
        assert!(matches!(Source::Path("x".into()).files(None, 10), Err(SourceError::Relative(_))));
        assert!(matches!(Source::Path(folder.path().into()).files(None, 1), Err(SourceError::TooManyFiles { .. })));
    }
}
