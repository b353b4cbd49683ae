//! The master key, and the files it comes from.
//!
//! ```text
//! secrets.master_key_file, or LEVAIN_MASTER_KEY_FILE ─▶ that file, given by a service manager: read, never written
//! LEVAIN_MASTER_KEY                                  ─▶ the key itself
//! neither                                            ─▶ data/master.key, mode 0600, made when the first secret is set
//! ```
//!
//! The database says which key its secrets are sealed with ([`KeyId`]). A rotation writes the new key beside the old one
//! (`master.key.next`), changes all data keys and that id in one transaction, and then gives the new file its name:
//! whatever ends it halfway, the key that the database names is in one of the two files.

use super::SecretError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Its file in the data directory.
const MASTER_KEY_FILE: &str = "master.key";

/// The key that a rotation is about to put in its place.
const NEXT_FILE: &str = "master.key.next";

/// The environment variable that may hold the key itself.
pub const KEY_VARIABLE: &str = "LEVAIN_MASTER_KEY";

/// The environment variable that may name the key's file.
const FILE_VARIABLE: &str = "LEVAIN_MASTER_KEY_FILE";

const KEY_BYTES: usize = 32;

/// More than any file with a key has.
const FILE_BYTES_MAX: u64 = 4_096;

/// What all secrets' data keys are sealed with. Wiped when it is dropped.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    id: KeyId,
}

/// Tells one master key from another, and nothing about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MasterKey {
    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let hash = Sha256::new().chain_update("levain master key id 1").chain_update(bytes.as_ref()).finalize();
        let id = KeyId(hash[..8].iter().map(|it| format!("{it:02x}")).collect());
        Self { bytes, id }
    }

    /// A key that nobody else has.
    pub fn generate() -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(|_| SecretError::Random)?;
        Ok(Self::new(bytes))
    }

    /// Reads 64 hexadecimal digits; blanks around them do not count.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().as_bytes();
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        if text.len() != 2 * KEY_BYTES {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |it: u8| (it as char).to_digit(16);
            *byte = u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?;
        }
        Some(Self::new(bytes))
    }

    fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
        for byte in self.bytes.iter() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
            }
        }
        text.push('\n');
        text
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// Which one it is.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }
}

