//! Why an order, or a discard, was refused: in words for who asked.

use uuid::Uuid;

use super::table::MOST;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// There is no such order.
    #[error("there is no redrive {0}")]
    Unknown(Uuid),
    /// It was cancelled.
    #[error("this redrive was cancelled and is over: plan a new one for what is still parked")]
    Ended,
    /// There would be nothing to do.
    #[error("no dead letter fits: nothing was done")]
    NoneFits,
    /// There would be nothing to do: none of them can be sent back.
    #[error("{}: nothing was done", foreign(*count))]
    NotOurs {
        /// How many fit.
        count: i64,
    },
    /// Some that were named are not parked: what became of them.
    #[error("{0}: nothing was done")]
    Settled(String),
    /// They are too many for one transaction.
    #[error("more than {MOST} dead letters fit: select fewer, for instance by a time")]
    TooMany,
    /// Finding or writing them took too long, and would again.
    #[error("that takes longer than a request may: select fewer, for instance by a time or a run")]
    TooLong,
    /// The count that was typed is not how many there are.
    #[error("{}, and that is not the number that was confirmed: nothing was done", fits(*fit))]
    NotConfirmed {
        /// How many there are.
        fit: i64,
    },
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

fn foreign(count: i64) -> String {
    if count == 1 {
        return "the one dead letter that fits is not a message of ours, and can only be discarded"
            .to_owned();
    }
    format!("the {count} dead letters that fit are not messages of ours, and can only be discarded")
}

fn fits(count: i64) -> String {
    match count {
        0 => "no dead letter fits".to_owned(),
        1 => "1 dead letter fits".to_owned(),
        some => format!("{some} dead letters fit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dead_letter_fits_and_several_fit() {
        let said = |fit| NotDone::NotConfirmed { fit }.to_string();
        let right = ", and that is not the number that was confirmed: nothing was done";
        for (fit, how) in [
            (0, "no dead letter fits"),
            (1, "1 dead letter fits"),
            (2, "2 dead letters fit"),
        ] {
            assert_eq!(said(fit), format!("{how}{right}"));
        }
        let said = |count| NotDone::NotOurs { count }.to_string();
        assert!(said(1).starts_with("the one dead letter that fits is not"));
        assert!(said(2).starts_with("the 2 dead letters that fit are not"));
    }
}
