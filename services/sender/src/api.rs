//! The API for programs: hand in messages, and ask where one is.
//!
//! One message or up to 1,000 in one request, all or none of them, known by the request's
//! `Idempotency-Key`: repeated, it is answered as the first time. Errors are problem details.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use daemon::database::within;
use messaging::{
    send::accept::{Accepted, Submission, SubmitError},
    text::Text,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};
use uuid::Uuid;
use web::{Error, Site, headers, json::JsonBody};

use crate::{
    app::App,
    message::{self, MessageRow},
};

/// Messages in one request.
const MESSAGES_MAX: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(3);

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/messages", post(accept))
        .route("/api/messages/{id}", get(one))
}

/// One message of a request.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    message: String,
}

#[derive(Debug, Serialize)]
struct Receipt {
    message_id: Uuid,
    number: i64,
    accepted_at: DateTime<Utc>,
    repeated: bool,
}

#[derive(Debug, Serialize)]
struct Receipts {
    messages: Vec<Receipt>,
}

async fn accept(
    State(app): State<Arc<App>>,
    said: HeaderMap,
    body: JsonBody,
) -> Result<Response, Error> {
    let key = headers::key(&said)?;
    let run = headers::run(&said)?;
    let many = body.is_array();
    let items = if many {
        body.read::<Vec<Item>>()?
    } else {
        vec![body.read::<Item>()?]
    };
    let texts = texts(&items, many)?;
    let accepted = app
        .submit(Submission {
            key,
            texts,
            session: None,
            run,
        })
        .await
        .map_err(told)?;
    let mut messages: Vec<Receipt> = accepted.into_iter().map(Receipt::from).collect();
    if many {
        return Ok((StatusCode::ACCEPTED, Json(Receipts { messages })).into_response());
    }
    let Some(receipt) = messages.pop() else {
        return Err(Error::internal(anyhow::anyhow!("nothing was answered")));
    };
    let location = [(LOCATION, format!("/api/messages/{}", receipt.message_id))];
    Ok((StatusCode::ACCEPTED, location, Json(receipt)).into_response())
}

fn texts(items: &[Item], many: bool) -> Result<Vec<Text>, Error> {
    if items.is_empty() {
        return Err(Error::unprocessable("The array is empty."));
    }
    if items.len() > MESSAGES_MAX {
        let detail = format!(
            "These are {} messages; at most 1,000 are accepted at once.",
            items.len()
        );
        return Err(Error::unprocessable(detail));
    }
    let text = |(index, item): (usize, &Item)| {
        Text::parse(&item.message).map_err(|error| {
            let place = if many {
                format!("At index {index}: ")
            } else {
                String::new()
            };
            Error::unprocessable(format!("{place}{error}"))
        })
    };
    items.iter().enumerate().map(text).collect()
}

async fn one(
    State(app): State<Arc<App>>,
    site: Site,
    Path(id): Path<String>,
) -> Result<Json<MessageRow>, Error> {
    let id = Uuid::try_parse(&id)
        .map_err(|_| Error::bad_request("A message id is a UUID, and this is none."))?;
    site.need_database()?;
    let found = within(LIMIT, message::by_id(&app.database.pool, id)).await?;
    let none = || Error::new(StatusCode::NOT_FOUND, "There is no message with this id.");
    found.map(Json).ok_or_else(none)
}

impl From<Accepted> for Receipt {
    fn from(accepted: Accepted) -> Self {
        let Accepted {
            message_id,
            number,
            accepted_at,
            repeated,
        } = accepted;
        Self {
            message_id,
            number,
            accepted_at,
            repeated,
        }
    }
}

/// As a client is told it.
#[expect(clippy::needless_pass_by_value, reason = "it is used to map errors")]
pub(crate) fn told(error: SubmitError) -> Error {
    let said = match error {
        SubmitError::KeyReused => Error::unprocessable(error.detail()),
        _ => Error::away(error.detail()),
    };
    said.coded(error.code())
}

/// By hand: a derived one would also take `["text"]` for an object.
impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the field `message`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let mut message = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != "message" {
                return Err(A::Error::unknown_field(&name, &["message"]));
            }
            if message.replace(map.next_value()?).is_some() {
                return Err(A::Error::duplicate_field("message"));
            }
        }
        message
            .map(|message| Item { message })
            .ok_or_else(|| A::Error::missing_field("message"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_an_object_with_a_message_and_nothing_else() {
        let read = serde_json::from_str::<Item>;
        assert_eq!(read(r#"{"message":"hi"}"#).unwrap().message, "hi");
        for (json, reason) in [
            (r#"["hi"]"#, "expected an object"),
            (r#""hi""#, "expected an object"),
            ("{}", "missing field `message`"),
            (r#"{"message":1}"#, "expected a string"),
            (
                r#"{"message":"a","message":"b"}"#,
                "duplicate field `message`",
            ),
            (
                r#"{"message":"a","massage":"b"}"#,
                "unknown field `massage`",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }

    #[test]
    fn a_wrong_text_is_named_by_its_place() {
        let items = ["a", " "].map(|message| Item {
            message: message.to_owned(),
        });
        let error = texts(&items, true).unwrap_err();
        assert_eq!(error.detail(), "At index 1: The message is empty.");
        assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let many: Vec<_> = (0..=MESSAGES_MAX)
            .map(|_| Item {
                message: "a".to_owned(),
            })
            .collect();
        assert!(texts(&many, true).is_err());
        assert_eq!(texts(&many[1..], true).unwrap().len(), MESSAGES_MAX);
        assert!(texts(&[], true).is_err());
    }
}
