//! What CANCEL says and answers.

use serde::{Deserialize, Serialize};

requests! {
    /// CANCEL.
    CancelRequest {
        /// The id of the request on this connection that is no longer wanted.
        request_id: u64,
    }
}

messages! {
    /// CANCEL.
    CancelResponse {
        /// Whether that request was running. What became of it is in its own answer.
        found: bool,
    }
}
