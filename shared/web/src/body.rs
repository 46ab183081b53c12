//! The body of a request, whole, and of the right type.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, header},
};

use crate::error::Error;

/// How large a body may be. The gateway refuses a byte more than 1 MiB; a little above it here, so
/// that it is the gateway that refuses, before it has passed on anything.
pub(crate) const BODY_MAX: usize = 1024 * 1024 + 64 * 1024;

/// Reads the body, if it is said to be of this media type.
pub(crate) async fn read(request: Request, media: &'static str) -> Result<Bytes, Error> {
    check_type(request.headers(), media)?;
    collect(request.into_body()).await
}

async fn collect(body: Body) -> Result<Bytes, Error> {
    to_bytes(body, BODY_MAX).await.map_err(|error| {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            // The name of the type that the limiting layer gives is not public everywhere.
            if error.to_string().contains("length limit exceeded") {
                return Error::too_large();
            }
            cause = error.source();
        }
        Error::incomplete()
    })
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