/// Where the master key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file in the data directory, which is this program's own.
    Own(PathBuf),
    /// A file that somebody else keeps.
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
    /// What the configuration and the environment say.
    #[must_use]
    pub fn find(configured: &str, data_dir: &Path) -> Self {
        if !configured.is_empty() {
            return Self::Given(configured.into());
        }
        if let Some(path) = std::env::var_os(FILE_VARIABLE).filter(|it| !it.is_empty()) {
            return Self::Given(path.into());
        }
        match std::env::var_os(KEY_VARIABLE).is_some_and(|it| !it.is_empty()) {
            true => Self::Variable,
            false => Self::Own(data_dir.to_owned()),
        }
    }

    /// The key that is there: where a rotation was cut off, the one that the database names. None where there is none.
    pub fn read(&self, wanted: Option<&KeyId>) -> Result<Option<MasterKey>, SecretError> {
        match self {
            Self::Variable => {
                let text = Zeroizing::new(std::env::var(KEY_VARIABLE).unwrap_or_default());
                MasterKey::parse(&text)
                    .map(Some)
                    .ok_or_else(|| SecretError::Unreadable { from: self.to_string(), what: NO_KEY.to_owned() })
            }
            // The bits of the group may be the mask of a list of rights: a service manager gives its files so.
            Self::Given(path) => read_file(path, 0o027),
            Self::Own(folder) => {
                let (path, next) = (folder.join(MASTER_KEY_FILE), folder.join(NEXT_FILE));
                let present = read_file(&path, 0o077)?;
                if !next.exists() {
                    return Ok(present);
                }
                let is_wanted = |it: &MasterKey| wanted == Some(it.id());
                if present.as_ref().is_some_and(is_wanted) || wanted.is_none() {
                    fs::remove_file(&next).map_err(|cause| SecretError::file(&next, cause))?;
                    return Ok(present);
                }
                match read_file(&next, 0o077).ok().flatten().filter(is_wanted) {
                    Some(key) => {
                        self.keep_next()?;
                        Ok(Some(key))
                    }
                    None => Ok(present),
                }
            }
        }
    }

    /// Makes the first key.
    pub fn make(&self) -> Result<MasterKey, SecretError> {
        let Self::Own(folder) = self else { return Err(SecretError::NoKey { from: self.to_string() }) };
        let key = MasterKey::generate()?;
        // Under its final name from the first: no secret is sealed before this returns.
        write_file(&folder.join(NEXT_FILE), &key)?;
        self.keep_next()?;
        Ok(key)
    }

    /// A key for a rotation: made and put beside the old one, or what stands in the given file by now.
    pub fn next(&self, present: &MasterKey) -> Result<MasterKey, SecretError> {
        match self {
            Self::Own(folder) => {
                let key = MasterKey::generate()?;
                write_file(&folder.join(NEXT_FILE), &key)?;
                Ok(key)
            }
            Self::Given(path) => match read_file(path, 0o027)? {
                Some(key) if key.id() != present.id() => Ok(key),
                _ => Err(SecretError::SameKey(path.clone())),
            },
            Self::Variable => Err(SecretError::FixedKey),
        }
    }

    /// Gives the next key its name, once all that counts is sealed with it.
    pub fn keep_next(&self) -> Result<(), SecretError> {
        let Self::Own(folder) = self else { return Ok(()) };
        let next = folder.join(NEXT_FILE);
        let renamed = fs::rename(&next, folder.join(MASTER_KEY_FILE)).and_then(|()| File::open(folder)?.sync_all());
        renamed.map_err(|cause| SecretError::file(&next, cause))
    }
}

const NO_KEY: &str = "it does not hold a key, which is 64 hexadecimal digits";

fn read_file(path: &Path, forbidden: u32) -> Result<Option<MasterKey>, SecretError> {
    let failed = |cause| SecretError::file(path, cause);
    let unreadable = |what: String| SecretError::Unreadable { from: path.display().to_string(), what };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & forbidden != 0 {
        let shown = path.display();
        let what = format!(
            "others than its owner may read or write it (mode {mode:04o}): whoever has read it can open every secret; \
             `chmod 600 {shown}`, and rotate the key and the secrets if somebody may have"
        );
        return Err(unreadable(what));
    }
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    MasterKey::parse(&text).map(Some).ok_or_else(|| unreadable(NO_KEY.to_owned()))
}

/// The file is on disk, with its name, when this returns.
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
    write().map_err(|cause| SecretError::file(path, cause))
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
        let error = source.read(None).expect_err("it is no key").to_string();
        assert!(error.contains("64 hexadecimal digits") && !error.contains("hunter"), "{error}");
    }

    #[test]
    fn wherever_a_rotation_is_cut_off_the_key_that_counts_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = KeySource::Own(folder.path().to_owned());
        let old = source.make().expect("it can be made");
        let next = source.next(&old).expect("another one");
        // Before the transaction: the database names the old one.
        assert_eq!(source.read(Some(old.id())).expect("it reads").expect("a key").id(), old.id());
        assert!(!folder.path().join(NEXT_FILE).exists(), "what was not used is gone");
        drop(next);
        // After it: the new one, and the file gets its name.
        let next = source.next(&old).expect("another one");
        assert_eq!(source.read(Some(next.id())).expect("it reads").expect("a key").id(), next.id());
        assert_eq!(source.read(Some(next.id())).expect("it reads").expect("a key").id(), next.id());
        // Half a file is none that counts.
        fs::write(folder.path().join(NEXT_FILE), "12").expect("a file");
        assert_eq!(source.read(Some(next.id())).expect("it reads").expect("a key").id(), next.id());
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
