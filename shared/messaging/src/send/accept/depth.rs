//! How many rows wait to be published: counted each second, for the limit, for a page and for `/metrics`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    bounded, numbers,
    send::outbox::{self, Depth},
};

/// The loop that counts.
pub struct DepthCounter {
    pub(super) pool: PgPool,
    pub(super) depth: watch::Sender<Depth>,
    /// Rows added by this node since the last count.
    pub(super) since: Arc<AtomicI64>,
}

impl DepthCounter {
    /// For who stores rows in a way of its own; counted is what is in the table.
    pub fn new(pool: PgPool) -> (Self, watch::Receiver<Depth>) {
        let (depth, counted) = watch::channel(Depth::default());
        let counter = Self {
            pool,
            depth,
            since: Arc::default(),
        };
        (counter, counted)
    }

    /// Counts until the stop, each second or less often when counting takes long.
    pub async fn run(self, stop: CancellationToken) {
        let rounds = async {
            loop {
                let began = Instant::now();
                self.count().await;
                sleep((began.elapsed() * 20).max(Duration::from_secs(1))).await;
            }
        };
        stop.run_until_cancelled(rounds).await;
    }

    async fn count(&self) {
        let before = self.since.load(Ordering::Relaxed);
        if let Ok(counted) = bounded(outbox::depth(&self.pool)).await {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            metrics::gauge!(numbers::OUTBOX).set(counted.waiting as f64);
            self.depth.send_replace(counted);
            // What was added before the count began is in it.
            self.since.fetch_sub(before, Ordering::Relaxed);
        }
    }
}
