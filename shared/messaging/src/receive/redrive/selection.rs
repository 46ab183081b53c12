//! Which dead letters are meant.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{Postgres, postgres::PgArguments, query::Query};
use uuid::Uuid;

/// All that is named must fit. Nothing named is no selection, unless `all` says that it is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Whatever is parked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Numbers of dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<i64>>,
    /// Ids of messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Uuid>>,
    /// The reason, with a `#` for each number in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Their run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The receiver that parked them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What their text contains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Parked at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Parked before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
}

impl Selection {
    /// What a dead letter `d` must be, with the parameters that [`Selection::bind`] binds, from `$1` to `$8`. For everybody
    /// who lists dead letters, too: what is listed is what a redrive would take. The text is looked for in the bytes of the
    /// body: whatever is in there, that cannot fail. What costs most for a row comes last.
    pub const FITS: &'static str = "d.state = 'parked'
    and ($1::bigint[] is null or d.dead_letter_id = any ($1))
    and ($2::uuid[] is null or d.message_id = any ($2))
    and ($4::text is null or d.run = $4)
    and ($5::text is null or d.node = $5)
    and ($7::timestamptz is null or d.dead_at >= $7)
    and ($8::timestamptz is null or d.dead_at < $8)
    and ($3::text is null or regexp_replace(d.reason, '[0-9]+', '#', 'g') = $3)
    and ($6::bytea is null or position($6 in d.body) > 0)";

    /// Nothing is named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a text in it has a NUL, which Postgres does not take.
    pub fn has_nul(&self) -> bool {
        let texts = [&self.reason, &self.run, &self.node, &self.text];
        texts.into_iter().flatten().any(|text| text.contains('\0'))
    }

    /// Binds the first eight parameters. The query is planned anew each time: a plan that fits all selections uses none of the
    /// indexes.
    pub fn bind<'q>(
        &self,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        query
            .persistent(false)
            .bind(self.ids.clone())
            .bind(self.messages.clone())
            .bind(self.reason.clone())
            .bind(self.run.clone())
            .bind(self.node.clone())
            .bind(self.text.as_deref().map(in_json))
            .bind(self.from)
            .bind(self.to)
    }
}

/// The bytes of a text within JSON.
fn in_json(text: &str) -> Vec<u8> {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.as_bytes()[1..quoted.len() - 1].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_looked_for_as_it_is_in_a_body() {
        let message = crate::message::Message {
            number: 1,
            text: "say \"hé\"\n".to_owned(),
        };
        let body = message.to_body();
        let contains = |text| {
            let part = in_json(text);
            body.windows(part.len()).any(|window| window == part)
        };
        assert!(contains("\"hé\"") && contains("é\"\n") && !contains("he"));
    }

    #[test]
    fn a_selection_of_nothing_is_empty_and_one_of_all_is_not() {
        let read = |text| serde_json::from_str::<Selection>(text);
        assert!(read("{}").unwrap().is_empty());
        assert!(!read(r#"{"all": true}"#).unwrap().is_empty());
        assert!(!read(r#"{"ids": []}"#).unwrap().is_empty());
        assert!(read(r#"{"resaon": "x"}"#).is_err());
    }

    #[test]
    fn a_nul_is_found_in_every_text() {
        for name in ["reason", "run", "node", "text"] {
            let read = |text: &str| {
                let asked = serde_json::json!({ name: text });
                serde_json::from_value::<Selection>(asked).unwrap()
            };
            assert!(read("a\0").has_nul() && !read("a").has_nul(), "{name}");
        }
    }
}
