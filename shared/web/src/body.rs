//! The body of a request: read whole before anybody answers, and of the right type.
//!
//! A client reads the answer when it has written its body, and a connection that is closed while it
//! still writes may take the answer along. So a body is read to its end also where the answer is
//! known before, and what is too large is thrown away as it comes, up to a bound. How long that may
//! take is the server's business: it ends a body that does not come with an error.

use std::{future::poll_fn, pin::Pin};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::Request,
    http::{HeaderMap, header},
};

use crate::error::Error;

/// How large a body may be. The gateway refuses a byte more than 1 MiB; a little above it here, so
/// that it is the gateway that refuses, before it has passed on anything.
const BODY_MAX: usize = 1024 * 1024 + 64 * 1024;
/// How much of a body that is too large is read, so that its sender hears why. After that the answer
/// is given and the connection closed, whether the answer arrives or not.
const READ_MAX: usize = 8 * 1024 * 1024;

/// Reads the body, whoever answers then. An error for one that is too large: it goes no further.
pub(crate) async fn read_whole(request: Request) -> Result<Request, Error> {
    let (head, body) = request.into_parts();
    let body = whole(body).await?;
    Ok(Request::from_parts(head, body.into()))
}

async fn whole(mut body: Body) -> Result<Bytes, Error> {
    if body.size_hint().lower() > READ_MAX as u64 {
        return Err(Error::too_large());
    }
    let (mut kept, mut length) = (Vec::new(), 0);
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(_) if length > BODY_MAX => break,
            Err(_) => return Err(Error::incomplete()),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length > READ_MAX {
            break;
        }
        if length > BODY_MAX {
            kept = Vec::new();
        } else {
            kept.extend_from_slice(&data);
        }
    }
    if length > BODY_MAX {
        return Err(Error::too_large());
    }
    Ok(kept.into())
}

/// The body, if it is said to be of this media type.
pub(crate) async fn read(request: Request, media: &'static str) -> Result<Bytes, Error> {
    check_type(request.headers(), media)?;
    let body = to_bytes(request.into_body(), BODY_MAX).await;
    body.map_err(|_| Error::incomplete())
}

/// A charset, where one is named, must be UTF-8; other parameters do not matter.
fn check_type(headers: &HeaderMap, media: &'static str) -> Result<(), Error> {
    let named = headers.get(header::CONTENT_TYPE);
    let named = named.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(named) = named else {
        return Err(Error::unsupported(format!(
            "The Content-Type is missing. Right is {media}."
        )));
    };
    let mut parts = named.split(';').map(str::trim);
    if !parts.next().unwrap_or_default().eq_ignore_ascii_case(media) {
        let named: String = named.chars().take(100).collect();
        return Err(Error::unsupported(format!(
            "The Content-Type is {named}. Right is {media}."
        )));
    }
    let charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map(|(_, value)| value.trim().trim_matches('"').to_ascii_lowercase());
    match charset.as_deref() {
        None | Some("utf-8" | "utf8") => Ok(()),
        Some(_) => Err(Error::unsupported(
            "The charset is not UTF-8, the only one that is read.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        check_type(&headers, "application/json").is_ok()
    }

    #[test]
    fn only_the_right_type_passes() {
        assert!(check("application/json"));
        assert!(check("Application/JSON; charset=\"UTF-8\""));
        assert!(!check("application/json; charset=latin1"));
        for wrong in [
            "text/plain",
            "application/jsonp",
            "",
            ";",
            "multipart/form-data",
        ] {
            assert!(!check(wrong), "{wrong}");
        }
        assert!(check_type(&HeaderMap::new(), "application/json").is_err());
    }
}
