//! Creating an account: the form, and what it sends; programs send the same as JSON.
//!
//! The answer does not wait for the welcome mail: a row in the outbox is all that is needed for it.

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use daemon::database::within;
use web::{
    Error, Site, Under,
    chrome::{Chrome, Tab},
};

use super::{
    answer::{Sent, known, wrong_fields},
    app::App,
    check::{EMAIL_MAX, NAME_MAX, PASSWORD_MAX, PASSWORD_MIN, Right, Typed, Wrong, check},
    home::LIMIT,
    limits::Client,
    numbers,
    password::For,
    store::{NotStored, Stored, store},
};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/createUser", get(show).post(create))
}

#[derive(Template)]
#[template(path = "create.html")]
struct Page {
    chrome: Chrome,
    under: Under,
    typed: Typed,
    wrong: Vec<Wrong>,
    /// What is wrong with none of the fields.
    error: Option<String>,
}

impl Page {
    /// What is wrong with a field.
    fn of(&self, field: &str) -> Option<&str> {
        let mut wrong = self.wrong.iter();
        let found = wrong.find(|wrong| wrong.field == field);
        found.map(|wrong| wrong.detail.as_str())
    }
}

async fn show(site: Site) -> Result<Response, Error> {
    draw(&site, Typed::default(), Vec::new(), None)
}

/// The page, with what was typed: all but the password.
fn draw(
    site: &Site,
    typed: Typed,
    wrong: Vec<Wrong>,
    error: Option<String>,
) -> Result<Response, Error> {
    let page = Page {
        chrome: Chrome::new(site, Tab::Other, "Sign up"),
        under: site.under(),
        typed,
        wrong,
        error,
    };
    Ok(web::page(&page)?.into_response())
}

async fn create(
    State(app): State<Arc<App>>,
    site: Site,
    client: Client,
    headers: HeaderMap,
    sent: Sent,
) -> Result<Response, Error> {
    let by_form = matches!(sent, Sent::Form(_));
    let typed = read(&sent)?;
    let run = web::headers::run(&headers)?;
    let refuse = |status: StatusCode, code, detail: &'static str, wrong: Vec<Wrong>| {
        let error = wrong_fields(status, code, detail, &wrong);
        if !by_form {
            return Err(error);
        }
        Ok(error.on(draw(&site, typed.clone(), wrong, None)?))
    };
    let right = match check(&typed) {
        Ok(right) => right,
        Err(wrong) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return refuse(
                status,
                "wrong_fields",
                "Some fields are not as they must be.",
                wrong,
            );
        }
    };
    let Stored {
        user_id,
        message_id,
    } = match sign_up(&app, &site, &client, &right, run.as_deref()).await {
        Ok(stored) => stored,
        Err(Refused::Taken) => {
            let detail = "There is an account for this address.";
            let wrong = vec![Wrong::new("email", detail)];
            return refuse(StatusCode::CONFLICT, "email_taken", detail, wrong);
        }
        Err(Refused::Other(error)) if by_form => {
            let detail = error.detail().to_owned();
            return Ok(error.on(draw(&site, typed, Vec::new(), Some(detail))?));
        }
        Err(Refused::Other(error)) => return Err(error),
    };
    tracing::info!(%user_id, message.id = %message_id, "an account was created");
    metrics::counter!(numbers::CREATED).increment(1);
    let issued = app.tokens.issue(user_id, daemon::clock::now());
    let issued = issued.map_err(Error::internal)?;
    let new = Some(message_id);
    Ok(known(&app, site.under(), by_form, user_id, issued, new))
}

fn read(sent: &Sent) -> Result<Typed, Error> {
    let form = match sent {
        Sent::Json(body) if body.is_array() => {
            return Err(Error::unprocessable(
                "The JSON is not as expected: an array, not an object.",
            ));
        }
        Sent::Json(body) => return body.read(),
        Sent::Form(body) => body.fields(&Typed::FIELDS)?,
    };
    let field = |name| form.get(name).unwrap_or_default().to_owned();
    Ok(Typed {
        first_name: field("firstName"),
        last_name: field("lastName"),
        email: field("email"),
        password: field("password"),
    })
}

enum Refused {
    Taken,
    Other(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

async fn sign_up(
    app: &App,
    site: &Site,
    client: &Client,
    right: &Right,
    run: Option<&str>,
) -> Result<Stored, Refused> {
    site.need_database()?;
    let waiting = u64::try_from(app.depth.borrow().waiting).unwrap_or(0);
    if waiting >= app.outbox_max {
        return Err(Error::from(NotStored::Full).into());
    }
    let place = app.hashes.place(For::SignUp)?;
    let counted = app.limits.count_sign_up(&app.database.pool, client);
    within(LIMIT, counted)
        .await
        .map_err(Error::from)?
        .map_err(Error::from)?;
    let hash = app.hashes.hash(place, right.password.clone()).await?;
    match store(app, right, &hash, run).await {
        Ok(stored) => Ok(stored),
        Err(NotStored::Taken) => Err(Refused::Taken),
        Err(not) => {
            tracing::warn!(error = %not, "an account was not stored, or nobody knows");
            Err(Refused::Other(not.into()))
        }
    }
}
