//! All that pages and APIs count, for `/metrics`; registered at start, at 0.

use axum::http::StatusCode;
use metrics::{counter, describe_counter};

const HTTP_ERRORS: &str = "unacked_http_errors_total";
const SESSION_FAILURES: &str = "unacked_session_failures_total";

/// What is asked of Redis.
const OPERATIONS: [&str; 9] = [
    "create", "save", "load", "delete", "index", "prune", "count", "figures", "reset",
];
/// `skipped`: not asked, because it was known to be away.
const OUTCOMES: [&str; 2] = ["failed", "skipped"];

/// Those that we answer with; another one, of a library, appears when it is answered.
const STATUSES: [u16; 13] = [
    400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 503,
];

/// Registers all of it.
pub fn register() {
    describe_counter!(HTTP_ERRORS, "Requests answered with an error");
    for status in STATUSES {
        let _ = counter!(HTTP_ERRORS, "status" => status.to_string());
    }
    describe_counter!(
        SESSION_FAILURES,
        "Operations on sessions that Redis did not do"
    );
    for operation in OPERATIONS {
        for outcome in OUTCOMES {
            let labels = [("operation", operation), ("outcome", outcome)];
            let _ = counter!(SESSION_FAILURES, &labels);
        }
    }
}

pub(crate) fn http_error(status: StatusCode) {
    counter!(HTTP_ERRORS, "status" => status.as_u16().to_string()).increment(1);
}

pub(crate) fn session_failure(operation: &'static str, outcome: &'static str) {
    debug_assert!(
        OPERATIONS.contains(&operation) && OUTCOMES.contains(&outcome),
        "{operation}, {outcome} is not registered"
    );
    let labels = [("operation", operation), ("outcome", outcome)];
    counter!(SESSION_FAILURES, &labels).increment(1);
}
