//! Output of a build: bounded, split into lines, and forwarded while the build runs.

use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Longest line, in bytes; longer ones are broken.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// Bytes that the daemon itself may add to a full log: the problems that ended the build.
const OWN_BYTES_MAX: usize = 32 * 1024;

/// The log of one build.
#[derive(Debug)]
pub struct BuildLog {
    /// Limit on the output of the build's processes, in bytes.
    bytes_max: usize,
    state: Mutex<LogState>,
    /// Receives every line that is kept.
    listener: Option<mpsc::UnboundedSender<String>>,
}

#[derive(Debug, Default)]
struct LogState {
    text: String,
    /// Output since the last end of a line.
    open: Vec<u8>,
    /// Prefix to remove from each line: the project's folder.
    prefix: String,
    printed: usize,
    own: usize,
    is_cut: bool,
}

impl BuildLog {
    /// Creates an empty log for `bytes_max` bytes of output. `listener` receives the lines, within the same limit.
    #[must_use]
    pub fn new(bytes_max: usize, listener: Option<mpsc::UnboundedSender<String>>) -> Self {
        Self { bytes_max, state: Mutex::default(), listener }
    }

    /// Sets the project's folder. From now on, lines name files relative to it.
    pub(super) fn set_folder(&self, folder: &str) {
        self.state.lock().prefix = format!("{folder}/");
    }

    /// Adds a line from the daemon itself.
    pub(super) fn say(&self, line: &str) {
        let mut state = self.state.lock();
        if state.own + line.len() < OWN_BYTES_MAX {
            state.own += line.len() + 1;
            self.add(&mut state, line);
        }
    }

    /// Adds output of a process.
    pub(super) fn print(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES_MAX.saturating_sub(state.open.len());
            state.open.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") || state.open.len() >= LINE_BYTES_MAX {
                self.end_line(&mut state);
            }
        }
    }

    /// Ends an unfinished line.
    pub(super) fn flush(&self) {
        let mut state = self.state.lock();
        if !state.open.is_empty() {
            self.end_line(&mut state);
        }
    }

    fn end_line(&self, state: &mut LogState) {
        let line = std::mem::take(&mut state.open);
        if state.is_cut {
            return;
        }
        let mut line = String::from_utf8_lossy(&line).replace(&state.prefix, "");
        line.truncate(line.trim_end().len());
        if state.printed + line.len() >= self.bytes_max {
            state.is_cut = true;
            self.add(state, &format!("… the output exceeds {} bytes: the rest is left out", self.bytes_max));
            return;
        }
        state.printed += line.len() + 1;
        self.add(state, &line);
    }

    fn add(&self, state: &mut LogState, line: &str) {
        state.text.push_str(line);
        state.text.push('\n');
        if let Some(listener) = &self.listener {
            // The listener may already be gone.
            let _ = listener.send(line.to_owned());
        }
    }

    /// Returns the log so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.state.lock().text.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_name_files_of_the_project() {
        let (sender, mut lines) = mpsc::unbounded_channel();
        let log = BuildLog::new(1_000, Some(sender));
        log.set_folder("/bundle/x");
        log.print(b"one\ntw");
        log.print(b"o /bundle/x/src/a.ts:1\n\xff\n");
        log.print(b"three");
        log.say("four");
        log.flush();
        assert_eq!(log.text(), "one\ntwo src/a.ts:1\n\u{fffd}\nfour\nthree\n");
        assert_eq!(std::iter::from_fn(|| lines.try_recv().ok()).collect::<Vec<_>>().len(), 5);
    }

    #[test]
    fn a_flood_is_cut_and_leaves_room_for_what_is_wrong() {
        let (sender, mut lines) = mpsc::unbounded_channel();
        let log = BuildLog::new(1_000, Some(sender));
        for _ in 0..10_000 {
            log.print(b"a line of a flood\n");
        }
        log.print(&vec![b'x'; 1 << 20]);
        log.flush();
        log.say("src/a.ts:1:2: wrong");
        let text = log.text();
        assert!(text.len() < 1_200 && text.ends_with("src/a.ts:1:2: wrong\n"), "{text}");
        assert_eq!(text.matches("left out").count(), 1);
        let heard: usize = std::iter::from_fn(|| lines.try_recv().ok()).map(|it| it.len() + 1).sum();
        assert_eq!(heard, text.len());
        for _ in 0..10_000 {
            log.say("the daemon is bounded too");
        }
        assert!(log.text().len() < 40_000);
    }
}
