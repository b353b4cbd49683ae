//! From a published bundle to its compiled form, where that loads faster and does the same.
//!
//! ```text
//! candidate? ──▶ compile: a process of its own ──▶ load both in workers of their own ──▶ a draft to keep
//! ```
//!
//! Bun compiles CommonJS only, so its bundler turns the module into that, and changes more than the form. Whether it may
//! is decided in two places: here by what kind of bundle it is, in the shim's `compile.ts` by what is in it. That the
//! bundle itself loads is seen again, although it did at its deployment: the two forms must agree here and now, and what
//! only the compiled one gets through must not become what a version depends on.

use super::{ShimError, tool};
use crate::{
    bundle::{BytecodeStore, Compiled, Draft},
    protocol::worker::{COMPILED_FILE, Compilation},
    worker::{Blueprint, Spawner, StartError, runtime::COMPILE},
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};
use tokio::task::spawn_blocking;

/// Smaller files gain less than half a millisecond, or lose.
const SOURCE_BYTES_MIN: u64 = 16 * 1024;

/// Larger ones take several seconds and more than 250 MB to compile.
const SOURCE_BYTES_MAX: u64 = 10 << 20;

/// How much of the time to load the bundle itself its compiled form may take.
const TIME_RATIO_MAX: f64 = 0.9;

/// How often both are loaded before it is believed that nothing is gained: something else may have been in the way.
const ROUNDS_MAX: usize = 3;

/// How long the compilation of a file may take; nobody waits for it, and it gives way to everything else.
const TIME_MAX: Duration = Duration::from_secs(30);

/// The folders of the bundle and of its compiled form while it is compiled.
const IN: &str = "in";
const OUT: &str = "out";

/// The endings of the files that it leaves.
const ENDINGS: [&str; 3] = ["", ".jsc", ".map"];

/// Why a version runs from its source.
#[derive(Debug, thiserror::Error)]
pub enum NotCompiled {
    /// The cache is switched off.
    #[error("nothing is compiled")]
    Off,
    /// It could refer to its other files.
    #[error("it has several files")]
    SeveralFiles,
    /// What is in it, or how Bun compiles it.
    #[error("{0}")]
    Refused(String),
    /// Bun could not be run.
    #[error("it cannot be compiled: {0}")]
    Compile(#[from] ShimError),
    /// One of its forms does not load.
    #[error("{form} does not load: {error}")]
    Load {
        /// Which.
        form: &'static str,
        /// Why.
        error: Box<StartError>,
    },
    /// A worker finds another kind of handler in the compiled form.
    #[error("its handler is found as `{compiled}` instead of `{source_kind}`")]
    Handler {
        /// In the bundle itself.
        source_kind: String,
        /// In its compiled form.
        compiled: String,
    },
    /// It is not faster.
    #[error("it loads in {compiled_ms:.1} ms instead of {source_ms:.1} ms")]
    NoGain {
        /// The bundle itself.
        source_ms: f64,
        /// Its compiled form.
        compiled_ms: f64,
    },
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether a bundle is worth a closer look: a single JavaScript file of a size at which something is gained.
#[must_use]
pub fn is_candidate(entry: &str, size: u64) -> bool {
    let name = Path::new(entry).extension().and_then(|it| it.to_str());
    let is_script = matches!(name, Some("js" | "mjs")) && !entry.contains('/');
    is_script && (SOURCE_BYTES_MIN..=SOURCE_BYTES_MAX).contains(&size)
}

/// Compiles the bundle of a blueprint, which must be a candidate, and sees that it gains by it.
pub async fn compile(spawner: &Spawner, store: &BytecodeStore, blueprint: &Blueprint) -> Result<Draft, NotCompiled> {
    if fs::read_dir(&blueprint.bundle)?.count() != 1 {
        return Err(NotCompiled::SeveralFiles);
    }
    let draft = store.begin()?.ok_or(NotCompiled::Off)?;
    let place = tool::workplace(spawner)?;
    let (filler, bundle) = (place.filler(), blueprint.bundle.clone());
    spawn_blocking(move || filler.fill(IN, &bundle)).await.map_err(io::Error::other)??;
    place.make_folder(Path::new(OUT))?;
    let file = place.inside(IN).join(&blueprint.entry);
    let args = [file.into_os_string(), place.inside(OUT).into_os_string(), blueprint.entry.clone().into()];
    let outcome = tool::ask::<Compilation>(&place, COMPILE, args, true, TIME_MAX).await?;
    if !outcome.ok {
        return Err(NotCompiled::Refused(outcome.reason.unwrap_or_default()));
    }
    let (from, to) = (place.outside(OUT), draft.folder().to_owned());
    spawn_blocking(move || fetch(&from, &to)).await.map_err(io::Error::other)??;
    see_gain(spawner, blueprint, draft.folder()).await?;
    Ok(draft)
}

/// Copies what was made into the draft. It was made by a process that may have been turned by what it read.
fn fetch(from: &Path, to: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(from)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    for ending in ENDINGS {
        let name = format!("{COMPILED_FILE}{ending}");
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut made = OpenOptions::new().read(true).custom_flags(flags).open(from.join(&name))?;
        if !made.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        io::copy(&mut made, &mut File::create_new(to.join(&name))?)?;
    }
    Ok(())
}

/// Loads both forms in workers that are of no other use.
async fn see_gain(spawner: &Spawner, blueprint: &Blueprint, folder: &Path) -> Result<(), NotCompiled> {
    let load = async |form, compiled| {
        let blueprint = Blueprint { compiled, ..blueprint.clone() };
        spawner.rehearse(&blueprint).await.map_err(|error| NotCompiled::Load { form, error: Box::new(error) })
    };
    let mut round = 1;
    loop {
        let source = load("the bundle", Compiled::default()).await?;
        let compiled = load("its compiled form", Compiled::at(folder)).await?;
        if source.kind != compiled.kind {
            return Err(NotCompiled::Handler { source_kind: source.kind, compiled: compiled.kind });
        }
        if compiled.import_ms <= source.import_ms * TIME_RATIO_MAX {
            return Ok(());
        }
        if round == ROUNDS_MAX {
            return Err(NotCompiled::NoGain { source_ms: source.import_ms, compiled_ms: compiled.import_ms });
        }
        round += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_single_scripts_of_some_size() {
        const SIZE: u64 = 100_000;
        for (entry, size) in [("bundle.js", SIZE), ("main.mjs", SIZE), ("a.js", SOURCE_BYTES_MIN), ("a.js", 10 << 20)] {
            assert!(is_candidate(entry, size), "{entry} {size}");
        }
        let others = ["bundle.ts", "bundle.cjs", "bundle.jsx", "bundle", "js", "lib/bundle.js"];
        for (entry, size) in others.map(|entry| (entry, SIZE)).into_iter().chain([("a.js", 16_383), ("a.js", 11 << 20)])
        {
            assert!(!is_candidate(entry, size), "{entry} {size}");
        }
    }
}
