//! The master key, and the files that hold it.
//!
//! ```text
//! secrets.master_key_file ─▶ that file, given by a service manager: read, never written
//! LEVAIN_MASTER_KEY       ─▶ the key itself
//! neither                 ─▶ data/master.key, mode 0600, made when the first secret is set
//! ```
//!
//! The database records which key its secrets are sealed with ([`KeyId`]). A rotation of the daemon's own key has these
//! steps:
//!
//! ```text
//!                               master.key   master.key.next
//! write the new key beside it      old            new
//! exchange their names             new            old          a failing rename shows here, before anything has changed
//! the transaction                  new            old          seals all data keys with the new key, and records its id
//! remove the old one               new
//! ```
//!
//! **Invariant.** Wherever a rotation fails or is interrupted, one of the two files holds the key that the database
//! names. A file is removed or overwritten only after the other is known to hold that key.

use super::error::{KEY_VARIABLE, KeyId, SecretError};
use crate::{crash_point::crash_point, model::hex};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// File of the master key in the data directory.
const MASTER_KEY_FILE: &str = "master.key";

/// File of the other key during a rotation.
const NEXT_FILE: &str = "master.key.next";

const KEY_BYTES: usize = 32;

/// Most bytes read from a key's file; a valid one is much shorter.
const FILE_BYTES_MAX: u64 = 4_096;

/// The key that the data keys of all secrets are sealed with. Wiped on drop.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    id: KeyId,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MasterKey {
    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let hash = Sha256::new().chain_update("levain master key id 1").chain_update(bytes.as_ref()).finalize();
        let id = KeyId(hex::encode(&hash[..8]));
        Self { bytes, id }
    }

    /// Generates a random key.
    pub fn generate() -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(|_| SecretError::Random)?;
        Ok(Self::new(bytes))
    }

    /// Parses 64 hexadecimal digits. Surrounding blanks are ignored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hex::decode(text.trim(), bytes.as_mut())?;
        Some(Self::new(bytes))
    }

    fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
        let _ = hex::write(self.bytes.as_ref(), &mut *text);
        text.push('\n');
        text
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// Returns the key's id.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }
}

/// Source of the master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The daemon's own file in this data directory.
    Own(PathBuf),
    /// A file that is managed outside the daemon.
    Given(PathBuf),
    /// The environment variable [`KEY_VARIABLE`].
    Variable,
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(folder) => write!(f, "{}", folder.join(MASTER_KEY_FILE).display()),
            Self::Given(path) => write!(f, "{}", path.display()),
            Self::Variable => write!(f, "the variable {KEY_VARIABLE}"),
        }
    }
}

impl KeySource {
    /// Determines the source from the configuration and the environment.
    #[must_use]
    pub fn find(configured: &str, data_dir: &Path) -> Self {
        if !configured.is_empty() {
            return Self::Given(configured.into());
        }
        match std::env::var_os(KEY_VARIABLE).is_some_and(|it| !it.is_empty()) {
            true => Self::Variable,
            false => Self::Own(data_dir.to_owned()),
        }
    }

    /// Reads the key; returns `None` if there is no key. After an interrupted rotation it returns the key that the
    /// database names.
    pub fn read(&self, wanted: Option<&KeyId>) -> Result<Option<MasterKey>, SecretError> {
        match self {
            Self::Variable => {
                let text = Zeroizing::new(std::env::var(KEY_VARIABLE).unwrap_or_default());
                MasterKey::parse(&text)
                    .map(Some)
                    .ok_or_else(|| SecretError::Unreadable { from: self.to_string(), what: NO_KEY.to_owned() })
            }
            Self::Given(path) => read_file(path, GIVEN_FORBIDDEN),
            Self::Own(folder) => read_own(folder, wanted),
        }
    }

    /// Creates the first key.
    pub fn make(&self) -> Result<MasterKey, SecretError> {
        let Self::Own(folder) = self else { return Err(SecretError::NoKey { from: self.to_string() }) };
        let key = MasterKey::generate()?;
        // The key gets its final name before this returns, and no secret is sealed earlier.
        write_file(&folder.join(NEXT_FILE), &key)?;
        rename_next(folder)?;
        Ok(key)
    }

