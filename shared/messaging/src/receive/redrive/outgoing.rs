//! Publishes what waits in the receiver's outbox, and has a connection for it only while something does.

use std::{sync::Arc, time::Duration};

use chaos::FailPoints;
use lapin::Connection;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Error, bounded,
    connection::{Broker, Link},
    send::{
        outbox,
        relay::{Relay, RelaySettings},
    },
    watching::Watching,
};

/// How long a row may lie unseen.
const POLL: Duration = Duration::from_secs(1);
/// How long the connection stays when nothing waits any more.
const LINGER: u32 = 5;
/// Published and not confirmed at most.
const WINDOW: usize = 256;

/// The connection of a consumer, and its state: to publish on it is what the guarantee `separate-connections` forbids.
#[derive(Clone)]
pub struct Lent {
    /// None: there is none at this moment.
    pub connection: watch::Receiver<Option<Arc<Connection>>>,
    /// What it is like.
    pub link: watch::Receiver<Link>,
}

/// The loop.
pub struct Outgoing {
    /// Where to.
    pub broker: Broker,
    /// Where the rows are.
    pub pool: PgPool,
    /// Shown in the history of tries.
    pub node: String,
    /// Those of the relay.
    pub fail_points: FailPoints,
    /// None: on a connection of its own.
    pub lent: Option<Lent>,
    /// Who is told what the broker said.
    pub watching: Watching,
}

impl Outgoing {
    /// Until `stop`.
    ///
    /// # Errors
    /// Only what another session would meet again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        loop {
            tokio::select! {
                () = self.until(true, 1) => {}
                () = stop.cancelled() => return Ok(()),
            }
            let settings = RelaySettings {
                node: self.node.clone(),
                window: WINDOW,
                role: "redrives",
                lent: self.lent.clone(),
                watching: self.watching.clone(),
            };
            let (broker, fail_points) = (self.broker.clone(), self.fail_points.clone());
            let (relay, _handover, _link) =
                Relay::new(broker, self.pool.clone(), settings, fail_points);
            let enough = stop.child_token();
            let idle = async {
                self.until(false, LINGER).await;
                enough.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = relay.run(enough.clone()) => ended?,
                () = idle => {}
            }
        }
    }

    /// Waits until rows were there, or not, for so many looks.
    async fn until(&self, there: bool, looks: u32) {
        let mut seen = 0;
        while seen < looks {
            tokio::time::sleep(POLL).await;
            match bounded(outbox::waiting(&self.pool, 1)).await {
                Ok(rows) if (rows > 0) == there => seen += 1,
                Ok(_) => seen = 0,
                Err(error) => {
                    seen = 0;
                    warn!(%error, "cannot look for dead letters to publish");
                }
            }
        }
    }
}
