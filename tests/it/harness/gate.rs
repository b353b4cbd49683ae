//! A gate that holds a function's code until the test opens it.

use super::until;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A gate for daemons without a sandbox: code waits for a file, which is not visible inside a sandbox.
pub struct Gate {
    reached: PathBuf,
    open: PathBuf,
}

impl Gate {
    /// Creates a closed gate; its files are created in this folder.
    pub fn shut(folder: &Path) -> Self {
        Self { reached: folder.join("gate-reached"), open: folder.join("gate-open") }
    }

    /// Code that waits at the gate.
    pub fn wait(&self) -> String {
        let Self { reached, open } = self;
        format!("await Bun.write({reached:?}, ''); while (!(await Bun.file({open:?}).exists())) await Bun.sleep(2);")
    }

    /// Code of a function whose invocations wait at the gate.
    pub fn function(&self) -> String {
        format!("export default async () => {{ {} return new Response('through'); }}", self.wait())
    }

    /// Waits until some code waits at the gate.
    pub async fn until_reached(&self) {
        until("the gate is reached", || async { self.reached.exists().then_some(()) }).await;
    }

    /// Closes the gate and forgets that it was reached.
    pub fn shut_again(&self) {
        for file in [&self.reached, &self.open] {
            let _ = fs::remove_file(file);
        }
    }

    /// Opens the gate for good.
    pub fn open(&self) {
        fs::write(&self.open, "").expect("a file");
    }
}
