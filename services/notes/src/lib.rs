//! Notes: written through the queue, read through the cache.
//!
//! Two roles of one program. The [`api`] takes notes, stores each with its outbox row, and publishes them; it shows what is
//! saved. The [`worker`] takes them from the queue and saves them, at a rate of its own: a burst only lengthens the queue.
//! All state is in Postgres and in the queue; Redis holds copies that nobody relies on.

pub mod api;
pub mod cache;
pub mod note;
pub mod worker;
