//! JSON that was sent, read strictly.
//!
//! How a document is wrong decides the status: 400 what is no JSON, 422 what is JSON of another
//! shape.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::error::Category;

use crate::{body, error::Error};

/// The longest reason; serde repeats what was sent in it.
const REASON_MAX: usize = 300;

/// The body of a request that is said to be JSON, not yet read.
#[derive(Debug)]
pub struct JsonBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        body::read(request, "application/json").await.map(Self)
    }
}

impl JsonBody {
    /// Reads it. That unknown and repeated fields are refused is the type's business.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read(&self.0)
    }

    /// Whether it begins like an array.
    pub fn is_array(&self) -> bool {
        self.0.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
    }
}

/// Reads a body that is JSON, whatever it was said to be.
///
/// # Errors
/// 400 what is no JSON, 422 what is JSON of another shape.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::bad_request("The body is empty."));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Error::bad_request(format!("The body is not valid UTF-8 at byte {at}."))
    })?;
    serde_json::from_str(text).map_err(|error| {
        let reason = error.to_string();
        let mut short: String = reason.chars().take(REASON_MAX).collect();
        if short.len() < reason.len() {
            short.push('\u{2026}');
        }
        match error.classify() {
            Category::Data => {
                Error::unprocessable(format!("The JSON is not as expected: {short}."))
            }
            _ => Error::bad_request(format!("The body is not JSON: {short}.")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        message: String,
    }

    fn status(body: &[u8]) -> StatusCode {
        read::<Item>(body).unwrap_err().status()
    }

    #[test]
    fn what_is_no_json_is_400_and_what_has_another_shape_422() {
        assert_eq!(
            read::<Item>(br#" {"message":"hi"} "#).unwrap().message,
            "hi"
        );
        for body in [
            &b""[..],
            b"  ",
            b"{",
            b"{'message':1}",
            b"\"\xff\"",
            br#"{"message":"a"} {}"#,
            b"\0",
            b"NaN",
        ] {
            assert_eq!(status(body), StatusCode::BAD_REQUEST, "{body:?}");
        }
        for body in [
            r#"{"message":1}"#,
            r#"{"message":null}"#,
            r#"{"mesage":"a"}"#,
            r#"{"message":"a","message":"b"}"#,
            r#"{"message":"a","x":1}"#,
            "{}",
            "null",
            "1",
        ] {
            assert_eq!(
                status(body.as_bytes()),
                StatusCode::UNPROCESSABLE_ENTITY,
                "{body}"
            );
        }
    }

    #[test]
    fn the_reason_is_not_as_long_as_what_was_sent() {
        let long = format!("\"{}\"", "x".repeat(10_000));
        assert!(read::<Item>(long.as_bytes()).unwrap_err().detail().len() < 400);
    }

    #[test]
    fn a_deep_document_is_refused_and_not_followed() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(read::<serde_json::Value>(deep.as_bytes()).is_err());
    }
}
