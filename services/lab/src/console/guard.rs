//! The one layer around everything under `/lab`: who asks, from where, and whether it may be done.
//!
//! Looks are free to everybody who may see this machine. Whatever else must name this console in `Host`, must not come from
//! a page of another origin, must be signed in and must bring the session's own word (CSRF): in the field `csrf` of a form,
//! or in the header `X-CSRF-Token`, which no foreign form can set. Only signing in needs no session. Each deed is written
//! into `actions.log` with what became of it, a refused one too; what was refused to a stranger into `refused.log`.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use web::Error;
use web::origin::{Origin, equal, origin};

use super::access::{Door, Visitor};
use super::actions::{Actions, Why};
use crate::service::guard::is_loopback;

/// Where one signs in: the only deed without a session.
pub const SIGN_IN: &str = "/lab/sign-in";
/// The whole body was read before: it is no larger than this.
const BODY_MAX: usize = 1024 * 1024;
/// So much of each parameter, and of the path, goes on record.
const SHOWN_MAX: usize = 200;
const SECRETS: [&str; 3] = ["csrf", "token", "password"];
const CSRF: &str = "csrf";
const CSRF_HEADER: &str = "x-csrf-token";

/// What the layer needs.
#[derive(Clone)]
pub struct Guard {
    pub door: Door,
    pub actions: Actions,
    /// Names in `Host` beside those of loopback.
    pub hosts: Vec<String>,
}

