//! What protects messages, and can be switched off to see what it protects from.
//!
//! Everything is on unless `WITHOUT` says so. Each guarantee has its unsafe alternative beside the
//! safe one, in the place that it belongs to, and is chosen once, at start.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::{connection::QueueType, numbers};

/// One protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guarantee {
    /// A message is stored together with the order to publish it. Off: it is published from memory.
    Outbox,
    /// A row is done when the broker confirmed it. Off: when it was handed to the library.
    Confirms,
    /// What no queue takes comes back. Off: the broker drops it.
    Mandatory,
    /// Messages are on disk. Off: in memory; only a classic queue knows the difference.
    Persistence,
    /// A delivery is acked after its effect. Off: before the work.
    AckAfterCommit,
    /// A message whose effect is committed has no second one. Off: nobody looks.
    Inbox,
    /// Of a message that is older than the inbox, the effects themselves are asked. Off: it is taken for new.
    LookBehind,
    /// What is given up on is kept. Off: it is gone.
    DeadLettering,
    /// A receiver has so many deliveries in hand at most. Off: as many as there are.
    Prefetch,
    /// A message has one id, made once. Off: the inbox sees another one at every publish.
    MessageId,
    /// A stopping process finishes what it has begun. Off: it ends at once.
    Drain,
    /// A consumer that ended, alone or with its connection, is begun again. Off: nobody notices.
    Reconsume,
    /// A dead letter leaves its queue when its target has it. Off: before.
    SafeDeadLettering,
    /// A full queue refuses. Off: it throws its oldest messages out.
    RejectPublish,
    /// What publishes has a connection of its own. Off: dead letters are sent back on that of the consumer.
    SeparateConnections,
    /// A link that falls silent is noticed in seconds. Off: in minutes.
    Heartbeat,
}

use Guarantee as G;

impl Guarantee {
    /// All of them, in the order of the road.
    pub const ALL: [Self; 16] = [
        G::Outbox,
        G::Confirms,
        G::Mandatory,
        G::Persistence,
        G::AckAfterCommit,
        G::Inbox,
        G::LookBehind,
        G::DeadLettering,
        G::Prefetch,
        G::MessageId,
        G::Drain,
        G::Reconsume,
        G::SafeDeadLettering,
        G::RejectPublish,
        G::SeparateConnections,
        G::Heartbeat,
    ];

    /// As in `WITHOUT`, on pages and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            G::Outbox => "outbox",
            G::Confirms => "confirms",
            G::Mandatory => "mandatory",
            G::Persistence => "persistence",
            G::AckAfterCommit => "ack-after-commit",
            G::Inbox => "inbox",
            G::LookBehind => "look-behind",
            G::DeadLettering => "dead-lettering",
            G::Prefetch => "prefetch",
            G::MessageId => "message-id",
            G::Drain => "drain",
            G::Reconsume => "reconsume",
            G::SafeDeadLettering => "safe-dead-lettering",
            G::RejectPublish => "reject-publish",
            G::SeparateConnections => "separate-connections",
            G::Heartbeat => "heartbeat",
        }
    }

    /// What may happen while it is off, in a sentence for people.
    pub fn warning(self) -> &'static str {
        match self {
            G::Outbox => {
                "An accepted message is published from memory only. It is lost if the sender dies or RabbitMQ is away at that moment."
            }
            G::Confirms => {
                "A message counts as published before RabbitMQ has said that it has it. It is lost if the link breaks at that moment."
            }
            G::Mandatory => "RabbitMQ drops messages that no queue takes, and confirms them.",
            G::Persistence => {
                "Messages in the queue are kept in memory only. They are lost when RabbitMQ restarts."
            }
            G::AckAfterCommit => {
                "A receiver acknowledges a message before it works on it. The message is lost if the work fails or the receiver dies."
            }
            G::Inbox => {
                "Nobody looks whether a message was processed before. One that is delivered twice has two effects."
            }
            G::LookBehind => {
                "The inbox forgets old messages, and nobody looks behind it. One that comes again later than that has two effects."
            }
            G::DeadLettering => "A message that is given up on is thrown away.",
            G::Prefetch => {
                "A receiver takes all messages that there are. One that starts later gets nothing to do."
            }
            G::MessageId => {
                "A message gets a new id each time that it is published. One that is published twice has two effects."
            }
            G::Drain => {
                "A node that is stopped ends at once. What it had begun is begun again elsewhere."
            }
            G::Reconsume => {
                "A receiver that lost its consumer, or its connection, looks healthy and does nothing."
            }
            G::SafeDeadLettering => {
                "A message that is given up on leaves its queue before its new queue has it. It is lost if that is full or away."
            }
            G::RejectPublish => "A full queue throws out its oldest messages for new ones.",
            G::SeparateConnections => {
                "Dead letters are sent back on the connection of the consumer. When RabbitMQ blocks publishing, acknowledgements wait too."
            }
            G::Heartbeat => {
                "A link that has fallen silent is noticed after a minute or two, instead of seconds. What was on it waits as long."
            }
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no guarantee of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a guarantee; there are {list}", list = names())]
pub struct UnknownGuarantee(
    /// The name.
    pub String,
);

fn names() -> String {
    Guarantee::ALL.map(Guarantee::name).join(", ")
}

impl FromStr for Guarantee {
    type Err = UnknownGuarantee;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| UnknownGuarantee(name.to_owned()))
    }
}

