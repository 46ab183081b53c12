//! Three streams, each in the order of message ids, become one: per id all that the ledger has of it.

use std::pin::pin;

use anyhow::{Result, ensure};
use futures::stream::{Stream, StreamExt, TryStreamExt};
use uuid::Uuid;

/// A row of `sender.message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRow {
    pub id: Uuid,
    /// The request; none: its key is not one of the run.
    pub number: Option<u64>,
    pub position: i32,
    pub accepted_us: i64,
}

/// A row of `receiver.processed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectRow {
    pub id: Uuid,
    pub processed_us: i64,
    pub attempt: i32,
    pub redelivered: bool,
}

/// A row of `receiver.dead_letter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadRow {
    pub id: Uuid,
    pub dead_us: i64,
    pub now: Dead,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dead {
    Parked,
    Discarded,
    /// Sent back at this time: from then on it is on its way like any other.
    SentBack(i64),
}

/// All rows of one message id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub id: Uuid,
    pub message: Option<MessageRow>,
    pub effects: u32,
    /// One of the deliveries that had an effect was marked as redelivered.
    pub redelivered: bool,
    pub first_effect_us: Option<i64>,
    /// Given up on: by its receiver, or by a person too.
    pub parked: bool,
    pub discarded: bool,
    pub parked_us: Option<i64>,
    /// From when to when it lay among the dead letters before it was sent back.
    pub aside_us: Vec<(i64, i64)>,
}

/// Who is told.
pub trait Sink {
    /// Each effect, before the message that it belongs to.
    fn effect(&mut self, row: &EffectRow);
    /// Each message id.
    fn found(&mut self, found: &Found) -> Result<()>;
}

/// Reads all three to their ends. They must be sorted; that they are is checked, since nothing would be right otherwise.
pub async fn merge(
    messages: impl Stream<Item = Result<MessageRow>>,
    effects: impl Stream<Item = Result<EffectRow>>,
    dead: impl Stream<Item = Result<DeadRow>>,
    sink: &mut impl Sink,
) -> Result<()> {
    let mut messages = pin!(messages.peekable());
    let mut effects = pin!(effects.peekable());
    let mut dead = pin!(dead.peekable());
    let mut last = None;
    loop {
        let ids = [
            head(messages.as_mut().peek().await, |row| row.id)?,
            head(effects.as_mut().peek().await, |row| row.id)?,
            head(dead.as_mut().peek().await, |row| row.id)?,
        ];
        let Some(id) = ids.into_iter().flatten().min() else {
            return Ok(());
        };
        ensure!(
            last.is_none_or(|last| last < id),
            "the ledger is not in the order of ids"
        );
        last = Some(id);
        let mut found = Found {
            id,
            message: None,
            effects: 0,
            redelivered: false,
            first_effect_us: None,
            parked: false,
            discarded: false,
            parked_us: None,
            aside_us: Vec::new(),
        };
        if ids[0] == Some(id) {
            found.message = messages.try_next().await?;
        }
        while let Some(row) = effects
            .as_mut()
            .next_if(|row| is(row, |row| row.id, id))
            .await
        {
            let row = row?;
            sink.effect(&row);
            found.effects = found.effects.saturating_add(1);
            found.redelivered |= row.redelivered;
            let first = found.first_effect_us.get_or_insert(row.processed_us);
            *first = row.processed_us.min(*first);
        }
        while let Some(row) = dead.as_mut().next_if(|row| is(row, |row| row.id, id)).await {
            let row = row?;
            if let Dead::SentBack(at_us) = row.now {
                found.aside_us.push((row.dead_us, at_us));
                continue;
            }
            found.parked = true;
            found.discarded |= row.now == Dead::Discarded;
            let first = found.parked_us.get_or_insert(row.dead_us);
            *first = row.dead_us.min(*first);
        }
        // that it was sent back is nothing that a message came to
        if found.message.is_some() || found.effects > 0 || found.parked {
            sink.found(&found)?;
        }
    }
}

fn is<T>(row: &Result<T>, id_of: impl Fn(&T) -> Uuid, id: Uuid) -> bool {
    row.as_ref().is_ok_and(|row| id_of(row) == id)
}

/// The id that comes next.
fn head<T>(row: Option<&Result<T>>, id_of: impl Fn(&T) -> Uuid) -> Result<Option<Uuid>> {
    match row {
        None => Ok(None),
        Some(Ok(row)) => Ok(Some(id_of(row))),
        Some(Err(error)) => Err(anyhow::anyhow!("{error:#}")),
    }
}
