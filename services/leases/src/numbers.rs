//! All that a node counts, for `/metrics`; registered at start, at 0.

use metrics::{counter, describe_counter, describe_gauge, gauge};

pub(crate) const PUSHED: &str = "unacked_leases_pushed_total";
pub(crate) const LEASED: &str = "unacked_leases_leased_total";
pub(crate) const CONFIRMED: &str = "unacked_leases_confirmed_total";
pub(crate) const EXTENDED: &str = "unacked_leases_extended_total";
pub(crate) const GIVEN_BACK: &str = "unacked_leases_given_back_total";
pub(crate) const DEAD: &str = "unacked_leases_dead_total";
pub(crate) const REDRIVEN: &str = "unacked_leases_redriven_total";
pub(crate) const DISCARDED: &str = "unacked_leases_discarded_total";
pub(crate) const WAITING: &str = "unacked_leases_waiting";
pub(crate) const ASKED: &str = "unacked_leases_asked_total";
const COMMITS: &str = "unacked_leases_commits_total";

/// What is committed in groups.
pub(crate) const DEEDS: [&str; 5] = ["push", "lease", "confirm", "extend", "give_back"];

pub(crate) fn register() {
    for (name, what) in [
        (PUSHED, "Messages that were stored and answered with yes"),
        (LEASED, "Messages handed out under a lease"),
        (CONFIRMED, "Messages removed by whom they were leased to"),
        (EXTENDED, "Leases that were made longer"),
        (GIVEN_BACK, "Leases that were given back before their end"),
        (DEAD, "Messages that became dead letters here"),
        (REDRIVEN, "Dead letters sent back to their queue"),
        (DISCARDED, "Dead letters removed for good"),
        (
            ASKED,
            "Queries for when the next lease ends, each for all who wait",
        ),
    ] {
        describe_counter!(name, what);
        let _ = counter!(name);
    }
    describe_counter!(COMMITS, "Transactions, each for all who asked meanwhile");
    for deed in DEEDS {
        let _ = counter!(COMMITS, "deed" => deed);
    }
    describe_gauge!(WAITING, "Requests that wait for a message");
    let _ = gauge!(WAITING);
}

pub(crate) fn count(name: &'static str, many: usize) {
    counter!(name).increment(many as u64);
}

pub(crate) fn committed(deed: &'static str) {
    debug_assert!(DEEDS.contains(&deed), "{deed} is not registered");
    counter!(COMMITS, "deed" => deed).increment(1);
}
