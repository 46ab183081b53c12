//! A page of what was found, and where the next one begins.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::query::Cursor;
use crate::passport::story::State;

/// Rows of a page.
pub const ROWS: usize = 50;

/// A message that fits.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct Found {
    pub number: i64,
    pub message_id: Uuid,
    pub text: String,
    pub accepted_at: DateTime<Utc>,
    pub node: String,
    pub run: Option<String>,
    #[sqlx(try_from = "String")]
    pub state: State,
    /// How often its work was tried, as far as is known; 0 before the first.
    pub attempts: i32,
    /// The receiver that processed it.
    pub processed_by: Option<String>,
}

impl TryFrom<String> for State {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let state = Self::ALL.into_iter().find(|state| state.name() == name);
        state.ok_or(name)
    }
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Page {
    /// The newest first.
    pub messages: Vec<Found>,
    pub older: Option<String>,
    pub newer: Option<String>,
    /// The time was over before the page was full: the number down (or up) to which all were looked at.
    pub searched_to: Option<i64>,
    /// How many numbers the index of texts is behind; these are walked.
    pub behind: i64,
}

impl Page {
    /// Of what was found, in the order in which it was, with one more than a page where there is more. `stopped_at`: where the
    /// time was over first.
    pub(super) fn new(
        mut found: Vec<Found>,
        cursor: Cursor,
        stopped_at: Option<i64>,
        behind: i64,
    ) -> Self {
        let more = found.len() > ROWS;
        found.truncate(ROWS);
        let down = matches!(cursor, Cursor::Older(_));
        if !down {
            found.reverse();
        }
        // A page without any leads back to where it began.
        let (first, last) = match (found.first(), found.last(), cursor) {
            (Some(first), Some(last), _) => (Some(first.number), Some(last.number)),
            (_, _, Cursor::Older(below)) => (Some(below.saturating_sub(1)), None),
            (_, _, Cursor::Newer(above)) => (None, Some(above.saturating_add(1))),
        };
        // Where the time was over, the next page goes on there, and not at the last row.
        let further = if more { None } else { stopped_at };
        let (older, newer) = if down {
            let older = match further {
                Some(at) => Some(at),
                None => last.filter(|_| more),
            };
            (older, first.filter(|_| cursor != Cursor::FIRST))
        } else {
            let newer = match further {
                Some(at) => Some(at),
                None => first.filter(|_| more),
            };
            (last, newer)
        };
        Self {
            messages: found,
            older: older.map(|number| Cursor::Older(number).text()),
            newer: newer.map(|number| Cursor::Newer(number).text()),
            searched_to: further,
            behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_rows_leads_on_and_back_to_where_it_began() {
        let page = Page::new(Vec::new(), Cursor::Older(100), Some(40), 0);
        let links = [
            page.newer,
            page.older,
            page.searched_to.map(|at| at.to_string()),
        ];
        let right = [
            Cursor::Newer(99).text(),
            Cursor::Older(40).text(),
            "40".to_owned(),
        ];
        assert_eq!(links, right.map(Some));
        let page = Page::new(Vec::new(), Cursor::Newer(100), None, 0);
        let older = Some(Cursor::Older(101).text());
        assert_eq!((page.older, page.newer), (older, None));
        let page = Page::new(Vec::new(), Cursor::FIRST, None, 0);
        assert_eq!((page.older, page.newer), (None, None));
    }
}
