//! Rules for a worker's output, and limits on its rate.
//!
//! A function runs in the process of its shim: it can write to the control channel, the pipes and the accepted
//! connections itself. Everything that a worker sends is therefore hostile input, and falls under one of three rules.
//!
//! **Ended** is a worker that does what the shim never does, whatever the function: something else has written there,
//! and nothing that follows can be trusted. See [`Violation`]; the invocations that run in that worker have crashed.
//!
//! **Tolerated** is what an honest shim may cause and what harms no other invocation or worker:
//!
//! | what | why |
//! |---|---|
//! | `settled` twice, or late | the shim may send it unasked, and again when it is asked about a dropped connection |
//! | `settled`, `log`, `rejection` of an invocation that has ended | a function's timers outlive its answers. Once the invocation is forgotten, the message has no id ([`super::invocations`]) |
//! | a line without an invocation, or with an empty invocation name | output at import; a request that a function makes to its own socket has no id |
//! | a `pong` after any time | a ping stays open until it is answered |
//! | the end of the control channel | it precedes the end of the process by a moment; a process that lives on is no longer heard |
//! | a head with too many headers, too large, or with a character that no header may have | the function chose them: its answer fails, and the worker goes on |
//! | the shim's own headers in an answer of the function | the function only says of itself that it failed or has more to do. The shim is asked whether it has |
//! | an answer that ends early, or never | a function may exit or be slow: its deadline ends it |
//! | descriptors sent along | the daemon does not take them: the kernel closes them |
//!
//! **Slowed down** is a worker that sends a lot: its streams are not read for a while ([`super::read_pace`]). Lines over the log
//! rate are also dropped and counted. The output of an answer is bounded by what its caller accepts.

/// A breach of the protocol that the shim never commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not JSON, an unknown message, or a message with an invalid field.
    #[error("a line on its control channel is not a valid message")]
    NoMessage,
    /// The shim cuts its texts, so that its lines stay below the limit.
    #[error("a line on its control channel is too long")]
    LineTooLong,
    /// `ready` is sent once, before there is a function.
    #[error("it sent `ready` a second time")]
    ReadyAgain,
    /// The number was never sent, or its answer has already come.
    #[error("it answered a ping that was not sent")]
    PongUnasked,
    /// Not an invocation id, or the id of an invocation that this worker was never given.
    #[error("it named an invocation that it never had")]
    ForeignInvocation,
    /// Bun writes heads and bodies, so they are well-formed, however strange the function's answer is.
    #[error("its answer is not HTTP: {0}")]
    NotHttp(&'static str),
    /// Bytes behind a complete answer, or on a connection without a request: they would be taken for the next answer.
    #[error("it sent bytes that belong to no answer")]
    BytesUnasked,
}
