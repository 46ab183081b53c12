//! All that a sender itself counts, for `/metrics`; registered at start, at 0.

use metrics::{counter, describe_counter, describe_gauge, gauge};

pub(crate) const ACCEPTED: &str = "unacked_messages_accepted_total";
pub(crate) const OUTBOX: &str = "unacked_outbox_messages";

pub(crate) fn register() {
    describe_counter!(ACCEPTED, "Messages that were stored and answered with yes");
    let _ = counter!(ACCEPTED);
    describe_gauge!(OUTBOX, "Messages that wait to be published, of all senders");
    let _ = gauge!(OUTBOX);
}
