//! What a service can do to itself: named places on the road of a message where it can be made to
//! crash, wait, err or stand still, and [`knobs`], the settings of simulated work that can be changed
//! while it runs.
//!
//! The honest code says only `fail_points.hit("relay.after_publish").await?`; whether anything is
//! armed there is none of its business. Nothing is armed unless `FAIL_POINTS` or the operations
//! port says so, and then a passage costs one relaxed counter and one relaxed load.
//!
//! This crate is a leaf: it knows no HTTP, no broker and no database.

#![warn(missing_docs)]

mod fail_points;
pub mod knobs;
mod plan;

pub use fail_points::{ACTS, FailPointStatus, FailPoints, Injected};
pub use knobs::Knobs;
pub use plan::{Action, Plan, WrongFailPoint};

/// What log lines of deliberate harm have for a target: one filter decides about all of them.
const TARGET: &str = "chaos";

/// Every fail point there is, with the moment it stands for.
///
/// This is the last column of the table of the road in `ARCHITECTURE.md`; a name that is not here
/// is refused when it is armed.
pub const FAIL_POINTS: &[(&str, &str)] = &[
    (
        "submit.before_commit",
        "message and outbox row are written, but not committed",
    ),
    (
        "submit.after_commit",
        "they are committed, the client has not been told",
    ),
    (
        "signup.before_commit",
        "an account and the outbox row of its mail are written, but not committed",
    ),
    (
        "signup.after_commit",
        "they are committed, the client has not been told",
    ),
    (
        "relay.before_publish",
        "a batch is claimed, none of it is published",
    ),
    (
        "relay.after_publish",
        "a batch is handed to the broker, not yet confirmed",
    ),
    (
        "relay.after_confirm",
        "the broker confirmed, the outbox rows are still there",
    ),
    (
        "consumer.on_delivery",
        "a delivery has arrived, nothing has been done with it",
    ),
    (
        "welcome.after_smtp",
        "a mail server has taken the mail, nothing of that is written",
    ),
    (
        "consumer.before_commit",
        "inbox row and effect are written, but not committed",
    ),
    (
        "settle.before_ack",
        "the effect is committed, the broker has not been told",
    ),
    (
        "dead_letter.after_park",
        "a dead letter is in Postgres, the broker has not been told",
    ),
    (
        "redrive.before_commit",
        "dead letters are marked and have outbox rows, but that is not committed",
    ),
    (
        "redrive.after_commit",
        "that is committed, nothing is published yet",
    ),
    (
        "leases.push.before_commit",
        "pushed messages are written to their queue, but not committed",
    ),
    (
        "leases.push.after_commit",
        "they are committed, the client has not been told",
    ),
    (
        "leases.lease.before_commit",
        "messages are leased, but that is not committed",
    ),
    (
        "leases.lease.after_commit",
        "that is committed, the client does not have them",
    ),
    (
        "leases.confirm.before_commit",
        "confirmed messages are removed, but that is not committed",
    ),
    (
        "leases.confirm.after_commit",
        "that is committed, the client has not been told",
    ),
];
