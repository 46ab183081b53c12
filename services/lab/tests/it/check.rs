//! A naive checker: reads everything, compares everything, knows nothing of how it was made.

use std::collections::{HashMap, HashSet};

use sqlx::PgPool;
use uuid::Uuid;

/// What became of every message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    pub(crate) accepted: usize,
    pub(crate) processed: usize,
    pub(crate) parked: usize,
    /// Accepted, and neither processed nor parked (yet).
    pub(crate) missing: Vec<Uuid>,
    /// More than one effect.
    pub(crate) twice: Vec<Uuid>,
    /// An effect of something that was never accepted.
    pub(crate) unexpected: Vec<Uuid>,
    pub(crate) in_outbox: i64,
}

impl Audit {
    pub(crate) fn is_drained(&self) -> bool {
        self.missing.is_empty() && self.in_outbox == 0
    }

    /// All of `accepted` processed exactly once, none parked.
    #[track_caller]
    pub(crate) fn assert_exactly_once(&self, accepted: usize) {
        let expected = Self {
            accepted,
            processed: accepted,
            ..Self::default()
        };
        assert_eq!(*self, expected);
    }
}

pub(crate) async fn audit(admin: &PgPool) -> Audit {
    // In this order: what is accepted before it is read may be processed after, never the reverse.
    let effects: Vec<Uuid> = ids(admin, "select message_id from receiver.processed").await;
    let parked: HashSet<Uuid> = ids(
        admin,
        "select message_id from receiver.dead_letter where message_id is not null",
    )
    .await
    .into_iter()
    .collect();
    let (in_outbox,): (i64,) = sqlx::query_as("select count(*) from sender.outbox")
        .fetch_one(admin)
        .await
        .unwrap();
    let accepted: HashSet<Uuid> = ids(admin, "select message_id from sender.message")
        .await
        .into_iter()
        .collect();
    let mut count: HashMap<Uuid, usize> = HashMap::new();
    for id in effects {
        *count.entry(id).or_default() += 1;
    }
    let pick = |these: &mut dyn Iterator<Item = Uuid>| {
        let mut these: Vec<Uuid> = these.collect();
        these.sort();
        these
    };
    Audit {
        accepted: accepted.len(),
        processed: count.len(),
        parked: parked.len(),
        missing: pick(
            &mut accepted
                .iter()
                .copied()
                .filter(|id| !count.contains_key(id) && !parked.contains(id)),
        ),
        twice: pick(&mut count.iter().filter(|(_, n)| **n > 1).map(|(id, _)| *id)),
        unexpected: pick(&mut count.keys().copied().filter(|id| !accepted.contains(id))),
        in_outbox,
    }
}

async fn ids(admin: &PgPool, sql: &'static str) -> Vec<Uuid> {
    let rows: Result<Vec<(Uuid,)>, _> = sqlx::query_as(sql).fetch_all(admin).await;
    match rows {
        Ok(rows) => rows.into_iter().map(|(id,)| id).collect(),
        // A node that has not migrated yet has done nothing yet.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}
