//! All that this crate counts, for `/metrics`.
//!
//! A service registers its numbers at start, at 0: a number that appears only when it first moves is
//! no base for an alert on its rate.

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::{guarantee::Guarantee, topology::Road};

pub(crate) const ACCEPTED: &str = "unacked_messages_accepted_total";
pub(crate) const OUTBOX: &str = "unacked_outbox_messages";
pub(crate) const CONFIRMED: &str = "unacked_messages_confirmed_total";
pub(crate) const UNROUTABLE: &str = "unacked_messages_unroutable_returned_total";
pub(crate) const REFUSED: &str = "unacked_messages_refused_total";
pub(crate) const REDELIVERED: &str = "unacked_messages_redelivered_total";
pub(crate) const IN_HAND: &str = "unacked_deliveries_in_hand";
pub(crate) const PROCESSED: &str = "unacked_messages_processed_total";
pub(crate) const DUPLICATE: &str = "unacked_messages_duplicate_total";
pub(crate) const NOT_OURS: &str = "unacked_messages_not_ours_total";
pub(crate) const WORK_FAILURES: &str = "unacked_work_failures_total";
pub(crate) const ACKNOWLEDGED: &str = "unacked_messages_acknowledged_total";
pub(crate) const REQUEUED: &str = "unacked_messages_requeued_total";
pub(crate) const DEAD_LETTERED: &str = "unacked_messages_dead_lettered_rejected_total";
pub(crate) const DELAYED: &str = "unacked_messages_delayed_total";
pub(crate) const PARKED: &str = "unacked_messages_parked_total";
pub(crate) const REDRIVEN: &str = "unacked_messages_redriven_total";
pub(crate) const HISTORY_DROPPED: &str = "unacked_history_dropped_total";
pub(crate) const PRUNED: &str = "unacked_inbox_pruned_total";
pub(crate) const SESSIONS_BROKEN: &str = "unacked_sessions_broken_total";
pub(crate) const GUARANTEE_OFF: &str = "unacked_guarantee_off";

/// Registers what a sender counts.
pub fn register_sender() {
    describe_counter!(ACCEPTED, "Messages that were stored and answered with yes");
    let _ = counter!(ACCEPTED);
    register_outbox();
}

/// Registers what is counted of an outbox and its relay.
pub fn register_outbox() {
    describe_gauge!(OUTBOX, "Messages that wait to be published, of all senders");
    let _ = gauge!(OUTBOX);
    publishing();
    both(&["publisher"]);
}

/// Registers what a receiver counts of its road. It publishes too, on the ladder.
pub fn register_receiver(road: Road) {
    publishing();
    for (name, what) in [
        (PROCESSED, "Messages whose effect was committed here"),
        (DUPLICATE, "Deliveries of messages that had their effect"),
        (NOT_OURS, "Deliveries of messages that are not ours"),
        (WORK_FAILURES, "Failures of the work"),
        (ACKNOWLEDGED, "Deliveries that were acknowledged"),
        (REQUEUED, "Deliveries that went back to their queue"),
        (DEAD_LETTERED, "Deliveries that were rejected for good"),
        (DELAYED, "Failed messages that were put onto the ladder"),
        (PARKED, "Dead letters that were stored"),
        (REDRIVEN, "Dead letters that were sent back on purpose"),
        (HISTORY_DROPPED, "Lines of history that were not stored"),
        (PRUNED, "Rows of the inbox that were older than its window"),
    ] {
        describe_counter!(name, what);
        let _ = counter!(name);
    }
    describe_counter!(
        REDELIVERED,
        "Deliveries that the broker marked as redelivered"
    );
    describe_gauge!(IN_HAND, "Deliveries that are not settled yet");
    for queue in [road.messages, road.dead] {
        let _ = counter!(REDELIVERED, "queue" => queue);
        let _ = gauge!(IN_HAND, "queue" => queue);
    }
    both(&["consumer", "dead letters", "retries", "redrives"]);
}

fn publishing() {
    for (name, what) in [
        (CONFIRMED, "Publishes that the broker confirmed"),
        (
            UNROUTABLE,
            "Publishes that came back because no queue took them",
        ),
        (REFUSED, "Publishes that the broker or a queue refused"),
    ] {
        describe_counter!(name, what);
        let _ = counter!(name);
    }
}

fn both(roles: &[&'static str]) {
    describe_counter!(
        SESSIONS_BROKEN,
        "Sessions with the broker that ended by themselves"
    );
    for role in roles {
        let _ = counter!(SESSIONS_BROKEN, "role" => *role);
    }
    describe_gauge!(GUARANTEE_OFF, "1 where the guarantee is switched off");
    for guarantee in Guarantee::ALL {
        let _ = gauge!(GUARANTEE_OFF, "guarantee" => guarantee.name());
    }
}
