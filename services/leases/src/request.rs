//! What a request says: the queue and the message in its address, its parameters, its headers and its JSON.

use std::{ops::RangeInclusive, str::FromStr, sync::Arc};

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, StatusCode, request::Parts},
};
use serde_json::value::RawValue;
use uuid::Uuid;
use web::{Error, headers::header, json, show::number};

use crate::{app::App, queue};

/// Longest message, in bytes of JSON.
pub(crate) const MESSAGE_MAX: usize = 256 * 1024;
/// Messages in one request.
pub(crate) const BATCH_MAX: usize = 1_000;

/// The queue that an address names, `default` where it names none; it exists.
pub(crate) struct Queue {
    pub(crate) queue_id: i32,
}

impl FromRequestParts<Arc<App>> for Queue {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        app.need_database()?;
        let name = in_path(parts, "name").await;
        let name = name.as_deref().unwrap_or(queue::DEFAULT);
        if !queue::is_name(name) {
            return Err(no_queue(name));
        }
        let found = app.queues.number(name).await?;
        found
            .map(|queue_id| Self { queue_id })
            .ok_or_else(|| no_queue(name))
    }
}

/// 404: nobody made it.
pub(crate) fn no_queue(name: &str) -> Error {
    let name: String = name.chars().take(queue::NAME_MAX).collect();
    Error::new(
        StatusCode::NOT_FOUND,
        format!("There is no queue {name:?}. PUT /queues/{name} makes it."),
    )
}

/// The message that an address names.
pub(crate) struct MessageId(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for MessageId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let id = in_path(parts, "id").await;
        // What is no UUID is the id of no message.
        let id = id.and_then(|id| Uuid::try_parse(&id).ok());
        id.map(Self).ok_or_else(not_leased)
    }
}

/// What a path has at this place.
pub(crate) async fn in_path(parts: &mut Parts, name: &str) -> Option<String> {
    let path = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let found = path.iter().find(|(place, _)| *place == name);
    found.map(|(_, value)| value.to_owned())
}

/// 404: whatever the reason, there is no such lease.
pub(crate) fn not_leased() -> Error {
    Error::new(
        StatusCode::NOT_FOUND,
        "This message is not leased to you: it is unknown here, already confirmed, or its lease has ended.",
    )
}

/// The values of these parameters; any other one, and one that is there twice, is refused.
pub(crate) fn parameters<'a, const N: usize>(
    query: Option<&'a str>,
    names: [&'static str; N],
) -> Result<[Option<&'a str>; N], Error> {
    let mut values = [None; N];
    let pairs = query.unwrap_or_default().split('&');
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(place) = names.iter().position(|known| *known == name) else {
            let name: String = name.chars().take(40).collect();
            let known = match names.join(", ") {
                none if none.is_empty() => "there are none here".to_owned(),
                known => format!("known here: {known}"),
            };
            let detail = format!("The parameter {name:?} is unknown; {known}.");
            return Err(Error::bad_request(detail));
        };
        if values[place].replace(value).is_some() {
            let detail = format!("The parameter {name} is there twice.");
            return Err(Error::bad_request(detail));
        }
    }
    Ok(values)
}

/// A whole number within bounds, if there is a value.
pub(crate) fn whole<T: FromStr + PartialOrd + Into<i64> + Copy>(
    name: &'static str,
    value: Option<&str>,
    bounds: &RangeInclusive<T>,
) -> Result<Option<T>, Error> {
    let Some(value) = value else {
        return Ok(None);
    };
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = value.parse().ok().filter(|_| digits);
    if let Some(parsed) = parsed.filter(|parsed| bounds.contains(parsed)) {
        return Ok(Some(parsed));
    }
    let [from, to] = [*bounds.start(), *bounds.end()].map(|bound| number(bound.into()));
    let detail = format!("{name} is a whole number from {from} to {to}.");
    Err(Error::bad_request(detail))
}

/// The lease's token, in the header or in the query. One that is no UUID is the token of no lease.
pub(crate) fn token(headers: &HeaderMap, query: Option<&str>) -> Result<Option<Uuid>, Error> {
    let in_header = header(headers, "x-lease-token", 200)?;
    let said = match (in_header.as_deref(), query) {
        (Some(one), Some(other)) if one != other => {
            return Err(Error::bad_request(
                "The header X-Lease-Token and the parameter token differ.",
            ));
        }
        (one, other) => one.or(other),
    };
    said.map(|token| Uuid::try_parse(token).map_err(|_| not_leased()))
        .transpose()
}

