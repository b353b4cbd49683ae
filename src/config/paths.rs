//! The paths of a configuration.

use super::{Config, ConfigError, KEYS, Key, Origin, Problem};
use std::path::{Path, PathBuf};

impl Config {
    /// Where everything is kept.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        Path::new(&self.daemon.data_dir)
    }

    /// Where the command socket is.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        match self.daemon.socket.as_str() {
            "" => self.data_dir().join("levain.sock"),
            socket => socket.into(),
        }
    }

    /// The Bun that is named, if one is.
    #[must_use]
    pub fn bun_path(&self) -> Option<&Path> {
        Some(Path::new(&self.runtime.bun)).filter(|path| !path.as_os_str().is_empty())
    }

    /// This configuration with every relative path made absolute, from the working directory. [`super::load`] does it; what a
    /// program has put together itself may need it.
    ///
    /// # Errors
    /// The keys whose paths cannot be absolute, and why.
    pub fn absolute(mut self) -> Result<Self, ConfigError> {
        let problems = self.make_absolute(|_| Origin::Default);
        if problems.is_empty() { Ok(self) } else { Err(ConfigError::Invalid(problems)) }
    }

    pub(super) fn make_absolute(&mut self, origin: impl Fn(&Key) -> Origin) -> Vec<Problem> {
        let mut problems = Vec::new();
        for key in KEYS {
            if let Err(reason) = (key.make_absolute)(self, &key.rule) {
                let message = format!("{} = {}: {reason}; give an absolute path", key.path(), key.value(self));
                problems.push(Problem { origin: origin(key), message });
            }
        }
        problems
    }
}
