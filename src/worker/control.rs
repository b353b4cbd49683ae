//! Parsing of control-channel lines: each is bounded and checked before anything acts on it.

use super::{invocations::InvocationTable, ping::Ping, violation::Violation};
use crate::{
    model::InvocationId,
    protocol::worker::{FromWorker, LogLevel},
    telemetry::Stream,
};

/// JSON may encode one byte of text as six.
const JSON_ESCAPE_FACTOR: usize = 6;

/// Bytes to which the shim cuts an error's message and its stack, each.
const ERROR_TEXT_BYTES_MAX: usize = 16 * 1024;

/// Room in a control line for everything except its texts.
const LINE_OVERHEAD_BYTES: usize = 4 * 1024;

/// Room in a log line for the description of an error, beside its text.
const LOG_OVERHEAD_BYTES: usize = 64;

/// Size limits for one control line.
#[derive(Debug, Clone, Copy)]
pub(super) struct ControlLimits {
    /// Every valid line is shorter than this.
    pub(super) line_bytes_max: usize,
    /// Texts are cut to this length; an honest shim has already done so.
    pub(super) text_bytes_max: usize,
}

/// A parsed control line.
#[derive(Debug, PartialEq)]
pub(super) enum ControlMessage {
    /// The shim reports that it is up.
    Ready,
    /// A line for the log.
    Log {
        stream: Stream,
        level: LogLevel,
        invocation: Option<InvocationId>,
        /// The shim has guessed the invocation.
        is_inferred: bool,
        text: String,
        dropped: u32,
    },
    /// An answer, which has already been passed on.
    Answer,
}

impl ControlLimits {
    /// Creates the bounds for a shim that cuts log messages to `log_line_bytes_max` bytes.
    pub(super) fn new(log_line_bytes_max: usize) -> Self {
        let texts_bytes_max = log_line_bytes_max.max(2 * ERROR_TEXT_BYTES_MAX);
        Self {
            line_bytes_max: texts_bytes_max * JSON_ESCAPE_FACTOR + LINE_OVERHEAD_BYTES,
            text_bytes_max: log_line_bytes_max.max(ERROR_TEXT_BYTES_MAX) + LOG_OVERHEAD_BYTES,
        }
    }

    /// Parses a line. Answers go to `invocations` and `ping`, which know the questions.
    pub(super) fn parse(
        &self,
        line: &[u8],
        invocations: &InvocationTable,
        ping: &Ping,
    ) -> Result<ControlMessage, Violation> {
        if line.len() >= self.line_bytes_max {
            return Err(Violation::LineTooLong);
        }
        let log =
            |(stream, level), (invocation, is_inferred): (Option<String>, bool), mut text, dropped: Option<u32>| {
                let invocation = invocations.known(invocation.as_deref())?;
                cut(&mut text, self.text_bytes_max);
                Ok(ControlMessage::Log { stream, level, invocation, is_inferred, text, dropped: dropped.unwrap_or(0) })
            };
        match serde_json::from_slice(line).map_err(|_| Violation::NoMessage)? {
            FromWorker::Ready { .. } => Ok(ControlMessage::Ready),
            FromWorker::Log { level, invocation, message, dropped } => {
                log((Stream::Console, level), (invocation, false), message, dropped)
            }
            FromWorker::Rejection { invocation, message, stack, guessed, dropped } => {
                let how = if guessed { "unhandled, probably of this invocation" } else { "unhandled" };
                let text = format!("{how}: {}", stack.unwrap_or(message));
                log((Stream::System, LogLevel::Error), (invocation, guessed), text, dropped)
            }
            FromWorker::Settled { invocation } => invocations.settle(&invocation).map(|()| ControlMessage::Answer),
            FromWorker::Pong { number } => ping.answer(number).map(|()| ControlMessage::Answer),
        }
    }
}

