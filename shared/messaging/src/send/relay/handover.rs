//! Handing committed rows straight to the session that is open, without the detour through the table.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::{Postgres, Transaction};
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

use crate::{envelope::Envelope, send::outbox::Outbox};

/// The accepting side's end: lets a commit hand its rows over without the detour through the table.
#[derive(Clone)]
pub struct Handover {
    pub(super) outbox: Outbox,
    pub(super) open: watch::Receiver<Option<OpenSession>>,
    pub(super) committed: Arc<Notify>,
}

#[derive(Clone)]
pub(super) struct OpenSession {
    pub(super) lease: Uuid,
    pub(super) in_hand: InHand,
    pub(super) rows: mpsc::Sender<Vec<Envelope>>,
}

/// The rows that a session is busy with, from the claim or the hand-over to the mark.
#[derive(Clone, Default)]
pub(super) struct InHand(Arc<Mutex<HashSet<Uuid>>>);

impl InHand {
    pub(super) fn take(&self, ids: impl Iterator<Item = Uuid>) {
        self.ids().extend(ids);
    }

    pub(super) fn leave(&self, ids: impl Iterator<Item = Uuid>) {
        let mut held = self.ids();
        for id in ids {
            held.remove(&id);
        }
    }

    pub(super) fn all(&self) -> Vec<Uuid> {
        self.ids().iter().copied().collect()
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue of an open session.
///
/// Store the rows under [`Reservation::lease`], commit, then [`Reservation::hand_over`]. Dropped without that: if the rows are there after all (a commit that
/// was not answered), nobody renews their lease, and they are claimed when it ends.
pub struct Reservation {
    lease: Uuid,
    in_hand: InHand,
    permit: mpsc::OwnedPermit<Vec<Envelope>>,
}

impl Reservation {
    /// The publisher session that will hold the rows.
    pub fn lease(&self) -> Uuid {
        self.lease
    }

    /// The rows are committed: publish them. Should the session have ended meanwhile, they are free
    /// again when their lease ends.
    pub fn hand_over(self, rows: Vec<Envelope>) {
        self.in_hand.take(rows.iter().map(|row| row.message_id));
        self.permit.send(rows);
    }
}

impl Handover {
    /// Adds rows for messages, in the transaction that stores the messages themselves. With a `lease`
    /// they are held by that publisher session at once; without, they are free for any.
    ///
    /// # Errors
    /// The database's.
    pub async fn append(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        envelopes: &[Envelope],
        lease: Option<Uuid>,
    ) -> Result<(), sqlx::Error> {
        self.outbox.append(tx, envelopes, lease).await
    }

    /// A place for one group of rows, if a session is open and has room.
    pub fn reserve(&self) -> Option<Reservation> {
        let OpenSession {
            lease,
            in_hand,
            rows,
        } = self.open.borrow().clone()?;
        Some(Reservation {
            lease,
            in_hand,
            permit: rows.try_reserve_owned().ok()?,
        })
    }

    /// Rows were committed without a lease: claim them soon.
    pub fn announce(&self) {
        self.committed.notify_one();
    }
}
