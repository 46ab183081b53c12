//! Taking a note from a program: `{"content": ".."}` to `/save`.
//!
//! Known by its `Idempotency-Key`: repeated, it is answered as the first time. Errors are problem details. What calls itself a
//! form is taken too, so nothing but the look at its origin keeps a foreign page from saving in the name of its visitor.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use messaging::text::Text;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use web::{
    Error, headers,
    json::JsonBody,
    origin::{Origin, origin},
};

use super::App;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    content: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    id: Uuid,
    number: i64,
    accepted_at: DateTime<Utc>,
}

pub(super) async fn save(
    State(app): State<Arc<App>>,
    said: HeaderMap,
    body: JsonBody,
) -> Result<Response, Error> {
    if origin(&said) == Origin::Foreign {
        return Err(Error::forbidden(
            "Notes are only accepted from programs and from this site's own pages.",
        ));
    }
    let key = headers::key(&said)?;
    let run = headers::run(&said)?;
    if body.is_array() {
        // It would be read as the fields in their order.
        let detail = "The JSON is not as expected: an array, not an object with `content`.";
        return Err(Error::unprocessable(detail));
    }
    let New { content } = body.read()?;
    let content = content_of(&content)?;
    let accepted = app.accept(key, content, run).await?;
    let receipt = Receipt {
        id: accepted.message_id,
        number: accepted.number,
        accepted_at: accepted.accepted_at,
    };
    let location = [(LOCATION, format!("/notes/{}", receipt.id))];
    Ok((StatusCode::ACCEPTED, location, Json(receipt)).into_response())
}

/// What somebody wrote, if it may be a note.
pub(super) fn content_of(written: &str) -> Result<Text, Error> {
    Text::parse(written).map_err(|error| Error::unprocessable(error.about("content")))
}
