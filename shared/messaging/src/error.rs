use std::time::Duration;

/// Why a session with the broker ended, or could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client library reported it: the link, the channel or the broker.
    #[error("{0}")]
    Broker(#[from] lapin::Error),
    /// An await had no answer in time.
    #[error("{what}: no answer within {} ms", limit.as_millis())]
    Deadline {
        /// What was awaited.
        what: &'static str,
        /// For how long.
        limit: Duration,
    },
    /// Published messages were outstanding and no confirm came.
    #[error("{}, and no confirm came for {} ms", waiting(*outstanding), limit.as_millis())]
    Stalled {
        /// How many confirms were missing.
        outstanding: usize,
        /// For how long none came.
        limit: Duration,
    },
    /// The queue refused everything for a while. Its word to this channel may be out of date: a limit
    /// that was lifted is not always told to channels that ran into it.
    #[error("the queue refused everything for {} s; a new channel may fare better", .0.as_secs())]
    OnlyRefused(Duration),
    /// The process stops while the broker blocks publishing.
    #[error("stopped while the broker blocks publishing")]
    Blocked,
    /// The broker ended the consumer: its queue is gone, or its leader moved.
    #[error("the broker ended the consumer of queue {0:?}")]
    ConsumerEnded(&'static str),
    /// A queue of the ladder is gone. The next session declares it again.
    #[error("a queue of the ladder is gone")]
    RungGone,
    /// The library said that an ack was not sent, so the delivery will come again.
    #[error("a delivery could not be settled: its channel is gone")]
    NotSettled,
    /// A failure of the work was to be answered so.
    #[error("the work failed, and drops the connection")]
    Dropped,
    /// A fail point asked for it.
    #[error("injected at the fail point {0}")]
    Injected(&'static str),
    /// Something else declared an exchange or queue of ours differently. Trying again cannot help.
    #[error(
        "{what} exists on the broker with other properties ({difference}). {}", setting.remedy()
    )]
    Incompatible {
        /// The exchange or queue.
        what: String,
        /// In the broker's own words.
        difference: String,
        /// What may not fit it.
        setting: Setting,
    },
}

fn waiting(outstanding: usize) -> String {
    if outstanding == 1 {
        "1 published message waits".to_owned()
    } else {
        format!("{outstanding} published messages wait")
    }
}

/// What may have to be set otherwise, where an exchange or a queue is not as we declare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The type of the queue `messages`.
    QueueType,
    /// Guarantees that can be off: what becomes of dead letters, and of what is too much.
    Without,
    /// Of a rung.
    Ladder,
    /// No setting decides on this property of a queue: somebody else declared it.
    VhostOfQueue,
    /// No setting decides on an exchange.
    VhostOfExchange,
}

impl Setting {
    /// Its variable.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueType => "QUEUE_TYPE",
            Self::Without => "WITHOUT",
            Self::Ladder => "RETRY_LADDER_MS",
            Self::VhostOfQueue | Self::VhostOfExchange => "AMQP_URL",
        }
    }

    /// What to do.
    fn remedy(self) -> &'static str {
        match self {
            Self::QueueType => {
                "Set QUEUE_TYPE and WITHOUT to what it was declared with, use another vhost in AMQP_URL, or delete it, with what still waits in it"
            }
            Self::Without => {
                "Set WITHOUT to what it was declared with, use another vhost in AMQP_URL, or delete it, with what still waits in it"
            }
            Self::Ladder => {
                "Set other times in RETRY_LADDER_MS: each has a queue of its own, and what waits in this one still comes back. Or use another vhost in AMQP_URL, or delete it, with what still waits in it"
            }
            Self::VhostOfQueue => {
                "No setting makes it fit: use another vhost in AMQP_URL, or delete it, with what still waits in it"
            }
            Self::VhostOfExchange => {
                "No setting makes it fit: use another vhost in AMQP_URL, or delete it; queues and what waits in them stay, and the next start makes it anew"
            }
        }
    }
}

impl Error {
    /// The setting that does not fit the broker, if that is what is wrong.
    pub fn setting(&self) -> Option<Setting> {
        match self {
            Error::Incompatible { setting, .. } => Some(*setting),
            _ => None,
        }
    }

    /// True when a new session would meet the same error.
    pub fn is_final(&self) -> bool {
        self.setting().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_that_waits_is_not_several() {
        let said = |outstanding| {
            let limit = Duration::from_secs(4);
            Error::Stalled { outstanding, limit }.to_string()
        };
        let one = "1 published message waits, and no confirm came for 4000 ms";
        assert_eq!(said(1), one);
        let two = "2 published messages wait, and no confirm came for 4000 ms";
        assert_eq!(said(2), two);
    }
}
