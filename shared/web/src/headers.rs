//! What a request says of itself in headers of ours: the key by which its repetition is known, and its run.

use axum::http::HeaderMap;
use uuid::Uuid;

use crate::error::Error;

const KEY: &str = "idempotency-key";
/// Where the gateway puts a key of its own; it keeps a client from setting it.
const GATEWAY_KEY: &str = "x-gateway-key";
const KEY_MAX: usize = 200;
const RUN: &str = "x-run";
const RUN_MAX: usize = 64;

/// The key of a request; where the client gave none the gateway's, which stays the same when it
/// tries another node, or a fresh one.
pub fn key(headers: &HeaderMap) -> Result<String, Error> {
    for name in [KEY, GATEWAY_KEY] {
        if let Some(key) = header(headers, name, KEY_MAX)? {
            return Ok(key);
        }
    }
    Ok(Uuid::new_v4().to_string())
}

/// The run that a request belongs to, if it names one.
pub fn run(headers: &HeaderMap) -> Result<Option<String>, Error> {
    header(headers, RUN, RUN_MAX)
}

/// A header of 1 to `max` visible ASCII characters, if it is there.
pub fn header(headers: &HeaderMap, name: &str, max: usize) -> Result<Option<String>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let wrong = || {
        let detail = format!("The header {name} is 1 to {max} visible ASCII characters, once.");
        Error::bad_request(detail)
    };
    let bytes = value.as_bytes();
    let right = (1..=max).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    if !right || values.next().is_some() {
        return Err(wrong());
    }
    value
        .to_str()
        .map(|value| Some(value.to_owned()))
        .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_key_is_visible_ascii_and_given_once() {
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(KEY, HeaderValue::from_static(value));
            }
            header(&headers, KEY, 8)
        };
        assert_eq!(with(&[]).unwrap(), None);
        assert_eq!(with(&["a-b_1"]).unwrap().as_deref(), Some("a-b_1"));
        for wrong in [&[""][..], &["a b"], &["123456789"], &["a", "b"]] {
            assert!(with(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_gateways_key_counts_where_the_client_gave_none() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            key(&headers)
        };
        assert_eq!(with(&[(GATEWAY_KEY, "g")]).unwrap(), "g");
        assert_eq!(with(&[(GATEWAY_KEY, "g"), (KEY, "k")]).unwrap(), "k");
        assert!(with(&[(GATEWAY_KEY, "g"), (KEY, "")]).is_err());
        assert_ne!(with(&[]).unwrap(), with(&[]).unwrap());
    }
}