/// The guarantees that are off: none, but in an experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Without(BTreeSet<Guarantee>);

impl Without {
    /// True if this one is off.
    pub fn has(&self, guarantee: Guarantee) -> bool {
        self.0.contains(&guarantee)
    }

    /// Those that are off.
    pub fn iter(&self) -> impl Iterator<Item = Guarantee> {
        self.0.iter().copied()
    }

    /// True if all guarantees hold.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses to switch off what a queue of this type does not have anyway, since nothing would
    /// come of it.
    ///
    /// # Errors
    /// Which one, and which type it needs.
    pub fn check(&self, queue_type: QueueType) -> Result<(), String> {
        let quorum = queue_type == QueueType::Quorum;
        if quorum && self.has(G::Persistence) {
            return Err("persistence can only be off with QUEUE_TYPE=classic: a quorum queue keeps every message on disk".to_owned());
        }
        if !quorum && self.has(G::SafeDeadLettering) {
            return Err("safe-dead-lettering can only be off with QUEUE_TYPE=quorum: a classic queue has no safe dead-lettering".to_owned());
        }
        Ok(())
    }

    /// Says so in the log and in the metrics, once, at start.
    pub fn tell(&self) {
        for guarantee in self.iter() {
            let name = guarantee.name();
            tracing::warn!(
                guarantee = name,
                "a guarantee is off: {}",
                guarantee.warning()
            );
            metrics::gauge!(numbers::GUARANTEE_OFF, "guarantee" => name).set(1.0);
        }
    }

    /// Names and warnings, for the pages and for those who run the process.
    pub fn warnings(&self) -> Vec<(&'static str, &'static str)> {
        self.iter().map(|one| (one.name(), one.warning())).collect()
    }
}

impl FromStr for Without {
    type Err = UnknownGuarantee;

    /// Names with commas between them; the empty text is none.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let names = list.split(',').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        names
            .map(Guarantee::from_str)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Guarantee::name).collect();
        f.write_str(&names.join(","))
    }
}

impl FromIterator<Guarantee> for Without {
    fn from_iter<I: IntoIterator<Item = Guarantee>>(guarantees: I) -> Self {
        Self(guarantees.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guarantee_is_read_by_its_name() {
        for guarantee in Guarantee::ALL {
            assert_eq!(guarantee.name().parse(), Ok(guarantee));
        }
        let all: Without = Guarantee::ALL.into_iter().collect();
        assert_eq!(all.iter().count(), Guarantee::ALL.len(), "none is twice");
        assert_eq!(all.to_string().parse(), Ok(all));
    }

    #[test]
    fn a_list_may_have_blanks_and_repetitions() {
        let without: Without = " inbox, confirms,inbox,".parse().unwrap();
        assert_eq!(without.to_string(), "confirms,inbox");
        assert!(without.has(Guarantee::Inbox) && !without.has(Guarantee::Outbox));
        assert_eq!("".parse(), Ok(Without::default()));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_list_of_names() {
        let said = "inbox,index".parse::<Without>().unwrap_err().to_string();
        assert!(
            said.starts_with("\"index\" is not a guarantee; there are outbox, confirms, "),
            "{said}"
        );
        assert!(said.ends_with(", heartbeat"), "{said}");
    }

    #[test]
    fn what_a_queue_does_not_have_cannot_be_switched_off() {
        let off = |name: &str| name.parse::<Without>().unwrap();
        assert!(off("persistence").check(QueueType::Quorum).is_err());
        assert!(off("persistence").check(QueueType::Classic).is_ok());
        assert!(
            off("safe-dead-lettering")
                .check(QueueType::Classic)
                .is_err()
        );
        assert!(off("safe-dead-lettering").check(QueueType::Quorum).is_ok());
    }
}