    /// Returns the new key of a rotation: a generated key that takes the current key's place, or the key that the given
    /// file holds now. On failure the current key stays in its place. [`settle`](Self::settle) ends the rotation in
    /// either case.
    pub fn next(&self, present: &MasterKey) -> Result<MasterKey, SecretError> {
        match self {
            Self::Own(folder) => {
                // The file that an earlier rotation has left may be the current key itself.
                self.settle(present.id())?;
                let path = folder.join(MASTER_KEY_FILE);
                match read_file(&path, OWN_FORBIDDEN)? {
                    Some(found) if found.id() != present.id() => {
                        let (found, wanted) = (found.id().clone(), present.id().clone());
                        return Err(SecretError::WrongKey { from: path.display().to_string(), found, wanted });
                    }
                    _ => {}
                }
                let key = MasterKey::generate()?;
                write_file(&folder.join(NEXT_FILE), &key)?;
                crash_point("secrets.next_key");
                if let Err(error) = exchange(folder) {
                    // The first error is reported. If settling fails too, both files stay.
                    let _ = self.settle(present.id());
                    return Err(error);
                }
                Ok(key)
            }
            Self::Given(path) => match read_file(path, GIVEN_FORBIDDEN)? {
                Some(key) if key.id() != present.id() => Ok(key),
                _ => Err(SecretError::SameKey(path.clone())),
            },
            Self::Variable => Err(SecretError::FixedKey),
        }
    }

    /// Leaves one file, `master.key`, with the key that the database names. If neither file holds that key, both stay.
    pub fn settle(&self, in_force: &KeyId) -> Result<(), SecretError> {
        let Self::Own(folder) = self else { return Ok(()) };
        let next = folder.join(NEXT_FILE);
        let holds = |path: &Path| {
            let key = read_file(path, OWN_FORBIDDEN).ok().flatten();
            key.is_some_and(|it| it.id() == in_force)
        };
        if !next.try_exists().map_err(|cause| SecretError::file(&next, cause))? {
            return Ok(());
        }
        if holds(&folder.join(MASTER_KEY_FILE)) {
            let removed = fs::remove_file(&next).and_then(|()| File::open(folder)?.sync_all());
            return removed.map_err(|cause| SecretError::file(&next, cause));
        }
        if holds(&next) {
            return rename_next(folder);
        }
        Err(SecretError::Unreadable { from: next.display().to_string(), what: NOT_IN_FORCE.to_owned() })
    }
}

/// Reads the key in the data directory; after an interrupted rotation, the key that the database names. That key is
/// accepted from `master.key.next` too, so that a failure to tidy up does not prevent a start.
fn read_own(folder: &Path, wanted: Option<&KeyId>) -> Result<Option<MasterKey>, SecretError> {
    let present = read_file(&folder.join(MASTER_KEY_FILE), OWN_FORBIDDEN);
    let next = folder.join(NEXT_FILE);
    let Some(wanted) = wanted else { return present };
    let is_wanted = |it: &MasterKey| it.id() == wanted;
    let beside = || read_file(&next, OWN_FORBIDDEN).ok().flatten().filter(is_wanted);
    let key = match present {
        Ok(Some(key)) if is_wanted(&key) => key,
        present => match beside() {
            Some(key) => key,
            None => return present,
        },
    };
    if let Err(error) = KeySource::Own(folder.to_owned()).settle(wanted) {
        tracing::warn!(key = %wanted, "cannot tidy up {} after a rotation of the master key; the file stays: {error}", next.display());
    }
    Ok(Some(key))
}

/// Forbidden mode bits of the daemon's own file: any access by the group or others.
const OWN_FORBIDDEN: u32 = 0o077;

/// Forbidden mode bits of a given file: any access except reading by its group. The group bits may be the mask of an
/// access control list, which is how service managers provide such files.
const GIVEN_FORBIDDEN: u32 = 0o027;

const NO_KEY: &str = "it does not hold a key of 64 hexadecimal digits";

const NOT_IN_FORCE: &str = "neither it nor master.key holds the key that secrets are encrypted with; \
     keep both files, and move this one away";

