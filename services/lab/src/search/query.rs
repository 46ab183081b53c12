//! What can be asked for, and where a page begins.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

use crate::passport::story::State;

/// Characters of an id's beginning that are needed: fewer stand for more than a minute's messages.
const ID_LEAST: usize = 8;
/// Characters of a text that is looked for, at most.
const TEXT_MAX: usize = 1_000;
/// PostgreSQL's `infinity` aside, the last moment that makes sense.
const NUMBER_MAX: i64 = i64::MAX - 1;

/// As it stands in an address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    pub id: String,
    pub text: String,
    pub node: String,
    pub state: String,
    pub run: String,
    pub attempts: String,
    pub from: String,
    pub to: String,
    pub page: String,
    /// What nothing can be found by: left out without a word, it would be believed to fit.
    #[serde(flatten)]
    pub others: BTreeMap<String, String>,
}

/// What to find. All of it must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// From the first to the last id that begins so.
    pub ids: Option<(Uuid, Uuid)>,
    pub text: Option<String>,
    /// A sender that accepted it or a receiver that processed it.
    pub node: Option<String>,
    pub state: Option<State>,
    pub run: Option<String>,
    /// At least so many.
    pub attempts: Option<i32>,
    pub from: Option<DateTime<Utc>>,
    pub to: Option<DateTime<Utc>>,
}

/// Where a page begins: next to a number, which is not on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// Towards older messages.
    Older(i64),
    /// Towards newer ones.
    Newer(i64),
}

impl Cursor {
    /// The newest page.
    pub const FIRST: Self = Self::Older(NUMBER_MAX);

    /// For an address. Nobody need understand it.
    pub fn text(self) -> String {
        match self {
            Self::Older(number) => format!("o{number:x}"),
            Self::Newer(number) => format!("n{number:x}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::FIRST);
        }
        let number = |hex: &str| i64::from_str_radix(hex, 16).ok().filter(|n| *n >= 0);
        if let Some(hex) = text.strip_prefix('o') {
            return number(hex).map(Self::Older);
        }
        number(text.strip_prefix('n')?).map(Self::Newer)
    }
}

impl Asked {
    /// Understands it.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(&self) -> Result<(Query, Cursor), String> {
        if let Some(name) = self.others.keys().next() {
            return Err(format!(
                "Nothing is found by {name:?}: there are text, id, node, state, run, attempts, from and to."
            ));
        }
        let some = |text: &str| {
            let text = text.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        if [&self.id, &self.text, &self.node, &self.run]
            .iter()
            .any(|text| text.contains('\0'))
        {
            return Err("No message holds the character NUL.".to_owned());
        }
        let text = (!self.text.is_empty()).then(|| self.text.clone());
        if self.text.chars().count() > TEXT_MAX {
            return Err(format!(
                "A text to look for has at most {TEXT_MAX} characters."
            ));
        }
        let state = some(&self.state).map(|name| {
            let state = State::ALL.into_iter().find(|state| state.name() == name);
            state.ok_or_else(|| {
                let names = State::ALL.map(State::name).join(", ");
                format!("A state is one of {names}.")
            })
        });
        let attempts = some(&self.attempts).map(|text| {
            let number = text.parse().ok().filter(|number| *number >= 1);
            number.ok_or_else(|| format!("Attempts are a number from 1 to {}.", i32::MAX))
        });
        let query = Query {
            ids: some(&self.id).map(|id| ids(&id)).transpose()?,
            text,
            node: some(&self.node),
            state: state.transpose()?,
            run: some(&self.run),
            attempts: attempts.transpose()?,
            from: some(&self.from).map(|text| moment(&text)).transpose()?,
            to: some(&self.to).map(|text| moment(&text)).transpose()?,
        };
        if let (Some(from), Some(to)) = (query.from, query.to)
            && from > to
        {
            return Err("It would end before it begins: `from` is later than `to`.".to_owned());
        }
        let cursor = Cursor::parse(&self.page).ok_or("There is no such page.")?;
        Ok((query, cursor))
    }
}

/// All ids that begin so.
fn ids(beginning: &str) -> Result<(Uuid, Uuid), String> {
    let digits: String = beginning.chars().filter(|c| *c != '-').collect();
    let fits = (ID_LEAST..=32).contains(&digits.len());
    if !fits || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(format!(
            "An id, or its beginning, has {ID_LEAST} to 32 hexadecimal digits."
        ));
    }
    let edge = |digit: char| {
        let full: String = digits
            .chars()
            .chain(std::iter::repeat(digit))
            .take(32)
            .collect();
        u128::from_str_radix(&full, 16).map(Uuid::from_u128)
    };
    match (edge('0'), edge('f')) {
        (Ok(low), Ok(high)) => Ok((low, high)),
        _ => Err("That is no id.".to_owned()),
    }
}

