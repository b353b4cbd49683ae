//! Waits for conditions instead of fixed times.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// Time limit for a condition.
const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until the condition yields a value, and fails the test when that takes too long.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
