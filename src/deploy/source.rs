//! Finds a bundle's files, and the file to import.

use super::{
    Scratch, SourceError,
    archive::{self, ArchiveFormat, ArchiveInput, ArchiveLimits},
    listing::{Listed, list},
    names::{self, PACKAGE_FILE, REGISTRY_FILE},
    project::{self, Project, SourceOptions, SourcePlan},
};
use crate::{
    bundle::{Content, NotOpened, SourceEntry, SourceFolder, UnixUser},
    config::LimitsConfig,
    crash_point::crash_point,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// Longest `package.json` that is read, in bytes.
const PACKAGE_BYTES_MAX: u64 = 1 << 20;

/// Name of a bundle that was sent as bytes only.
const UPLOADED_NAME: &str = "bundle.js";

/// Origin of code.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, folder or archive on this machine, and the user whose rights apply; `None` for the rights of this
    /// process.
    Path(PathBuf, Option<Arc<UnixUser>>),
    /// Content of one file.
    Bytes(Bytes),
    /// Files by their relative path.
    Files(BTreeMap<String, Bytes>),
    /// Content of an archive.
    Archive(Bytes),
}

/// An opened source, ready to be copied.
#[derive(Debug)]
pub struct OpenedSource {
    /// Files of the bundle, or of the project to build.
    pub files: Vec<(String, Content)>,
    /// File to import or to build.
    pub entry: String,
    /// Project to build, if the files are not the bundle.
    pub project: Option<Project>,
    /// Folder of unpacked files, which is removed with this value.
    _unpacked: Option<TempDir>,
}

/// Files of a source, before their purpose is known.
struct SourceFiles {
    files: Vec<(String, Content)>,
    unpacked: Option<TempDir>,
    /// Folder of the files, if it is the caller's own. Any other file in it was left out.
    folder: Option<SourceFolder>,
}

impl Source {
    /// Finds the files of the bundle and the file to import, or the files of a project. Blocks on the disk unless the
    /// source is bytes or files.
    pub fn open(
        self,
        wanted: &SourceOptions,
        scratch: &Scratch,
        limits: &LimitsConfig,
    ) -> Result<OpenedSource, SourceError> {
        let SourceFiles { mut files, unpacked, folder } = self.find(wanted, scratch, limits)?;
        let SourcePlan { entry, project } = plan(&files, folder.as_ref(), wanted)?;
        if project.is_some() {
            files.retain(|(path, _)| !names::is_installed(path));
        } else if let Some(folder) = &folder {
            files = within(folder, list(folder, Listed::of(&entry), limits.bundle_files_max as usize)?);
        } else if unpacked.is_some() {
            files.retain(|(path, _)| path.rsplit('/').next() != Some(REGISTRY_FILE));
        }
        Ok(OpenedSource { files, entry, project, _unpacked: unpacked })
    }

    fn find(
        self,
        wanted: &SourceOptions,
        scratch: &Scratch,
        limits: &LimitsConfig,
    ) -> Result<SourceFiles, SourceError> {
        let entry = wanted.entry.as_deref();
        let from_archive = |input| {
            let (folder, files) = unpack(&input, entry, scratch, limits)?;
            Ok::<_, SourceError>(SourceFiles { files, unpacked: Some(folder), folder: None })
        };
        let alone = |files| SourceFiles { files, unpacked: None, folder: None };
        Ok(match self {
            Self::Bytes(bytes) => alone(vec![(entry.unwrap_or(UPLOADED_NAME).to_owned(), Content::Bytes(bytes))]),
            Self::Files(files) => alone(files.into_iter().map(|(path, bytes)| (path, Content::Bytes(bytes))).collect()),
            Self::Archive(bytes) => from_archive(ArchiveInput::Bytes(bytes))?,
            Self::Path(path, _) if path.is_relative() => return Err(SourceError::Relative(path)),
            Self::Path(path, user) => match look(&path, user.as_deref())? {
                NamedCode::Folder(folder) => {
                    let files = list(&folder, Listed::Project, limits.bundle_files_max as usize)?;
                    SourceFiles { files: within(&folder, files), unpacked: None, folder: Some(folder) }
                }
                NamedCode::Archive(file) => from_archive(ArchiveInput::File(file))?,
                NamedCode::Code(name, content) => alone(vec![(name, content)]),
            },
        })
    }
}

fn within(folder: &SourceFolder, names: Vec<String>) -> Vec<(String, Content)> {
    names.into_iter().map(|name| (name.clone(), Content::Within(folder.clone(), name))).collect()
}

