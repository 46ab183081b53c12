//! Postgres and Redis that are absent, leave, hang and come back, through a proxy that hurts.
//! Run by `cargo lab test`.

#![expect(clippy::unwrap_used, reason = "tests, and what they share")]

mod database;
mod redis;

use std::time::Duration;

use daemon::parts::{Kind, Part};
use testkit::wait_until;

/// Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(20);

async fn becomes(part: &Part, kind: Kind) {
    let what = format!("{} to be {}", part.name(), kind.word());
    wait_until(&what, LIMIT, async || {
        let state = part.state();
        if state.kind == kind {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
}
