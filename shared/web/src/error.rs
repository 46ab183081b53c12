//! What a client reads when something is wrong, and what we log.
//!
//! A handler returns an [`Error`]; [`crate::wrap`] turns it, and every bare error of the libraries
//! below, into a page or into problem details (RFC 9457), whichever the client reads. The cause
//! goes to the log, never to the client.

use std::{borrow::Cow, sync::Arc};

use askama::Template;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::chrome::Chrome;

/// Seconds after which a client may well try again, when a part is away.
const RETRY_SECS: u32 = 2;
const DATABASE_AWAY: &str = "The database is away. Please try again in a moment.";

/// What to do about it, where people do it in another way than programs.
#[derive(Debug)]
struct Advice {
    /// Where the link on the page leads.
    address: String,
    /// Its words.
    words: &'static str,
    /// In problem details, after the detail.
    programs: String,
}

/// The name of a status in RFC 9110; the library has older ones for two.
fn name(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
        StatusCode::UNPROCESSABLE_ENTITY => "Unprocessable Content",
        status => status.canonical_reason().unwrap_or("Error"),
    }
}

/// An answer that is not what was asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Error {
    status: StatusCode,
    /// Names the kind of problem to programs, where the status alone does not.
    code: Option<&'static str>,
    title: &'static str,
    detail: Cow<'static, str>,
    advice: Option<Arc<Advice>>,
    retry_after: Option<u32>,
    /// Of the problem details, beside what each has.
    member: Option<(&'static str, Arc<Value>)>,
    cause: Option<Arc<anyhow::Error>>,
}

