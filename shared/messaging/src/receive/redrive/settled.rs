//! What became of dead letters that were named and are not parked. Who names a message means that one: that it is gone is said,
//! and nothing is done. Who ticks dead letters in a list, which was true a while ago, means those that are left, if any are.

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::{FromRow, Postgres, Transaction};
use uuid::Uuid;

use super::{not_done::NotDone, selection::Selection};

/// So many are told; of the others only how many they are.
const TOLD: i64 = 5;

/// One that was named and is not parked.
#[derive(Debug, FromRow)]
struct Settled {
    name: String,
    /// None: there is no such dead letter.
    state: Option<String>,
    decided_at: Option<DateTime<Utc>>,
    redriven_by: Option<Uuid>,
    discarded_by: Option<String>,
    /// How many they are in all.
    count: i64,
}

impl Settled {
    fn told(&self) -> String {
        let name = &self.name;
        let at = self.decided_at.map_or_else(String::new, |at| {
            format!(" at {}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
        });
        let redrive = self.redriven_by.unwrap_or_default();
        match self.state.as_deref() {
            None => format!("there is no {name}"),
            Some("discarded") => {
                let who = self.discarded_by.as_deref().unwrap_or("somebody");
                format!("the {name} was discarded already{at}, by {who}")
            }
            Some("redriven") => {
                format!("the {name} was sent back already{at}, by redrive {redrive}")
            }
            Some(_) => format!(
                "the {name} is settled already: its message has its effect, as redrive {redrive} found{at}"
            ),
        }
    }
}

/// Whether each message that is named has a dead letter that is parked.
///
/// # Errors
/// [`NotDone::Settled`] where one has none.
pub(super) async fn check(
    tx: &mut Transaction<'_, Postgres>,
    selection: &Selection,
) -> Result<(), NotDone> {
    let Some(messages) = &selection.messages else {
        return Ok(());
    };
    // + 0: by the index of messages, not backwards through all dead letters
    let settled: Vec<Settled> = sqlx::query_as(
        "select 'dead letter of message ' || asked.id::text as name, d.state, d.decided_at, d.redriven_by, d.discarded_by,
                count(*) over () as count
           from (select distinct unnest($1::uuid[]) as id) as asked
           left join lateral (
                select * from dead_letter l where l.message_id = asked.id order by l.dead_letter_id + 0 desc limit 1
           ) as d on true
          where not exists (select from dead_letter p where p.message_id = asked.id and p.state = 'parked')
          order by asked.id limit $2",
    )
    .bind(messages)
    .bind(TOLD)
    .fetch_all(&mut **tx)
    .await?;
    told(&settled).map_or(Ok(()), |told| Err(NotDone::Settled(told)))
}

/// Why nothing fits that could be sent back or discarded. `not_ours`: so many fit that can only be discarded.
pub(super) async fn nothing(
    tx: &mut Transaction<'_, Postgres>,
    selection: &Selection,
    not_ours: i64,
) -> Result<NotDone, sqlx::Error> {
    if not_ours > 0 {
        return Ok(NotDone::NotOurs { count: not_ours });
    }
    let Some(numbers) = &selection.ids else {
        return Ok(NotDone::NoneFits);
    };
    let settled: Vec<Settled> = sqlx::query_as(
        "select 'dead letter ' || asked.id::text as name, d.state, d.decided_at, d.redriven_by, d.discarded_by,
                count(*) over () as count
           from (select distinct unnest($1::bigint[]) as id) as asked
           left join dead_letter d on d.dead_letter_id = asked.id
          where d.state is distinct from 'parked'
          order by asked.id limit $2",
    )
    .bind(numbers)
    .bind(TOLD)
    .fetch_all(&mut **tx)
    .await?;
    Ok(told(&settled).map_or(NotDone::NoneFits, NotDone::Settled))
}

/// None: there are none.
fn told(settled: &[Settled]) -> Option<String> {
    let all = settled.first()?.count;
    let mut told: Vec<String> = settled.iter().map(Settled::told).collect();
    let more = all - i64::try_from(told.len()).unwrap_or(i64::MAX);
    if more > 0 {
        told.push(format!("and so with {more} more"));
    }
    Some(told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(state: Option<&str>, count: i64) -> Settled {
        Settled {
            name: "dead letter 7".to_owned(),
            state: state.map(str::to_owned),
            decided_at: state.map(|_| DateTime::default()),
            redriven_by: None,
            discarded_by: Some("192.0.2.1".to_owned()),
            count,
        }
    }

    #[test]
    fn what_became_of_a_dead_letter_is_told_in_words() {
        let redrive = Uuid::nil();
        for (state, right) in [
            (None, "there is no dead letter 7".to_owned()),
            (
                Some("discarded"),
                "the dead letter 7 was discarded already at 1970-01-01T00:00:00Z, by 192.0.2.1"
                    .to_owned(),
            ),
            (
                Some("redriven"),
                format!(
                    "the dead letter 7 was sent back already at 1970-01-01T00:00:00Z, by redrive {redrive}"
                ),
            ),
        ] {
            assert_eq!(told(&[settled(state, 1)]).unwrap(), right);
        }
        let effect = told(&[settled(Some("has-effect"), 1)]).unwrap();
        assert!(effect.contains("its message has its effect"), "{effect}");
    }

    #[test]
    fn of_many_only_some_are_told() {
        assert_eq!(told(&[]), None);
        let told = told(&[settled(None, 9), settled(None, 9)]).unwrap();
        assert!(
            told.ends_with("dead letter 7; and so with 7 more"),
            "{told}"
        );
    }
}
