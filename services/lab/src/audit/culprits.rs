//! The messages that a verdict rests on, each with its history: what its client was told, and every row there is of it.
//! Rows that are best effort are shown too; they decide nothing.

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::class::Class;
use super::facts::Place;
use super::source::Source;
use crate::run::requests::{self, Line};
use crate::run::{Meta, RunDir};

/// Most that are named.
pub const MOST: usize = 20;
/// Most lines of one history: a message that came back a thousand times is understood after fewer.
const LINES_MAX: usize = 40;

/// A message that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Culprit {
    pub class: Class,
    /// The row of the table that decided.
    pub why: String,
    /// The idempotency key of its request; none: nothing is known but the id.
    pub key: Option<String>,
    /// Its place among the messages of the request.
    pub position: Option<i64>,
    /// The ids under which it is known; none: it was never stored.
    pub message_ids: Vec<Uuid>,
    pub history: Vec<Step>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub at: Option<DateTime<Utc>>,
    pub what: String,
}

/// Who it is, before anything is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A message that the load offered.
    Offered(Place),
    /// An id in the ledger that belongs to nothing the load offered.
    Stray(Uuid),
}

/// The first ones of each class.
#[derive(Debug, Default)]
pub struct Suspects(BTreeMap<Class, Vec<(Who, &'static str)>>);

impl Suspects {
    /// One more; beyond the first ones it is dropped.
    pub fn add(&mut self, class: Class, why: &'static str, who: Who) {
        if class.fails() || class == Class::Pending {
            let those = self.0.entry(class).or_default();
            if those.len() < MOST {
                those.push((who, why));
            }
        }
    }

    /// Those of a class are no culprits after all.
    pub fn clear(&mut self, class: Class) {
        self.0.remove(&class);
    }

    #[cfg(test)]
    pub(super) fn names(self) -> Vec<Who> {
        self.pick().into_iter().map(|(_, who, _)| who).collect()
    }

    /// The first ones, of every class some.
    fn pick(self) -> Vec<(Class, Who, &'static str)> {
        let mut picked = Vec::new();
        for round in 0..MOST {
            for (class, those) in &self.0 {
                if let Some((who, why)) = those.get(round) {
                    picked.push((round, *class, *who, *why));
                }
            }
        }
        picked.truncate(MOST);
        picked.sort_by_key(|(round, class, ..)| (*class, *round));
        picked
            .into_iter()
            .map(|(_, class, who, why)| (class, who, why))
            .collect()
    }
}

/// Looks up everything about the first ones.
pub async fn describe(
    suspects: Suspects,
    source: &mut Source,
    run: &RunDir,
    meta: &Meta,
) -> Result<Vec<Culprit>> {
    let picked = suspects.pick();
    let mut keys = Vec::new();
    let mut strays = Vec::new();
    for (_, who, _) in &picked {
        match who {
            Who::Offered(place) => keys.push(run.id().key(place.number)),
            Who::Stray(id) => strays.push(*id),
        }
    }
    let rows = source.named(run.id(), &keys, &strays).await?;
    let mut culprits: Vec<Culprit> = picked
        .iter()
        .map(|(class, who, why)| begin(*class, *who, why, run, &rows))
        .collect();
    tell_answers(&mut culprits, run, meta)?;
    let ids: Vec<Uuid> = culprits
        .iter()
        .flat_map(|culprit| culprit.message_ids.clone())
        .collect();
    let mut histories: BTreeMap<Uuid, Vec<Step>> = BTreeMap::new();
    for (id, at, what) in source.history(&ids).await? {
        let step = Step { at: Some(at), what };
        histories.entry(id).or_default().push(step);
    }
    for culprit in &mut culprits {
        let several = culprit.message_ids.len() > 1;
        for id in &culprit.message_ids {
            for mut step in histories.get(id).cloned().unwrap_or_default() {
                if several {
                    step.what = format!("{id}: {}", step.what);
                }
                culprit.history.push(step);
            }
        }
        culprit.history.sort_by_key(|step| step.at);
        let more = culprit.history.len().saturating_sub(LINES_MAX);
        if more > 0 {
            // how it began, and above all how it ended
            let gap = Step {
                at: None,
                what: format!(".. {more} more .."),
            };
            culprit
                .history
                .splice(LINES_MAX / 2..LINES_MAX / 2 + more, [gap]);
        }
    }
    Ok(culprits)
}

fn begin(class: Class, who: Who, why: &str, run: &RunDir, rows: &[(Uuid, String, i32)]) -> Culprit {
    let (key, position, message_ids) = match who {
        Who::Offered(place) => {
            let key = run.id().key(place.number);
            let own = rows
                .iter()
                .filter(|(_, of, at)| *of == key && i64::from(*at) == i64::from(place.position));
            let ids = own.map(|(id, ..)| *id).collect();
            (Some(key), Some(i64::from(place.position)), ids)
        }
        Who::Stray(id) => {
            let row = rows.iter().find(|(of, ..)| *of == id);
            let key = row.map(|(_, key, _)| key.clone());
            (key, row.map(|(.., at)| i64::from(*at)), vec![id])
        }
    };
    Culprit {
        class,
        why: why.to_owned(),
        key,
        position,
        message_ids,
        history: Vec::new(),
    }
}

/// What the load's own record says.
fn tell_answers(culprits: &mut [Culprit], run: &RunDir, meta: &Meta) -> Result<()> {
    let numbers: Vec<Option<u64>> = culprits
        .iter()
        .map(|culprit| culprit.key.as_ref().and_then(|key| run.id().number_of(key)))
        .collect();
    let path = run.path(requests::FILE);
    if !path.exists() || numbers.iter().all(Option::is_none) {
        return Ok(());
    }
    let at = |us: u64| {
        let since = chrono::Duration::microseconds(i64::try_from(us).ok()?);
        meta.started_at?.checked_add_signed(since)
    };
    for line in requests::read(&path)? {
        let (number, step) = match line? {
            Line::Offered(offered) => {
                let poison = if offered.poison { ", poison" } else { "" };
                let many = match offered.messages {
                    1 => String::new(),
                    many => format!(" with {many} messages"),
                };
                let what = format!("a request{many} was due{poison}");
                (
                    offered.number,
                    Step {
                        at: at(offered.due_us),
                        what,
                    },
                )
            }
            Line::Answered(answered) => {
                let tries = match answered.tries {
                    0 => "without a try".to_owned(),
                    1 => "after 1 try".to_owned(),
                    many => format!("after {many} tries"),
                };
                let what = format!(
                    "the client has its answer {tries}: {}",
                    answered.answer.word()
                );
                (
                    answered.number,
                    Step {
                        at: at(answered.done_us),
                        what,
                    },
                )
            }
            Line::Named(_) => continue,
        };
        for (culprit, of) in culprits.iter_mut().zip(&numbers) {
            if *of == Some(number) {
                culprit.history.push(step.clone());
            }
        }
    }
    Ok(())
}

impl Culprit {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let name = match (&self.key, self.message_ids.first()) {
            (Some(key), _) => match self.position {
                None | Some(0) => format!("request {key}"),
                Some(position) => format!("request {key}, message {position}"),
            },
            (None, Some(id)) => format!("message {id}"),
            (None, None) => "a message".to_owned(),
        };
        let mut lines = vec![format!("{}  {name}: {}", self.class, self.why)];
        let ids: Vec<String> = self.message_ids.iter().map(Uuid::to_string).collect();
        if self.key.is_some() && !ids.is_empty() {
            lines.push(format!("    message {}", ids.join(" and ")));
        }
        for step in &self.history {
            let at = step.at.map_or_else(
                || " ".repeat(12),
                |at| at.to_rfc3339_opts(SecondsFormat::Millis, true)[11..23].to_owned(),
            );
            lines.push(format!("    {at}  {}", step.what));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stray(n: u128) -> Who {
        Who::Stray(Uuid::from_u128(n))
    }

    #[test]
    fn the_first_ones_are_named_and_no_class_hides_another() {
        let mut suspects = Suspects::default();
        for n in 0..100 {
            suspects.add(Class::Lost, "lost", stray(n));
            suspects.add(Class::Ok, "ok", stray(n));
        }
        suspects.add(Class::Duplicated, "twice", stray(7));
        let picked = suspects.pick();
        assert_eq!(picked.len(), MOST);
        assert_eq!(picked[0], (Class::Lost, stray(0), "lost"));
        assert_eq!(picked[18], (Class::Lost, stray(18), "lost"));
        assert_eq!(picked[19], (Class::Duplicated, stray(7), "twice"));
    }

    #[test]
    fn what_is_allowed_after_all_is_no_culprit() {
        let mut suspects = Suspects::default();
        suspects.add(Class::GivenUpWrongly, "dead", stray(1));
        suspects.clear(Class::GivenUpWrongly);
        assert!(suspects.pick().is_empty());
    }
}
