//! Messages of CANCEL.

use serde::{Deserialize, Serialize};

requests! {
    /// CANCEL.
    CancelRequest {
        /// Id of the request to cancel, on the same connection.
        request_id: u64,
    }
}

messages! {
    /// CANCEL.
    CancelResponse {
        /// Whether that request was running. Its own answer tells its outcome.
        found: bool,
    }
}
