//! Accepting messages: valid, stored together with their outbox rows in one commit, and only then is
//! the client told yes.
//!
//! Concurrent submissions share one commit. A submission is known by its idempotency key: repeated, it
//! is answered with what was stored the first time; with other texts under the same key it is refused.
//!
//! Between two lines: die before the commit: nothing happened, and the client got no answer. Die after
//! it: the message is accepted, the client does not know, and its repetition learns of it. Lose the
//! database at the commit: the outcome is unknown, and that is what the client is told.
//!
//! The table `message` is the service's own; `ledger.rs` says what is written there.

mod depth;
mod ledger;
mod store;
mod submission;

use std::sync::{Arc, atomic::AtomicI64};

use chaos::FailPoints;
use clap::Args;
use sqlx::PgPool;
use tokio::sync::watch;

use super::{outbox::Depth, relay::Handover};
use crate::{Kept, watching::Watching};
pub use depth::DepthCounter;
pub use store::Store;
pub use submission::{Accepted, Submission, Submissions, SubmitError};

/// The settings of who accepts and publishes.
#[derive(Debug, Clone, Args)]
pub struct SendArgs {
    /// Messages that may wait to be published; beyond that, none is accepted
    #[arg(long, env = "OUTBOX_MAX", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub outbox_max: u64,
    /// Messages published and not yet confirmed, at most
    #[arg(long, env = "PUBLISH_WINDOW", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(2..))]
    pub publish_window: u16,
}

/// What accepting needs to know.
pub struct AcceptSettings {
    /// Who accepts.
    pub node: String,
    /// Kind and version of the bodies; see [`crate::message`].
    pub kind: &'static str,
    /// Rows that may wait to be published.
    pub outbox_max: u64,
    /// Who is told what was accepted.
    pub watching: Watching,
}

/// The accepting end of a service.
pub struct Accept {
    /// Where submissions are handed in.
    pub submissions: Submissions,
    /// What waits to be published, counted about once a second.
    pub depth: watch::Receiver<Depth>,
    /// Stores what is handed in; not running yet.
    pub store: Store,
    /// Counts what waits; not running yet.
    pub counter: DepthCounter,
}

/// The accepting end, for the relay of this handover.
pub fn accept(
    pool: &PgPool,
    settings: AcceptSettings,
    handover: Handover,
    fail_points: FailPoints,
) -> Accept {
    let (depth_sender, depth) = watch::channel(Depth::default());
    let since = Arc::new(AtomicI64::new(0));
    let (submissions, committer) = submission::submissions();
    let store = Store {
        connection: Kept::new(pool.clone()),
        settings,
        handover,
        fail_points,
        submissions: committer,
        depth: depth.clone(),
        since: Arc::clone(&since),
    };
    let counter = DepthCounter {
        pool: pool.clone(),
        depth: depth_sender,
        since,
    };
    Accept {
        submissions,
        depth,
        store,
        counter,
    }
}