impl Error {
    /// Any status, with what the client reads.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code: None,
            title: name(status),
            detail: detail.into(),
            advice: None,
            retry_after: None,
            member: None,
            cause: None,
        }
    }

    /// 400: it cannot be understood.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 403: not from there, or not without proof.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is nothing at this address.")
    }

    /// 413.
    pub fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The body is larger than 1 MiB, the most that is read.",
        )
    }

    /// 408: the body did not arrive, or not in time.
    pub fn incomplete() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "The body did not arrive completely and in time.",
        )
    }

    /// 415: another content type is needed.
    pub fn unsupported(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// 422: understood, and not acceptable.
    pub fn unprocessable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 503: not now; it is worth trying again.
    pub fn away(detail: impl Into<Cow<'static, str>>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        Self {
            retry_after: Some(RETRY_SECS),
            ..error
        }
    }

    /// 503, before anything was asked of it: without the database there is nothing to show and nothing to accept.
    pub fn database_away() -> Self {
        Self::away(DATABASE_AWAY).coded("database_away")
    }

    /// 500: a fault of ours.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        let detail = "That is a fault of ours, and it has been logged.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail).because(cause)
    }

    /// With what is logged.
    #[must_use]
    pub fn because(self, cause: impl Into<anyhow::Error>) -> Self {
        Self {
            cause: Some(Arc::new(cause.into())),
            ..self
        }
    }

    /// With a name for programs, such as `key_reused`, which becomes the problem's type.
    #[must_use]
    pub fn coded(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    /// With a member of the problem details for what a sentence cannot say to programs.
    #[must_use]
    pub fn with(self, name: &'static str, value: Value) -> Self {
        Self {
            member: Some((name, Arc::new(value))),
            ..self
        }
    }

    /// With a time after which it is worth trying again.
    #[must_use]
    pub fn retry_in(self, seconds: u32) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    /// With what to do about it: for people a link, by its address and its words; for programs a sentence.
    #[must_use]
    pub fn advised(self, (address, words): (String, &'static str), programs: String) -> Self {
        let advice = Advice {
            address,
            words,
            programs,
        };
        Self {
            advice: Some(Arc::new(advice)),
            ..self
        }
    }

    /// Takes what a page can be shown without: it is there, or away, which is a state of the page.
    ///
    /// # Errors
    /// Anything but "away": a fault, and no page.
    pub fn or_away<T>(asked: Result<T, Self>) -> Result<(Option<T>, Option<Self>), Self> {
        match asked {
            Ok(there) => Ok((Some(there), None)),
            Err(error) if error.status == StatusCode::SERVICE_UNAVAILABLE => {
                Ok((None, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a page the answer of this error: its status, and when to try again.
    pub fn on(&self, mut page: Response) -> Response {
        *page.status_mut() = self.status;
        self.add_retry(page)
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Seconds after which to try again, where that is worth it.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// What the client reads.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// A bare answer of a library, said in our words.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(),
            StatusCode::REQUEST_TIMEOUT => Self::incomplete(),
            StatusCode::UNPROCESSABLE_ENTITY => {
                Self::unprocessable("It cannot be accepted as it is.")
            }
            StatusCode::METHOD_NOT_ALLOWED => Self::new(
                status,
                "This address does not take this method; the header Allow names those it takes.",
            ),
            _ if status.is_server_error() => {
                Self::new(status, "That is a fault of ours, and it has been logged.")
            }
            _ => Self::new(status, "The request cannot be answered as it is."),
        }
    }

    /// Logs what the client does not learn; once, here.
    pub(crate) fn log(&self, method: &axum::http::Method, path: &str) {
        let status = self.status.as_u16();
        match &self.cause {
            Some(cause) if self.status == StatusCode::SERVICE_UNAVAILABLE => {
                tracing::warn!(%method, path, status, cause = format!("{cause:#}"), "not answered");
            }
            Some(cause) => {
                tracing::error!(%method, path, status, cause = format!("{cause:#}"), "request failed");
            }
            None if self.status == StatusCode::INTERNAL_SERVER_ERROR => {
                tracing::error!(%method, path, status, "request failed");
            }
            None => tracing::debug!(%method, path, status, "refused"),
        }
    }

    pub(crate) fn into_problem(self) -> Response {
        let kind = self.code.map_or_else(
            || "about:blank".to_owned(),
            |code| format!("urn:unacked:problem:{code}"),
        );
        let detail = match &self.advice {
            Some(advice) => format!("{} {}", self.detail, advice.programs),
            None => self.detail.clone().into_owned(),
        };
        let mut problem = json!({
            "type": kind,
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": detail,
        });
        if let Some((name, value)) = &self.member {
            problem[name] = Value::clone(value);
        }
        let media = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, Json(problem)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        self.add_retry(response)
    }

    pub(crate) fn into_page(self, mut chrome: Chrome) -> Response {
        self.title.clone_into(&mut chrome.title);
        let page = ErrorPage {
            chrome,
            error: &self,
        };
        match page.render() {
            Ok(page) => {
                let response = (self.status, Html(page)).into_response();
                self.add_retry(response)
            }
            Err(error) => {
                tracing::error!(%error, "the error page cannot be drawn");
                (self.status, self.detail.into_owned()).into_response()
            }
        }
    }

    fn add_retry(&self, mut response: Response) -> Response {
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    chrome: Chrome,
    error: &'a Error,
}

/// Bare, with itself attached: what the client gets is made where the request is still known.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if daemon::database::is_away(&error) {
            // Without the code: a statement whose answer was lost may have been done.
            Self::away(DATABASE_AWAY).because(error)
        } else {
            Self::internal(error)
        }
    }
}

impl From<askama::Error> for Error {
    fn from(error: askama::Error) -> Self {
        Self::internal(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_one_name_however_the_error_is_made() {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        for error in [
            Error::new(status, "x"),
            Error::unprocessable("x"),
            Error::of_status(status),
        ] {
            assert_eq!(error.title, "Unprocessable Content");
        }
        assert_eq!(Error::too_large().title, "Content Too Large");
        assert_eq!(Error::not_found().title, "Not Found");
    }

    #[tokio::test]
    async fn what_programs_are_told_to_do_is_in_problem_details_only() {
        let link = ("/there".to_owned(), "There it is stopped");
        let error = Error::unprocessable("It runs.").advised(link, "Stop it.".to_owned());
        assert_eq!(error.detail(), "It runs.");
        let body = error.into_problem().into_body();
        let body = axum::body::to_bytes(body, 10_000).await.unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["detail"], "It runs. Stop it.");
    }
}
