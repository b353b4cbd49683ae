//! Paths in the configuration.

use super::{
    error::{ConfigError, Problem, ValueOrigin},
    schema::{Config, KEYS, Key},
};
use std::path::{Path, PathBuf};

impl Config {
    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        Path::new(&self.daemon.data_dir)
    }

    /// Path of the command socket.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        match self.daemon.socket.as_str() {
            "" => self.data_dir().join("levain.sock"),
            socket => socket.into(),
        }
    }

    /// Configured path of Bun, if any.
    #[must_use]
    pub fn bun_path(&self) -> Option<&Path> {
        Some(Path::new(&self.runtime.bun)).filter(|path| !path.as_os_str().is_empty())
    }

    /// Makes every relative path absolute, based on the working directory. [`super::load()`] does so itself; a
    /// configuration built by a program may need it.
    ///
    /// # Errors
    /// Fails with the keys whose paths cannot be made absolute, and the reasons.
    pub fn absolute(mut self) -> Result<Self, ConfigError> {
        let problems = self.make_absolute(|_| ValueOrigin::Default);
        if problems.is_empty() { Ok(self) } else { Err(ConfigError::Invalid(problems)) }
    }

    pub(super) fn make_absolute(&mut self, origin: impl Fn(&Key) -> ValueOrigin) -> Vec<Problem> {
        let mut problems = Vec::new();
        for key in KEYS.iter() {
            if let Err(reason) = key.field.make_absolute(self, &key.rule) {
                let message = format!("{} = {}: {reason}; give an absolute path", key.path(), key.value(self));
                problems.push(Problem { origin: origin(key), message });
            }
        }
        problems
    }
}
