//! The sending half: accepting, outbox, relay, publisher.

pub mod accept;
mod manner;
pub mod outbox;
pub mod publisher;
pub mod relay;

/// The tables of the sending half, for the service's own schema. Its versions do not clash with a
/// service's own migrations, which are numbered from 1.
pub fn migrator() -> sqlx::migrate::Migrator {
    let mut migrator = sqlx::migrate!("./migrations/send");
    migrator.set_ignore_missing(true);
    migrator
}
