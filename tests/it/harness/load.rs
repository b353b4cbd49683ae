//! Callers that keep a function busy.

use super::{TestDaemon, get, until};
use levain::protocol::message::InvokeResponse;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::task::JoinSet;

/// Callers of one function, each on its own connection, that call again as soon as they are answered.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: JoinSet<Vec<InvokeResponse>>,
}

impl Load {
    pub async fn start(daemon: &TestDaemon, name: &str, path: &str, callers: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut set = JoinSet::new();
        for _ in 0..callers {
            let (client, request) = (daemon.connect().await, get(name, path));
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            set.spawn(async move {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.call(&request).await.expect("an answer");
                    assert!(answer.success, "{answer:?}");
                    answers.push(answer);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                answers
            });
        }
        Self { stop, answered, callers: set }
    }

    /// Waits for so many more answers.
    pub async fn until_answered(&self, count: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + count;
        let answered = || async { (self.answered.load(Ordering::Relaxed) >= wanted).then_some(()) };
        until("more are answered", answered).await;
    }

    /// Ends it. Every call was answered well.
    pub async fn stop(self) -> Vec<InvokeResponse> {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await.into_iter().flatten().collect()
    }
}
