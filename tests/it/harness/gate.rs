//! A place where the code of a test waits until the test lets it go on.

use super::until;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A gate for daemons without a sandbox: code waits for a file, which it would not see from inside one.
pub struct Gate {
    reached: PathBuf,
    open: PathBuf,
}

impl Gate {
    /// One that is shut; its files come into this folder.
    pub fn shut(folder: &Path) -> Self {
        Self { reached: folder.join("gate-reached"), open: folder.join("gate-open") }
    }

    /// What code says that waits here.
    pub fn wait(&self) -> String {
        let Self { reached, open } = self;
        format!("await Bun.write({reached:?}, ''); while (!(await Bun.file({open:?}).exists())) await Bun.sleep(2);")
    }

    /// A function whose calls wait here.
    pub fn function(&self) -> String {
        format!("export default async () => {{ {} return new Response('through'); }}", self.wait())
    }

    /// Waits until somebody waits here.
    pub async fn until_reached(&self) {
        until("the gate is reached", || async { self.reached.exists().then_some(()) }).await;
    }

    /// Shuts it again, as if nobody had been here.
    pub fn shut_again(&self) {
        for file in [&self.reached, &self.open] {
            let _ = fs::remove_file(file);
        }
    }

    /// Lets everybody through.
    pub fn open(&self) {
        fs::write(&self.open, "").expect("a file");
    }
}
