//! Compiles a published bundle, if the compiled form loads faster and behaves the same.
//!
//! ```text
//! candidate? ──▶ compile: a process of its own ──▶ load both in workers of their own ──▶ a draft to keep
//! ```
//!
//! Bun compiles CommonJS only, so its bundler converts the module first, which changes more than the form. Two places
//! decide whether that is safe: this module by the kind of bundle, the shim's `compile.ts` by its content. The source
//! form is loaded again too, although it loaded at its deployment: both forms must agree under the present conditions,
//! and a version must not come to depend on a compiled form that loads where the source does not.

use super::tool::{self, ShimError};
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

/// Smaller files gain less than half a millisecond, or get slower.
const SOURCE_BYTES_MIN: u64 = 16 * 1024;

/// Larger files take several seconds and more than 250 MB to compile.
const SOURCE_BYTES_MAX: u64 = 10 << 20;

/// Largest load time of the compiled form, relative to that of the source.
const TIME_RATIO_MAX: f64 = 0.9;

/// Number of attempts to measure a gain: a single measurement may be disturbed by other load.
const ROUNDS_MAX: usize = 3;

/// Time limit for compiling a file; no caller waits for it, and it runs at low priority.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Folders of the bundle and of its compiled form during compilation.
const IN: &str = "in";
const OUT: &str = "out";

/// Suffixes of the compiled files.
const ENDINGS: [&str; 3] = ["", ".jsc", ".map"];

/// Reason to run a version from its source.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum NotCompiled {
    #[error("compilation is off")]
    Off,
    /// The bundle has several files, and could refer to them.
    #[error("it has several files")]
    SeveralFiles,
    #[error("{0}")]
    Refused(String),
    #[error("it cannot be compiled: {0}")]
    Compile(#[from] ShimError),
    #[error("{form} does not load: {error}")]
    Load { form: &'static str, error: Box<StartError> },
    #[error("its handler is found as `{compiled}` instead of `{source_kind}`")]
    Handler { source_kind: String, compiled: String },
    #[error("it loads in {compiled_ms:.1} ms instead of {source_ms:.1} ms")]
    NoGain { source_ms: f64, compiled_ms: f64 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether a bundle is worth compiling: its entry is JavaScript and of a size that gains from it.
#[must_use]
pub fn is_candidate(entry: &str, size: u64) -> bool {
    let name = Path::new(entry).extension().and_then(|it| it.to_str());
    let is_script = matches!(name, Some("js" | "mjs")) && !entry.contains('/');
    is_script && (SOURCE_BYTES_MIN..=SOURCE_BYTES_MAX).contains(&size)
}

/// Compiles the bundle of a blueprint, which must be a candidate, and checks that it loads faster.
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

/// Copies the output into the draft. The output is untrusted: the code it read may have taken over the compiler.
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

/// Loads both forms in workers that serve no other purpose.
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