/// Cuts a text to at most `bytes_max` bytes, between two characters.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::Instant;

    fn parse(line: &str) -> Result<ControlMessage, Violation> {
        ControlLimits::new(256).parse(line.as_bytes(), &InvocationTable::default(), &Ping::default())
    }

    #[test]
    fn what_is_no_message_is_told_from_what_is_one() {
        assert_eq!(parse(r#"{"type":"ready","bun":"1"}"#), Ok(ControlMessage::Ready));
        assert_eq!(
            parse(r#"{"type":"ready","bun":"1","later":[{}]}"#),
            Ok(ControlMessage::Ready),
            "of a later version"
        );
        for line in [
            "",
            "nonsense",
            "null",
            "{}",
            r#"{"type":"reboot"}"#,
            r#"{"type":"pong"}"#,
            r#"{"type":"pong","number":-1}"#,
            r#"{"type":"pong","number":1e400}"#,
            r#"{"type":"log","level":"loud","invocation":null,"message":""}"#,
            r#"{"type":"log","level":"info","invocation":7,"message":""}"#,
            r#"{"type":"log","level":"info","invocation":null,"message":"","dropped":18446744073709551615}"#,
            r#"{"type":"ready","bun":"1"}{"type":"ready","bun":"1"}"#,
            &"[".repeat(10_000),
        ] {
            assert_eq!(parse(line), Err(Violation::NoMessage), "{line}");
        }
    }

    #[test]
    fn the_longest_line_of_a_shim_is_understood_and_a_longer_one_is_not() {
        let worst = "\u{1}".repeat(ERROR_TEXT_BYTES_MAX);
        let rejection = json!({ "type": "rejection", "invocation": null, "message": worst, "stack": worst });
        assert!(
            matches!(parse(&rejection.to_string()), Ok(ControlMessage::Log { text, .. }) if text.ends_with(&worst))
        );
        let bytes_max = ControlLimits::new(256).line_bytes_max;
        let ready = r#"{"type":"ready","bun":"1"}"#;
        let padded = |bytes| ready.to_owned() + &" ".repeat(bytes - ready.len());
        assert_eq!(parse(&padded(bytes_max - 1)), Ok(ControlMessage::Ready));
        assert_eq!(parse(&padded(bytes_max)), Err(Violation::LineTooLong));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        for bytes in 0..9 {
            let mut text = "aé€😀".to_owned();
            cut(&mut text, bytes);
            assert_eq!(text, ["", "a", "a", "aé", "aé", "aé", "aé€", "aé€", "aé€"][bytes]);
        }
    }

    /// Lines that an honest shim sends, of a running invocation and of one that has ended.
    fn honest(running: InvocationId, ended: InvocationId) -> Vec<Vec<u8>> {
        let lines = [
            json!({ "type": "ready", "bun": "1.4.5" }),
            json!({ "type": "log", "level": "warn", "invocation": running, "message": "é\n\u{1}\"", "dropped": 3 }),
            json!({ "type": "log", "level": "info", "invocation": null, "message": "x".repeat(300) }),
            json!({ "type": "rejection", "invocation": ended, "guessed": true, "message": "m", "stack": null }),
            json!({ "type": "settled", "invocation": ended }),
            json!({ "type": "pong", "number": 1 }),
        ];
        lines.map(|line| line.to_string().into_bytes()).into()
    }

    proptest! {
        /// Mutated lines are either refused or parsed, and the kept text is bounded.
        #[test]
        fn mutations_are_harmless(
            which in 0..6_usize,
            edits in prop::collection::vec((any::<u16>(), any::<u8>(), 0..4_u8), 0..8),
            again in 1..60_usize,
        ) {
            let (invocations, ping) = (InvocationTable::default(), Ping::default());
            let [running, ended] = [InvocationId::new(), InvocationId::new()];
            invocations.begin(running, Instant::now());
            invocations.begin(ended, Instant::now());
            invocations.end(ended, Instant::now());
            ping.ask(Instant::now(), |_| true);
            let mut line = honest(running, ended).swap_remove(which);
            let bounds = ControlLimits::new(256);
            prop_assert!(bounds.parse(&line, &invocations, &Ping::default()).is_ok() || which == 5);
            for (place, byte, how) in edits {
                let place = usize::from(place) % (line.len() + 1);
                match how {
                    0 => line.insert(place, byte),
                    1 => drop(line.drain(..place)),
                    2 => line.truncate(place),
                    _ => line.splice(place..place, vec![b'{'; usize::from(byte)]).for_each(drop),
                }
            }
            for line in [line.clone(), line.repeat(again)] {
                if let Ok(ControlMessage::Log { text, invocation, .. }) = bounds.parse(&line, &invocations, &ping) {
                    prop_assert!(text.len() <= bounds.text_bytes_max);
                    prop_assert!(invocation.is_none_or(|it| it == running || it == ended));
                }
            }
        }
    }
}
