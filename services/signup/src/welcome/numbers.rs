//! All that those who send the mails themselves count, for `/metrics`; registered at start, at 0.

use metrics::{counter, describe_counter};

pub(super) const SENT: &str = "unacked_mails_sent_total";
pub(super) const LATER: &str = "unacked_mails_later_total";
pub(super) const NEVER: &str = "unacked_mails_refused_total";
pub(super) const UNKNOWN: &str = "unacked_mails_unknown_total";
pub(super) const AWAY: &str = "unacked_mail_server_away_total";

pub(super) fn register() {
    for (name, what) in [
        (
            SENT,
            "Mails that a mail server has taken; more than there are effects where a node died in between",
        ),
        (LATER, "Mails of which a mail server said: later"),
        (NEVER, "Mails that a mail server refused for good"),
        (
            UNKNOWN,
            "Mails that a mail server had whole and said nothing of; each is sent again",
        ),
        (AWAY, "Tries at a mail for which there was no mail server"),
    ] {
        describe_counter!(name, what);
        let _ = counter!(name);
    }
}

pub(super) fn count(name: &'static str) {
    counter!(name).increment(1);
}
