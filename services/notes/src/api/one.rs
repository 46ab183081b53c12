//! Where one note is: waiting, saved or parked. Read from the database each time, so never old.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::{IntoResponse, Response},
};
use daemon::database::within;
use uuid::Uuid;
use web::{Error, Site};

use super::App;
use crate::whereabouts::{self, Whereabouts};

const LIMIT: Duration = Duration::from_secs(3);
const NEVER_KEPT: HeaderValue = HeaderValue::from_static("no-store");

pub(super) async fn show(
    State(app): State<Arc<App>>,
    site: Site,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let id = Uuid::try_parse(&id)
        .map_err(|_| Error::bad_request("The id of a note is a UUID, and this is none."))?;
    let found = find(&app, &site, id).await?;
    let none = || Error::new(StatusCode::NOT_FOUND, "There is no note with this id.");
    let found = found.ok_or_else(none)?;
    Ok(([(CACHE_CONTROL, NEVER_KEPT)], Json(found)).into_response())
}

pub(super) async fn find(app: &App, site: &Site, id: Uuid) -> Result<Option<Whereabouts>, Error> {
    site.need_database()?;
    Ok(within(LIMIT, whereabouts::of(&app.database.pool, id)).await?)
}
