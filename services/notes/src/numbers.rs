//! All that notes count themselves, for `/metrics`; registered at start, at 0.

use metrics::{counter, describe_counter};

pub(crate) const CACHE: &str = "unacked_notes_cache_total";
pub(crate) const READS: &str = "unacked_notes_database_reads_total";
pub(crate) const INVALIDATIONS: &str = "unacked_notes_invalidations_total";

/// Registers what an API node counts.
pub(crate) fn register_api() {
    describe_counter!(CACHE, "Lists that were asked for, by what the cache said");
    for said in ["hit", "miss", "off"] {
        let _ = counter!(CACHE, "said" => said);
    }
    describe_counter!(READS, "Lists that were read from the database");
    let _ = counter!(READS);
}

/// Registers what a worker counts.
pub(crate) fn register_worker() {
    describe_counter!(
        INVALIDATIONS,
        "Times that the copies in the cache were made worthless after a commit, or could not be"
    );
    for outcome in ["done", "lost"] {
        let _ = counter!(INVALIDATIONS, "outcome" => outcome);
    }
}
