//! Cuts a byte stream into lines of bounded length.

/// Collects bytes until a line is complete. A longer line is cut at the limit and its rest is skipped.
#[derive(Debug)]
pub(super) struct Lines {
    pending: Vec<u8>,
    bytes_max: usize,
    /// Whether the current line was cut, so that bytes up to its end are skipped.
    skipping: bool,
}

impl Lines {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { pending: Vec::new(), bytes_max, skipping: false }
    }

    /// Takes the next bytes and calls `line` with each complete line, without its line ending.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.skipping {
                self.skipping = false;
            } else if self.pending.is_empty() {
                line(without_return(&head[..head.len().min(self.bytes_max)]));
            } else {
                self.keep(head);
                line(without_return(&self.pending));
                self.pending.clear();
            }
        }
        if self.skipping {
            return;
        }
        self.keep(bytes);
        if self.pending.len() == self.bytes_max {
            line(&self.pending);
            self.pending.clear();
            self.skipping = true;
        }
    }

    /// Emits the remaining bytes as a last line.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.pending.is_empty() {
            line(without_return(&self.pending));
            self.pending.clear();
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.bytes_max - self.pending.len();
        self.pending.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(bytes: &[u8], cut: usize, bytes_max: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(bytes_max);
        let mut got = Vec::new();
        for piece in bytes.chunks(cut) {
            lines.push(piece, |line| got.push(line.to_vec()));
        }
        lines.finish(|line| got.push(line.to_vec()));
        got
    }

    #[test]
    fn a_line_over_the_limit_is_cut_and_the_next_one_is_whole() {
        for cut in 1..20 {
            assert_eq!(lines(b"12345678\nab\n\r\nend", cut, 5), [&b"12345"[..], b"ab", b"", b"end"], "cut {cut}");
        }
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_arrive(
            text in prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 0..200),
            cut in 1usize..50,
        ) {
            prop_assert_eq!(lines(&text, cut, 6), lines(&text, 1000, 6));
        }
    }
}