/// A moment with an offset, or as a form sends it, in UTC.
fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    let forms = [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%d %H:%M",
    ];
    let read = forms
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    read.map(|at| at.and_utc())
        .ok_or_else(|| format!("{text:?} is no time: right is 2026-11-21T18:30, in UTC."))
}

impl Query {
    /// Whether a text or a run is all that is asked for beside times.
    pub(super) fn is_plain(&self) -> bool {
        self.node.is_none() && self.state.is_none() && self.attempts.is_none() && self.ids.is_none()
    }

    /// For `ilike`: nothing in it is a wildcard.
    pub(super) fn pattern(&self) -> Option<String> {
        let text = self.text.as_ref()?;
        let plain = text
            .replace('\\', "\\\\")
            .replace('%', "\\%")
            .replace('_', "\\_");
        Some(format!("%{plain}%"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut Asked)) -> Result<(Query, Cursor), String> {
        let mut asked = Asked::default();
        change(&mut asked);
        asked.parse()
    }

    #[test]
    fn nothing_asked_is_everything_from_the_newest_on() {
        assert_eq!(asked(|_| {}).unwrap(), (Query::default(), Cursor::FIRST));
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for cursor in [Cursor::FIRST, Cursor::Older(0), Cursor::Newer(4_711)] {
            assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        }
        for wrong in ["x", "o", "o-1", "n+", "4711", "offffffffffffffffff"] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_beginning_of_an_id_stands_for_all_that_begin_so() {
        let (low, high) = ids("0198a0b1-c2").unwrap();
        assert!(low.to_string().starts_with("0198a0b1-c200-0000"), "{low}");
        assert!(high.to_string().starts_with("0198a0b1-c2ff-ffff"), "{high}");
        for wrong in ["0198a0b", "0198a0bx", &"0".repeat(33)] {
            ids(wrong).unwrap_err();
        }
    }

    #[test]
    fn wildcards_in_a_text_are_text() {
        let query = asked(|asked| asked.text = r"50%_\".to_owned()).unwrap().0;
        assert_eq!(query.pattern().unwrap(), r"%50\%\_\\%");
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        asked(|asked| asked.state = "gone".to_owned()).unwrap_err();
        let said = asked(|asked| asked.state = "dead".to_owned()).unwrap_err();
        assert!(said.ends_with("processed, parked."), "{said}");
        let parked = asked(|asked| asked.state = "parked".to_owned()).unwrap().0;
        assert_eq!(parked.state, Some(State::Parked));
        for attempts in ["0", "99999999999", "two"] {
            asked(|asked| asked.attempts = attempts.to_owned()).unwrap_err();
        }
        asked(|asked| {
            asked.from = "2026-11-21T18:30".to_owned();
            asked.to = "2026-11-21T18:29".to_owned();
        })
        .unwrap_err();
        let said = asked(|asked| {
            asked.others.insert("bogus".to_owned(), "1".to_owned());
        });
        assert!(said.unwrap_err().contains("\"bogus\""));
        asked(|asked| asked.from = "yesterday".to_owned()).unwrap_err();
        asked(|asked| asked.text = "\0".to_owned()).unwrap_err();
        let at = asked(|asked| asked.to = "2026-11-21T18:30".to_owned())
            .unwrap()
            .0
            .to;
        assert_eq!(at.unwrap().to_rfc3339(), "2026-11-21T18:30:00+00:00");
    }
}
