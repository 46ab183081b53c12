//! The one place that reads the wall clock.
//!
//! Decisions that must agree between nodes (leases, expiry) use the database's clock instead; this
//! one is for what a person reads.

use chrono::{DateTime, Utc};

/// The time now.
#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
