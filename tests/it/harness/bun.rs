//! The tests' Bun: the release that users would get, installed once if it is missing.

use levain::worker::runtime;
use std::path::{Path, PathBuf};
use tokio::sync::OnceCell;

static BUN: OnceCell<PathBuf> = OnceCell::const_new();

/// Path of a working Bun, installed into the target directory if none is found.
pub async fn bun() -> &'static Path {
    BUN.get_or_init(|| async {
        let data_dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        match runtime::find(None, data_dir).await {
            Ok(found) => found.path,
            Err(_) => runtime::install(data_dir, |line| eprintln!("{line}")).await.expect("Bun can be installed").path,
        }
    })
    .await
}