/// A message: any JSON, as it was sent.
pub(crate) fn message(body: &[u8]) -> Result<String, Error> {
    if body.len() > MESSAGE_MAX {
        return Err(too_large(""));
    }
    let document: &RawValue = json::read(body)?;
    Ok(document.get().to_owned())
}

/// An array of messages.
pub(crate) fn messages(body: &[u8]) -> Result<Vec<String>, Error> {
    let documents: Vec<&RawValue> = json::read(body)?;
    if documents.is_empty() {
        return Err(Error::unprocessable("The array is empty."));
    }
    if documents.len() > BATCH_MAX {
        let detail = format!(
            "These are {} messages; at most 1,000 are taken at once.",
            documents.len()
        );
        return Err(Error::unprocessable(detail));
    }
    for (index, document) in documents.iter().enumerate() {
        if document.get().len() > MESSAGE_MAX {
            return Err(too_large(&format!("At index {index}: ")));
        }
    }
    let owned = documents
        .into_iter()
        .map(|document| document.get().to_owned());
    Ok(owned.collect())
}

fn too_large(place: &str) -> Error {
    Error::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("{place}The message is larger than 256 KiB, the most that is taken."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_json_is_a_message_and_stays_as_it_was_sent() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for document in [
            r#"{"a":  1.10, "a": 1e400}"#,
            r#""\u0000 \ud800 \/""#,
            "123456789012345678901234567890",
            "null",
            "-0",
            &deep,
        ] {
            assert_eq!(message(document.as_bytes()).unwrap(), document);
        }
        assert_eq!(message(b" [1, 2]\n").unwrap(), "[1, 2]");
    }

    #[test]
    fn what_is_no_json_is_400_and_what_is_too_large_413() {
        for wrong in [
            &b""[..],
            b" ",
            b"{",
            b"{'a':1}",
            b"1 2",
            b"01",
            b"NaN",
            b"\"\xff\"",
            b"\"\0\"",
            b"\xef\xbb\xbf1",
        ] {
            let error = message(wrong).unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{wrong:?}");
        }
        let full = format!("\"{}\"", "x".repeat(MESSAGE_MAX - 2));
        assert!(message(full.as_bytes()).is_ok());
        let over = format!("\"{}\"", "x".repeat(MESSAGE_MAX - 1));
        let error = message(over.as_bytes()).unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let error = messages(format!("[1,{over}]").as_bytes()).unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(
            error.detail().starts_with("At index 1"),
            "{}",
            error.detail()
        );
    }

    #[test]
    fn a_batch_is_an_array_of_one_to_a_thousand() {
        assert_eq!(messages(b"[1, \"a\" ,{}]").unwrap(), ["1", "\"a\"", "{}"]);
        let many = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert_eq!(
            messages(many(BATCH_MAX).as_bytes()).unwrap().len(),
            BATCH_MAX
        );
        for wrong in ["[]", "{}", "1", &many(BATCH_MAX + 1)] {
            let error = messages(wrong.as_bytes()).unwrap_err();
            assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
        }
        assert!(messages(b"[1,").is_err_and(|e| e.status() == StatusCode::BAD_REQUEST));
    }

    #[test]
    fn a_parameter_is_known_and_said_once() {
        let read = |query| parameters(Some(query), ["a", "b"]);
        assert_eq!(read("b=1&a=").unwrap(), [Some(""), Some("1")]);
        assert_eq!(read("").unwrap(), [None, None]);
        for wrong in ["c=1", "a=1&a=1", "A=1", "%61=1", "=1"] {
            let status = read(wrong).unwrap_err().status();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    #[test]
    fn a_number_has_bounds() {
        let read = |value| whole::<i32>("amount", Some(value), &(1..=1_000));
        assert_eq!(read("1").unwrap(), Some(1));
        assert_eq!(read("1000").unwrap(), Some(1_000));
        for wrong in ["0", "1001", "-1", "+1", "1.0", "", "x", "99999999999"] {
            let error = read(wrong).unwrap_err();
            assert_eq!(error.detail(), "amount is a whole number from 1 to 1,000.");
        }
    }
}
