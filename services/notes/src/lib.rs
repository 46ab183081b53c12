//! Notes: written through the queue, read through the cache.
//!
//! Two roles of one program. The [`api`] takes notes, stores each with its outbox row, and publishes them; it shows what is
//! saved. The [`worker`] takes them from the queue and saves them, at a rate of its own: a burst only lengthens the queue.
//! All state is in Postgres and in the queue; Redis holds copies that nobody relies on.
//!
//! Layers that do not know each other's details: [`note`] is what all speak of; [`saved`] and [`whereabouts`] are the database,
//! [`cache`] is Redis, [`messaging`] the queue, [`api`] the transport. [`list`] reads through the cache, and [`flight`] sees to
//! it that many who ask for the same read once.

pub mod api;
pub mod cache;
pub mod flight;
pub mod list;
pub mod note;
mod numbers;
pub mod saved;
pub mod whereabouts;
pub mod worker;

use messaging::receive;
use sqlx::migrate::Migrator;

/// The tables of both roles, which share a schema. The receiving half's have an outbox too.
fn migrators() -> Vec<Migrator> {
    vec![receive::migrator(), sqlx::migrate!()]
}
