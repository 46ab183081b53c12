//! A deadline for the database: a server that is paused answers nothing, not even its own timeouts.

use std::{io, time::Duration};

/// A little longer than the statement timeout of the services' roles, so that the server's own word
/// comes first if it can.
const LIMIT: Duration = Duration::from_secs(11);

/// Awaits the database for at most 11 s.
///
/// # Errors
/// The database's, or an I/O error of kind `TimedOut`.
pub async fn bounded<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            "the database does not answer",
        ))),
    }
}
