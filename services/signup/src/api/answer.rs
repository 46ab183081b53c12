//! How the API answers: in problem details or on a page.

use axum::{
    Json,
    extract::{FromRequest, Request},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;
use web::{Error, Under, form::FormBody, json::JsonBody, origin};

use super::{app::App, check::Wrong, token::Issued};

/// What was sent: by the form of a page, or by a program.
pub(super) enum Sent {
    Form(FormBody),
    Json(JsonBody),
}

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        // A foreign page must neither make an account here nor log its reader in as somebody else.
        if origin::origin(request.headers()) == origin::Origin::Foreign {
            return Err(Error::forbidden(
                "This is only taken from this site's own pages, and from programs.",
            ));
        }
        if is(request.headers(), b"application/json") {
            return JsonBody::from_request(request, state).await.map(Self::Json);
        }
        if !is(request.headers(), b"application/x-www-form-urlencoded") {
            let detail = "This is neither JSON, application/json, nor a form, application/x-www-form-urlencoded.";
            return Err(Error::unsupported(detail));
        }
        let form = FormBody::from_request(request, state).await?;
        if form.begins_like_json() {
            let detail =
                "This is JSON and said to be a form. Right is Content-Type: application/json.";
            return Err(Error::unsupported(detail));
        }
        Ok(Self::Form(form))
    }
}

/// Whether it is said to be of this media type.
fn is(headers: &HeaderMap, media: &[u8]) -> bool {
    let named = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    named.is_some_and(|named| named.to_ascii_lowercase().starts_with(media))
}

/// Who sends JSON reads JSON, whatever else the request says: an error has members that a page does not show.
pub(super) async fn answer_in_kind(mut request: Request, next: Next) -> Response {
    let headers = request.headers_mut();
    if is(headers, b"application/json") {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    }
    next.run(request).await
}

/// What is wrong with which fields, each with a sentence of its own.
pub(super) fn wrong_fields(
    status: StatusCode,
    code: &'static str,
    detail: &'static str,
    wrong: &[Wrong],
) -> Error {
    Error::new(status, detail)
        .coded(code)
        .with("errors", json!(wrong))
}

/// 401: there is no account to speak of.
pub(super) fn unknown() -> Response {
    let detail = "This needs a token: sign up or log in, and send it as Authorization: Bearer.";
    let error = Error::new(StatusCode::UNAUTHORIZED, detail).coded("no_token");
    ([(WWW_AUTHENTICATE, "Bearer")], error).into_response()
}

/// A token for a program.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    user_id: Uuid,
    token: String,
    token_type: &'static str,
    expires_at: DateTime<Utc>,
    /// Of the welcome mail, where the account is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Uuid>,
}

/// Somebody is known from now on: a browser by its cookie, a program by the token that it keeps.
pub(super) fn known(
    app: &App,
    under: Under,
    by_form: bool,
    user_id: Uuid,
    issued: Issued,
    new: Option<Uuid>,
) -> Response {
    // A token is nothing that anybody on the way may keep.
    let unkept = (CACHE_CONTROL, "no-store".to_owned());
    if by_form {
        let headers = AppendHeaders([unkept, (SET_COOKIE, app.cookie(&issued.token))]);
        return (headers, Redirect::to(under.home())).into_response();
    }
    let status = if new.is_some() {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let receipt = Receipt {
        user_id,
        token: issued.token,
        token_type: "Bearer",
        expires_at: issued.ends_at,
        message_id: new,
    };
    let mut response = (status, AppendHeaders([unkept]), Json(receipt)).into_response();
    if new.is_some() {
        let home = HeaderValue::from_static(under.home());
        response.headers_mut().insert(LOCATION, home);
    }
    response
}