/// The layer.
pub async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let visitor = guard.door.visitor(request.headers());
    request.extensions_mut().insert(visitor.clone());
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if looks {
        return match guard.meant_for_us(request.headers()) {
            Ok(()) => next.run(request).await,
            Err(error) => error.into_response(),
        };
    }
    let path: String = request.uri().path().chars().take(SHOWN_MAX).collect();
    let deed = format!("{} {path}", request.method());
    let address = address(request.headers()).to_owned();
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        return Error::too_large().into_response();
    };
    let form = is_form(&parts.headers);
    let (given, body) = if form { take_csrf(&body) } else { (None, body) };
    let parameters = parameters(&parts.headers, &body);
    let given = given.or_else(|| {
        let header = parts.headers.get(CSRF_HEADER);
        header
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    });
    let sign_in = parts.uri.path() == SIGN_IN;
    let allowed = guard
        .meant_for_us(&parts.headers)
        .and_then(|()| own_origin(&parts.headers))
        .and_then(|()| {
            if sign_in {
                Ok(())
            } else {
                signed_in(&visitor, given.as_deref())
            }
        });
    let mut response = match allowed {
        Ok(()) => {
            let mut request = Request::from_parts(parts, Body::from(body));
            // it may be shorter than it was sent
            request.headers_mut().remove(header::CONTENT_LENGTH);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    let said = response.extensions();
    let why = said.get::<Error>().map(|error| error.detail().to_owned());
    let why = why.or_else(|| said.get::<Why>().map(|why| why.0.clone().into_owned()));
    let outcome = (response.status().as_u16(), why.as_deref());
    let who = (&*address, !visitor.signed_in);
    guard.actions.write(who, &deed, &parameters, outcome);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Guard {
    /// A foreign name that was made to point here would pass for our own origin.
    fn meant_for_us(&self, headers: &HeaderMap) -> Result<(), Error> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let ours = |host: &str| {
            is_loopback(host)
                || self
                    .hosts
                    .iter()
                    .any(|ours| ours.eq_ignore_ascii_case(host))
        };
        if hosts.next().is_none() && host.is_some_and(ours) {
            return Ok(());
        }
        let detail = "The console answers to this machine's own names only; the header Host names another place.";
        Err(Error::new(StatusCode::MISDIRECTED_REQUEST, detail))
    }
}

fn own_origin(headers: &HeaderMap) -> Result<(), Error> {
    if origin(headers) == Origin::Foreign {
        let detail = "This came from a page of another origin; nothing was done.";
        return Err(Error::forbidden(detail).coded("foreign_origin"));
    }
    Ok(())
}

fn signed_in(visitor: &Visitor, given: Option<&str>) -> Result<(), Error> {
    if !visitor.signed_in {
        let detail = "Only those who signed in may do this; nothing was done. Sign in at /lab/sign-in with the token of this stack.";
        return Err(Error::forbidden(detail).coded("not_signed_in"));
    }
    if !equal(given.unwrap_or_default(), &visitor.csrf) {
        let detail =
            "This page is of another session; nothing was done. Load it again and repeat it.";
        return Err(Error::forbidden(detail).coded("wrong_csrf"));
    }
    Ok(())
}

/// The client's address as the gateway saw it; whoever asks the console itself is on this machine.
pub fn address(headers: &HeaderMap) -> &str {
    let real = headers.get("x-real-ip").and_then(|ip| ip.to_str().ok());
    real.filter(|ip| ip.len() <= 64).unwrap_or("direct")
}

fn is_form(headers: &HeaderMap) -> bool {
    let media = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    media.starts_with(b"application/x-www-form-urlencoded")
}

/// Takes the field out of a form, so that no handler has to know of it. Twice is not right.
fn take_csrf(body: &Bytes) -> (Option<String>, Bytes) {
    let is_ours = |pair: &&[u8]| pair.split(|byte| *byte == b'=').next() == Some(CSRF.as_bytes());
    let pairs: Vec<&[u8]> = body.split(|byte| *byte == b'&').collect();
    let mut ours = pairs.iter().copied().filter(|pair| is_ours(pair));
    let (first, second) = (ours.next(), ours.next());
    let given = first.filter(|_| second.is_none()).and_then(|pair| {
        let value = pair.get(CSRF.len() + 1..).unwrap_or_default();
        String::from_utf8(value.to_vec()).ok()
    });
    let rest: Vec<&[u8]> = pairs.into_iter().filter(|pair| !is_ours(pair)).collect();
    (given, Bytes::from(rest.join(&b"&"[..])))
}

/// What goes on record: fields of a form or of a JSON object, cut to a length, without secrets.
fn parameters(headers: &HeaderMap, body: &Bytes) -> Value {
    let fields: Map<String, Value> = if is_form(headers) {
        let pairs = body
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pair = |pair: &[u8]| {
            let at = pair
                .iter()
                .position(|byte| *byte == b'=')
                .unwrap_or(pair.len());
            let value = pair.get(at + 1..).unwrap_or_default();
            (text(&pair[..at]), Value::String(text(value)))
        };
        pairs.map(pair).collect()
    } else {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    };
    let shown = fields
        .into_iter()
        .filter(|(name, _)| !SECRETS.contains(&&**name))
        .map(|(name, value)| {
            let text = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            let cut = |text: &str| text.chars().take(SHOWN_MAX).collect::<String>();
            (cut(&name), Value::String(cut(&text)))
        });
    Value::Object(shown.take(50).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_the_session_is_taken_out_of_a_form_and_secrets_stay_off_the_record() {
        let body = Bytes::from_static(b"rate=5&csrf=abc&text=a%20b");
        let (given, rest) = take_csrf(&body);
        assert_eq!(given.as_deref(), Some("abc"));
        assert_eq!(&rest[..], b"rate=5&text=a%20b");
        assert_eq!(take_csrf(&Bytes::from_static(b"csrf=a&csrf=b")).0, None);
        let form = HeaderMap::from_iter([(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        )]);
        let shown = parameters(&form, &Bytes::from_static(b"token=secret&rate=5"));
        assert_eq!(shown, serde_json::json!({"rate": "5"}));
        let json = Bytes::from(format!(
            r#"{{"token":"secret","rate":"{}"}}"#,
            "x".repeat(999)
        ));
        let shown = parameters(&HeaderMap::new(), &json);
        assert_eq!(shown["rate"].as_str().unwrap().len(), SHOWN_MAX);
        assert!(!shown.to_string().contains("secret"));
    }
}