fn read_file(path: &Path, forbidden: u32) -> Result<Option<MasterKey>, SecretError> {
    let failed = |cause| SecretError::file(path, cause);
    let unreadable = |what: String| SecretError::Unreadable { from: path.display().to_string(), what };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(unreadable("it is a folder; replace it with the file of the key".to_owned()));
    }
    let mode = metadata.mode() & 0o777;
    if mode & forbidden != 0 {
        let shown = path.display();
        let (who, allowed) = match forbidden {
            GIVEN_FORBIDDEN => (
                "users other than its owner and its group may read it, or users other than its owner may write it",
                640,
            ),
            _ => ("users other than its owner may read or write it", 600),
        };
        let what = format!(
            "{who} (mode {mode:04o}): anyone who has read it can decrypt every secret; \
             run `chmod {allowed} {shown}`, and rotate the key and the secrets if somebody may have read it"
        );
        return Err(unreadable(what));
    }
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    MasterKey::parse(&text).map(Some).ok_or_else(|| unreadable(NO_KEY.to_owned()))
}

/// Writes a key's file. The file and its name are on disk when this returns.
fn write_file(path: &Path, key: &MasterKey) -> Result<(), SecretError> {
    let write = || {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(key.text().as_bytes())?;
        file.sync_all()?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|cause| {
        // Half a key is useless. The caller has made sure that the path held no valid key before.
        let _ = fs::remove_file(path);
        SecretError::file(path, cause)
    })
}

/// Renames `master.key.next` to `master.key`. The change is on disk when this returns.
fn rename_next(folder: &Path) -> Result<(), SecretError> {
    let path = folder.join(MASTER_KEY_FILE);
    let renamed = fs::rename(folder.join(NEXT_FILE), &path).and_then(|()| File::open(folder)?.sync_all());
    renamed.map_err(|cause| SecretError::file(&path, cause))
}

