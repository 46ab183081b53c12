//! All that the API itself counts, for `/metrics`; registered at start, at 0.

use metrics::{counter, describe_counter};

pub(crate) const CREATED: &str = "unacked_accounts_created_total";
pub(crate) const CROWDED: &str = "unacked_hashes_refused_total";
pub(crate) const LIMITED: &str = "unacked_logins_limited_total";
pub(crate) const SIGN_UPS_LIMITED: &str = "unacked_signups_limited_total";
pub(crate) const LOGINS: &str = "unacked_logins_total";
pub(crate) const LOGOUTS: &str = "unacked_logouts_total";

pub(crate) fn register() {
    for (name, what) in [
        (CREATED, "Accounts that were stored and answered with yes"),
        (
            CROWDED,
            "Requests refused because too many passwords were being hashed",
        ),
        (
            SIGN_UPS_LIMITED,
            "Sign-ups refused because there had been too many",
        ),
        (LOGOUTS, "Tokens that were given back before their end"),
    ] {
        describe_counter!(name, what);
        let _ = counter!(name);
    }
    describe_counter!(LIMITED, "Logins refused because there had been too many");
    for by in ["address", "client"] {
        let _ = counter!(LIMITED, "by" => by);
    }
    describe_counter!(LOGINS, "Logins that were tried, by what came of them");
    for outcome in ["right", "wrong"] {
        let _ = counter!(LOGINS, "outcome" => outcome);
    }
}
