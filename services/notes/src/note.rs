//! What all layers speak of: a note, a page of notes, and the road that a note travels.

use chrono::{DateTime, Utc};
use messaging::topology::Road;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

/// The names on the broker.
pub const ROAD: Road = Road {
    messages: "notes",
    dead: "notes.dead",
};

/// Kind and version of the body, which is a [`messaging::message::Message`].
pub const KIND: &str = "note.v1";

/// Notes on a page, unless it is asked for another number ..
pub const PAGE: u16 = 20;
/// .. and the most that may be asked for.
pub const PAGE_MAX: u16 = 100;

/// A note that is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// Made once, when it was accepted.
    pub id: Uuid,
    /// For people.
    pub number: i64,
    /// As written, trimmed.
    pub content: String,
    /// By the database's clock.
    pub saved_at: DateTime<Utc>,
    /// The worker that saved it.
    pub saved_by: String,
    /// Its place among all that is saved.
    #[serde(skip)]
    pub place: i64,
}

/// Which notes somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Those that were saved before this place; `None` for the newest.
    pub before: Option<i64>,
    /// So many at most.
    pub limit: u16,
}

/// Some of what is saved, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// As many as were asked for, or all that there are.
    pub notes: Vec<Saved>,
    /// Where those go on, if there are more: as [`Asked::before`].
    pub next: Option<i64>,
}