/// Exchanges the names of `master.key` and `master.key.next`. The change is on disk when this returns.
fn exchange(folder: &Path) -> Result<(), SecretError> {
    let (path, next) = (folder.join(MASTER_KEY_FILE), folder.join(NEXT_FILE));
    let failed = |cause| SecretError::file(&path, cause);
    match renameat2(AT_FDCWD, &next, AT_FDCWD, &path, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => File::open(folder).and_then(|it| it.sync_all()).map_err(failed),
        // There is no current file, or the file system does not support the exchange: `settle` renames the new file
        // after the transaction.
        Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(failed(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_is_for_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = KeySource::Own(folder.path().to_owned());
        assert!(source.read(None).expect("no file is no error").is_none());
        let made = source.make().expect("it can be made");
        let path = folder.path().join(MASTER_KEY_FILE);
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        assert_eq!(source.read(None).expect("it reads").expect("a key").id(), made.id());
        assert!(!format!("{made:?}").contains(made.text().trim()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
        let error = source.read(None).expect_err("it is open to all").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        fs::write(&path, "hunter22").expect("a file");
        let error = source.read(None).expect_err("the text is not a key").to_string();
        assert!(error.contains("64 hexadecimal digits") && !error.contains("hunter"), "{error}");
    }

    #[test]
    fn wherever_a_rotation_is_cut_off_the_key_that_counts_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = KeySource::Own(folder.path().to_owned());
        let old = source.make().expect("it can be made");
        let next = source.next(&old).expect("another one");
        // Before the transaction, the database names the old key.
        assert_eq!(source.read(Some(old.id())).expect("it reads").expect("a key").id(), old.id());
        assert!(!folder.path().join(NEXT_FILE).exists(), "the unused key is removed");
        drop(next);
        // After the transaction, the database names the new key, and its file gets the final name.
        let next = source.next(&old).expect("another one");
        assert_eq!(source.read(Some(next.id())).expect("it reads").expect("a key").id(), next.id());
        assert_eq!(source.read(Some(next.id())).expect("it reads").expect("a key").id(), next.id());
        // A half-written file is ignored.
        fs::write(folder.path().join(NEXT_FILE), "12").expect("a file");
        assert_eq!(source.read(Some(next.id())).expect("it reads").expect("a key").id(), next.id());
    }

    /// Builds a folder with the current key in `master.key.next`, and a folder in the place of `master.key`, which
    /// prevents the rename.
    fn stuck() -> (tempfile::TempDir, KeySource, MasterKey) {
        let folder = tempfile::tempdir().expect("a folder");
        let source = KeySource::Own(folder.path().to_owned());
        let key = MasterKey::generate().expect("bytes");
        write_file(&folder.path().join(NEXT_FILE), &key).expect("a file");
        fs::create_dir_all(folder.path().join(MASTER_KEY_FILE).join("in the way")).expect("a folder");
        (folder, source, key)
    }

    #[test]
    fn a_key_that_cannot_get_its_name_is_used_and_kept() {
        let (folder, source, key) = stuck();
        assert_eq!(source.read(Some(key.id())).expect("it reads").expect("a key").id(), key.id());
        let error = source.next(&key).expect_err("the rotation before has not ended").to_string();
        assert!(error.contains(MASTER_KEY_FILE), "{error}");
        assert_eq!(source.read(Some(key.id())).expect("it reads").expect("a key").id(), key.id());
        // Once the obstacle is gone, the rotation succeeds.
        fs::remove_dir_all(folder.path().join(MASTER_KEY_FILE)).expect("a folder");
        let next = source.next(&key).expect("another one");
        source.settle(next.id()).expect("it gets its name");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert_eq!(source.read(Some(next.id())).expect("it reads").expect("a key").id(), next.id());
    }

    #[test]
    fn a_rotation_that_fails_leaves_the_present_key_where_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = KeySource::Own(folder.path().to_owned());
        let path = folder.path().join(MASTER_KEY_FILE);
        let old = source.make().expect("it can be made");
        let text = fs::read(&path).expect("a file");
        // The new key gets its name before the transaction, so that a failing rename stops the rotation in time.
        let next = source.next(&old).expect("another one");
        assert_eq!(source.read(None).expect("it reads").expect("a key").id(), next.id());
        source.settle(old.id()).expect("the transaction failed");
        assert_eq!(fs::read(&path).expect("a file"), text);
        assert!(!folder.path().join(NEXT_FILE).exists());
        // A foreign key is not overwritten, and a key that exists only in memory can be rotated.
        let other = MasterKey::generate().expect("bytes");
        write_file(&path, &other).expect("a file");
        assert!(matches!(source.next(&old), Err(SecretError::WrongKey { .. })));
        assert_eq!(source.read(None).expect("it reads").expect("a key").id(), other.id());
        fs::remove_file(&path).expect("a file");
        let next = source.next(&old).expect("another one");
        source.settle(next.id()).expect("it gets its name");
        assert_eq!(source.read(None).expect("it reads").expect("a key").id(), next.id());
        // A file that holds neither key is not removed.
        fs::write(folder.path().join(NEXT_FILE), "12").expect("a file");
        assert!(source.settle(old.id()).is_err() && folder.path().join(NEXT_FILE).exists());
    }

    #[test]
    fn what_is_in_the_place_of_a_key_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join(MASTER_KEY_FILE)).expect("a folder");
        let error = KeySource::Own(folder.path().to_owned()).read(None).expect_err("a folder is not a key").to_string();
        assert!(error.contains("it is a folder") && !error.contains("chmod"), "{error}");
        let path = folder.path().join("given");
        write_file(&path, &MasterKey::generate().expect("bytes")).expect("a file");
        for (mode, is_taken) in [(0o440, true), (0o640, true), (0o660, false), (0o644, false), (0o444, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            let found = KeySource::Given(path.clone()).read(None);
            assert_eq!(found.is_ok(), is_taken, "{mode:o}: {found:?}");
            let told = found.err().map(|it| it.to_string()).unwrap_or_default();
            assert!(is_taken || told.contains("and its group") && told.contains("chmod 640"), "{told}");
        }
    }

    #[test]
    fn a_given_file_is_read_and_never_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("given");
        let source = KeySource::Given(path.clone());
        assert!(source.read(None).expect("no file is no error").is_none());
        assert!(source.make().is_err());
        let (old, new) = (MasterKey::generate().expect("bytes"), MasterKey::generate().expect("bytes"));
        write_file(&path, &old).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).expect("a mode");
        assert_eq!(source.read(None).expect("it reads").expect("a key").id(), old.id());
        assert!(source.next(&old).is_err(), "nothing has changed");
        write_file(&path, &new).expect("a file");
        assert_eq!(source.next(&old).expect("another one").id(), new.id());
    }
}
