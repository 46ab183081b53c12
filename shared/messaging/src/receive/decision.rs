//! What is decided about a delivery: its answer, and what the history says of it.

use std::time::Duration;

use super::{
    history::{Answer, End, Ending},
    settle::Settle,
};

/// A decision about a delivery, with what the history says of it.
pub(super) struct Decision {
    pub(super) settle: Settle,
    pub(super) ending: Ending,
    pub(super) cause: Option<String>,
    /// Where the settling alone does not tell: an ack may stand for a rung of the ladder.
    pub(super) answer: Option<Answer>,
}

impl Decision {
    /// What the history says of it.
    pub(super) fn end(&self) -> End {
        let answer = match self.settle {
            Settle::Ack => Answer::Ack,
            Settle::Requeue(_) => Answer::Nack,
            Settle::RequeueByReject => Answer::Reject,
            Settle::DropConnection => Answer::Drop,
            Settle::DeadLetter => Answer::DeadLetter,
        };
        End {
            ending: self.ending,
            cause: self.cause.clone(),
            answer: Some(self.answer.unwrap_or(answer)),
        }
    }

    pub(super) fn ack(ending: Ending) -> Self {
        Self {
            settle: Settle::Ack,
            ending,
            cause: None,
            answer: None,
        }
    }

    pub(super) fn give_up(cause: String) -> Self {
        Self {
            settle: Settle::DeadLetter,
            ending: Ending::DeadLettered,
            cause: Some(cause),
            answer: None,
        }
    }

    pub(super) fn not_begun() -> Self {
        let cause = Some("the node is stopping".to_owned());
        Self {
            settle: Settle::Requeue(Duration::ZERO),
            ending: Ending::Returned,
            cause,
            answer: None,
        }
    }
}
