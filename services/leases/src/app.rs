//! What every deed of a node shares.

use std::sync::Arc;

use daemon::{clock, parts::Parts, tally::Tally};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use web::{Error, Together};

use crate::{
    bell::{Bell, Clock},
    clerk::{Desk, away},
    hold::{Confirming, Extending, GivingBack, Holder},
    lease::{Ask, Floors, Leasing},
    message::Leased,
    push::Pushing,
    queue::{QueueRow, Queues},
};

pub(crate) struct App {
    pub(crate) pool: PgPool,
    pub(crate) parts: Parts,
    pub(crate) queues: Queues,
    pub(crate) pushing: Desk<Pushing>,
    pub(crate) leasing: Desk<Leasing>,
    pub(crate) confirming: Desk<Confirming>,
    pub(crate) extending: Desk<Extending>,
    pub(crate) giving_back: Desk<GivingBack>,
    pub(crate) bell: Bell,
    pub(crate) clock: Clock,
    pub(crate) floors: Floors,
    /// All queues, for the page.
    pub(crate) shown: Together<Arc<[QueueRow]>>,
    /// What this node has leased since its start.
    pub(crate) tally: Tally,
    pub(crate) stopping: CancellationToken,
}

impl App {
    /// Says at once that the database is away, where that is known, instead of waiting for it.
    pub(crate) fn need_database(&self) -> Result<(), Error> {
        if self.parts.usable(&["postgres"]) {
            Ok(())
        } else {
            Err(away())
        }
    }

    /// Leases what there is now.
    pub(crate) async fn lease(&self, ask: Ask) -> Result<Vec<Leased>, Error> {
        let leased = loop {
            // None: those before it took as many bytes as a group may. There may be more.
            if let Some(leased) = self.leasing.ask(ask).await? {
                break leased;
            }
        };
        if !leased.is_empty() {
            self.tally.add(leased.len(), clock::now());
        }
        Ok(leased)
    }

    /// Gives back what nobody will ever work on, since who asked for it has left. No lease has begun for anybody, so none counts:
    /// a client that hangs up costs a message none of its receives.
    pub(crate) async fn take_back(&self, queue_id: i32, leased: Vec<Leased>) {
        let holder = |leased: &Leased| Holder {
            queue_id,
            message_id: leased.message_id,
            token: Some(leased.token),
        };
        let back = leased
            .iter()
            .map(|leased| self.giving_back.ask((holder(leased), true)));
        for failure in futures::future::join_all(back)
            .await
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::info!(%failure, "a message of a client that left is hidden until its lease ends");
        }
    }
}
