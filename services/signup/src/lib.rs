//! Sign-up: an account at once, and the welcome mail by a worker behind a queue.
//!
//! Two roles of one program over one schema. [`api`] stores an account and, in the same transaction,
//! the outbox row of its welcome mail, and answers at once with a token; its relay publishes the row.
//! [`welcome`] takes the mail from the queue `welcome`, sends it by SMTP, and stores that it did.
//! [`catcher`] is a mail server for tests and for the lab: it takes every mail and shows it.
//!
//! All state is in Postgres and in the queue: a node of either role may die at any line.

pub mod api;
pub mod catcher;
mod message;
pub mod welcome;

use messaging::topology::Road;

/// From the API to those who send the mails.
pub const ROAD: Road = Road {
    messages: "welcome",
    dead: "welcome.dead",
};
