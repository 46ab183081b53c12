//! The receiving half: consumer, inbox, processor, dead letters.

mod acks;
pub mod commit;
pub mod consumer;
pub mod dead_letter;
mod decision;
pub mod failure;
pub mod given_up;
pub mod handler;
pub mod history;
pub mod inbox;
pub mod ladder;
pub mod look;
pub mod manner;
pub mod patience;
pub mod processed;
pub mod processor;
pub mod redrive;
pub mod retry;
pub mod sessions;
pub mod settle;
pub mod window;

/// The tables of the receiving half, for the service's own schema. Its versions do not clash with a
/// service's own migrations, which are numbered from 1.
pub fn migrator() -> sqlx::migrate::Migrator {
    let mut migrator = sqlx::migrate!("./migrations/receive");
    migrator.set_ignore_missing(true);
    migrator
}