/// Decides which of these files is the entry, and whether they are built.
///
/// `folder` is the caller's folder, if the files come from one. Any other file in it was left out.
fn plan(
    files: &[(String, Content)],
    folder: Option<&SourceFolder>,
    wanted: &SourceOptions,
) -> Result<SourcePlan, SourceError> {
    let names: BTreeSet<&str> = files.iter().map(|it| it.0.as_str()).filter(|it| !names::is_installed(it)).collect();
    let package = files.iter().find(|it| it.0 == PACKAGE_FILE).map(|it| read_package(&it.1)).transpose()?;
    let is_left_out = |name: &str| !names.contains(name) && folder.is_some_and(|it| it.has(name));
    project::plan(&names, package.as_deref(), wanted, &is_left_out)
}

fn read_package(content: &Content) -> Result<Bytes, SourceError> {
    let read = || -> io::Result<Bytes> {
        let file = match content.open()? {
            Some(file) => file,
            None => return Ok(content.bytes()),
        };
        let mut bytes = Vec::new();
        file.take(PACKAGE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    };
    let bytes = read().map_err(|error| SourceError::Package(error.to_string()))?;
    if bytes.len() as u64 > PACKAGE_BYTES_MAX {
        return Err(SourceError::Package(format!("it has more than {PACKAGE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Lists the files of a folder that a client has to send, by the rules of [`Source::open`].
pub fn list_needed(
    path: &Path,
    wanted: &SourceOptions,
    files_max: usize,
) -> Result<Vec<(String, PathBuf)>, SourceError> {
    let at_path = |cause| SourceError::NotFound { path: path.to_owned(), uid: None, cause };
    let folder = match SourceEntry::open_own(path) {
        Ok(SourceEntry::Folder(folder)) => folder,
        Ok(_) => return Err(at_path(io::ErrorKind::NotADirectory.into())),
        Err(NotOpened::Identity(cause) | NotOpened::Path(cause)) => return Err(at_path(cause)),
    };
    let mut names = list(&folder, Listed::Project, files_max)?;
    let SourcePlan { entry, project } = plan(&within(&folder, names.clone()), Some(&folder), wanted)?;
    if project.is_none() {
        names = list(&folder, Listed::of(&entry), files_max)?;
    }
    Ok(names.into_iter().map(|name| (name.clone(), path.join(name))).collect())
}

/// Code found at a path.
enum NamedCode {
    Folder(SourceFolder),
    Archive(File),
    /// Name to store the file under, and its content.
    Code(String, Content),
}

fn look(path: &Path, user: Option<&UnixUser>) -> Result<NamedCode, SourceError> {
    let uid = user.map(|it| it.uid);
    let not_found = |cause| SourceError::NotFound { path: path.to_owned(), uid, cause };
    let named = SourceEntry::open(path, user).map_err(|error| match (error, uid) {
        (NotOpened::Identity(cause), Some(uid)) => SourceError::OtherUser { uid, cause },
        (NotOpened::Identity(cause) | NotOpened::Path(cause), _) => not_found(cause),
    })?;
    let (file, real) = match named {
        SourceEntry::Folder(folder) => return Ok(NamedCode::Folder(folder)),
        SourceEntry::Other(real) if names::stored_name(&real).is_some() => {
            return Err(not_found(io::Error::other("it is not a regular file")));
        }
        SourceEntry::Other(real) => return Err(SourceError::Extension(real.to_string_lossy().into_owned())),
        SourceEntry::File(file, real) => (file, real),
    };
    let name = names::stored_name(&real);
    let input = ArchiveInput::File(file.try_clone().map_err(not_found)?);
    match (ArchiveFormat::of(&input).map_err(not_found)?, name) {
        // A text file may happen to begin like an unsupported archive.
        (None | Some(ArchiveFormat::Other(_)), Some(name)) => {
            Ok(NamedCode::Code(name, Content::Opened(Arc::new(file), real)))
        }
        (None, None) => Err(SourceError::Extension(real.to_string_lossy().into_owned())),
        (Some(_), _) => Ok(NamedCode::Archive(file)),
    }
}

/// Unpacks an archive into a new folder. If all its files are in one folder, that folder is the bundle.
fn unpack(
    input: &ArchiveInput,
    entry: Option<&str>,
    scratch: &Scratch,
    limits: &LimitsConfig,
) -> Result<(TempDir, Vec<(String, Content)>), SourceError> {
    let limits = ArchiveLimits {
        bytes_max: limits.bundle_bytes_max.into(),
        files_max: limits.bundle_files_max as usize,
        ratio_max: limits.archive_ratio_max.into(),
        time_max: limits.archive_timeout(),
    };
    let folder = scratch.folder().map_err(SourceError::Scratch)?;
    let paths = archive::unpack(input, folder.path(), limits)?;
    crash_point("archive.unpacked");
    let prefix = wrapper(&paths, entry);
    let file = |path: &String| (path[prefix.len()..].to_owned(), Content::File(folder.path().join(path)));
    let files = paths.iter().map(file).collect();
    Ok((folder, files))
}

/// Returns the folder that contains all files, with its slash, as `tar czf x.tgz folder/` makes it; empty if there is
/// none, or if `entry` includes it.
fn wrapper<'a>(paths: &'a [String], entry: Option<&str>) -> &'a str {
    let Some(end) = paths.first().and_then(|it| it.find('/')) else { return "" };
    let prefix = &paths[0][..=end];
    let is_named = entry.is_some_and(|entry| paths.iter().any(|it| it == entry));
    if !is_named && paths.iter().all(|it| it.starts_with(prefix)) { prefix } else { "" }
}

#[cfg(test)]
mod tests {
    use super::{super::ArchiveError, *};
    use std::{fs, io::Write as _};

    fn files(names: &[&str]) -> Source {
        Source::Files(names.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect())
    }

    /// Opens a source. Returns the sorted names of its files, and the file to import.
    fn open(source: Source, entry: Option<&str>) -> Result<(Vec<String>, String), SourceError> {
        let data = tempfile::tempdir().expect("a folder");
        let scratch = Scratch::open(data.path().join("incoming")).expect("a scratch folder");
        let limits = LimitsConfig { bundle_files_max: 10, ..LimitsConfig::default() };
        let wanted = SourceOptions { entry: entry.map(Into::into), build: None };
        let opened = source.open(&wanted, &scratch, &limits)?;
        let mut names: Vec<_> = opened.files.into_iter().map(|(name, _)| name).collect();
        names.sort();
        Ok((names, opened.entry))
    }

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it is below the folder")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        folder
    }

    fn archive(names: &[&str]) -> Bytes {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            builder.append_data(&mut header, name, io::empty()).expect("memory takes it");
        }
        builder.into_inner().expect("memory takes it").into()
    }

    #[test]
    fn the_entry_is_named_found_or_asked_for() {
        let entry = |source: Source, entry: Option<&str>| open(source, entry).map(|(_, it)| it);
        assert_eq!(entry(Source::Bytes(Bytes::new()), None).expect("one file"), "bundle.js");
        assert_eq!(entry(files(&["lib.ts", "index.ts"]), None).expect("index"), "index.ts");
        assert_eq!(entry(files(&["index.ts", "bundle.js"]), None).expect("bundle"), "bundle.js");
        assert_eq!(entry(files(&["only.mjs"]), None).expect("one file"), "only.mjs");
        assert!(matches!(entry(files(&["a.ts", "b.ts"]), None), Err(SourceError::SeveralEntries(_))));
        assert!(matches!(entry(files(&["lib/a.ts", "package.json"]), None), Err(SourceError::NoEntry)));
        assert!(matches!(entry(files(&["a.ts", "b.py"]), Some("b.py")), Err(SourceError::Extension(_))));
        assert!(matches!(entry(files(&[]), None), Err(SourceError::Empty)));
    }

    #[test]
    fn a_folder_an_archive_and_an_upload_have_the_same_entry() {
        for (names, entry) in [
            (&["function.ts", "README.md"][..], Some("function.ts")),
            (&["handler.mts", "lib/index.ts", "a.ts"], Some("handler.mts")),
            (&["hello.ts", "hello.test.ts", "vite.config.ts", "types.d.ts", "lib/a.ts"], Some("hello.ts")),
            (&["Index.ts", "index.ts"], Some("index.ts")),
            (&["src/server.tsx", "README.md"], Some("src/server.tsx")),
            (&["main.ts", "src/main.ts", "src/app.ts"], Some("main.ts")),
            (&["main.ts", "app.cjs"], None),
            (&["a.ts", "A.ts"], None),
            (&["README.md", "index.test.ts"], None),
        ] {
            let contents: Vec<_> = names.iter().map(|it| (*it, "")).collect();
            let folder = folder(&contents);
            let path = || Source::Path(folder.path().into(), None);
            for source in [path(), Source::Archive(archive(names)), files(names)] {
                let found = open(source, None).map(|it| it.1);
                match (&found, entry) {
                    (Ok(found), Some(entry)) => assert_eq!(found, entry),
                    (Err(SourceError::SeveralEntries(_) | SourceError::NoEntry), None) => {}
                    _ => panic!("{names:?}: {found:?}"),
                }
            }
            let needed = list_needed(folder.path(), &SourceOptions::default(), 10);
            assert_eq!(needed.map(|it| it.len()).ok(), entry.map(|_| names.len()), "{names:?}");
        }
    }

    #[test]
    fn a_folder_is_read_without_what_is_no_part_of_it() {
        let path = |folder: &TempDir| Source::Path(folder.path().into(), None);
        let source = folder(&[("index.ts", ""), ("lib/a.ts", ""), (".env", ""), ("lib/.git/config", "")]);
        let wanted = (vec!["index.ts".to_owned(), "lib/a.ts".into()], "index.ts".to_owned());
        assert_eq!(open(path(&source), None).expect("a bundle"), wanted);
        assert!(matches!(open(Source::Path("x".into(), None), None), Err(SourceError::Relative(_))));
        let names: Vec<_> = (0..11).map(|it| format!("{it}.ts")).collect();
        let many = folder(&names.iter().map(|it| (it.as_str(), "")).collect::<Vec<_>>());
        assert!(matches!(open(path(&many), None), Err(SourceError::TooManyFiles { max: 10, .. })));

        let ignored = folder(&[(".gitignore", "bundle.js\ndist"), ("bundle.js", ""), ("dist/a.js", ""), ("a.ts", "")]);
        let is_left_out = |entry| matches!(open(path(&ignored), entry), Err(SourceError::LeftOut(_)));
        assert!(is_left_out(Some("dist/a.js")));
        // The only file that is not left out is not taken as the entry.
        assert!(is_left_out(None));
        fs::write(ignored.path().join(".levainignore"), "!bundle.js").expect("a file");
        assert_eq!(open(path(&ignored), None).expect("a bundle").1, "bundle.js");

        let finished = folder(&[("bundle.js", ""), ("index.ts", ""), ("node_modules/a.js", "")]);
        assert_eq!(open(path(&finished), None).expect("a bundle").0, ["bundle.js", "index.ts"]);
        assert_eq!(open(path(&finished), Some("index.ts")).expect("a bundle").0.len(), 3);
    }

    #[test]
    fn an_archive_is_told_by_its_content_and_its_one_folder_is_the_bundle() {
        let both = |names: &[&str], entry: Option<&str>| {
            let bytes = archive(names);
            let file = folder(&[("x.js", "")]);
            let path = file.path().join("x.js");
            File::create(&path).and_then(|mut it| it.write_all(&bytes)).expect("a file");
            let from_path = open(Source::Path(path, None), entry).expect("a bundle");
            assert_eq!(open(Source::Archive(bytes), entry).expect("a bundle"), from_path);
            from_path
        };
        let strings = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(both(&["f/index.ts", "f/lib/a.ts"], None), (strings(&["index.ts", "lib/a.ts"]), "index.ts".into()));
        assert_eq!(both(&["f/g/index.ts"], None), (strings(&["g/index.ts"]), "g/index.ts".into()));
        assert_eq!(both(&["index.ts", "f/a.ts"], None), (strings(&["f/a.ts", "index.ts"]), "index.ts".into()));
        let named = (strings(&["f/a.ts", "f/b.ts"]), "f/b.ts".into());
        assert_eq!(both(&["f/a.ts", "f/b.ts"], Some("f/b.ts")), named);
        assert_eq!(both(&["f/a.ts", "f/b.ts"], Some("b.ts")).1, "b.ts");
        assert_eq!(both(&["f/index.ts", "ff/a.ts"], Some("ff/a.ts")).0.len(), 2);
        let text = folder(&[("x.js", "BZhello()"), ("x.txt", "BZhello()")]);
        assert_eq!(open(Source::Path(text.path().join("x.js"), None), None).expect("code").1, "x.js");
        let other = open(Source::Path(text.path().join("x.txt"), None), None);
        assert!(matches!(other, Err(SourceError::Archive(ArchiveError::Format("bzip2")))), "{other:?}");
    }
}
