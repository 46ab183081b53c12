//! The properties of the queues, each with its reason, as the settings have them.

use lapin::types::AMQPValue;

use crate::{
    connection::QueueType,
    error::Setting,
    guarantee::{Guarantee, Without},
    topology::{Road, Rung},
};

/// The broker's own net under the receiver's counts: it gives up on the 1,001st return. Far above
/// what lost connections add to the count of innocent messages, since the default of 4.x, 20, is not.
const DELIVERY_LIMIT: i64 = 1_000;
/// A dead letter is only ever returned by a crash or a cut. 4.0 would drop it after 20 of those;
/// -1 means no limit from 4.0 on, but 3.10 drops at the first return, so: a number never reached.
const DEAD_DELIVERY_LIMIT: i64 = 1_000_000;

/// What is declared, as the settings have it.
#[derive(Debug, Clone)]
pub struct Topology {
    pub(crate) road: Road,
    queue_type: QueueType,
    given_up: GivenUp,
    handing_on: HandingOn,
    when_full: WhenFull,
    pub(crate) ladder: Vec<Rung>,
}

/// What becomes of a message that the receiver or the broker gives up on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GivenUp {
    ToTheDeadLetters,
    Dropped,
}

/// When a dead letter leaves its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandingOn {
    AfterItsTargetHasIt,
    BeforeItsTargetHasIt,
}

/// What a queue does that has a length limit and has reached it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    RefusesTheNewest,
    DropsTheOldest,
}

impl Topology {
    /// Of the road of `messages`, without a ladder.
    pub fn new(queue_type: QueueType, without: &Without) -> Self {
        let off = |guarantee| without.has(guarantee);
        Self {
            road: Road::MESSAGES,
            queue_type,
            given_up: if off(Guarantee::DeadLettering) {
                GivenUp::Dropped
            } else {
                GivenUp::ToTheDeadLetters
            },
            handing_on: if off(Guarantee::SafeDeadLettering) {
                HandingOn::BeforeItsTargetHasIt
            } else {
                HandingOn::AfterItsTargetHasIt
            },
            when_full: if off(Guarantee::RejectPublish) {
                WhenFull::DropsTheOldest
            } else {
                WhenFull::RefusesTheNewest
            },
            ladder: Vec::new(),
        }
    }

    /// Of this road.
    #[must_use]
    pub fn of(mut self, road: Road) -> Self {
        self.road = road;
        self
    }

    /// With these rungs.
    #[must_use]
    pub fn with_ladder(mut self, rungs: &[Rung]) -> Self {
        self.ladder = rungs.to_vec();
        self
    }

    /// What would make a queue fit that is there with other properties, as far as the broker says which: of those that
    /// differ it names one, with the value that the queue has.
    pub(crate) fn blamed(&self, queue: &str, said: &str) -> Setting {
        let arguments = match queue {
            queue if queue == self.road.messages => messages_arguments,
            queue if queue == self.road.dead => dead_arguments,
            _ => return Setting::Ladder,
        };
        let (property, there) = difference(said);
        let fits = |topology: &Self| {
            let ours = arguments(topology);
            let ours = ours.into_iter().find(|(name, _)| *name == property);
            ours.map(|(_, value)| shown(&value)).as_deref() == there
        };
        let of_type = |queue_type| Self {
            queue_type,
            ..self.clone()
        };
        let types = [QueueType::Quorum, QueueType::Classic].map(of_type);
        if types.iter().any(fits) {
            Setting::QueueType
        } else if self.others().iter().any(fits) {
            Setting::Without
        } else if types.iter().flat_map(Self::others).any(|one| fits(&one)) {
            Setting::QueueType
        } else {
            Setting::VhostOfQueue
        }
    }

    /// With every choice of guarantees.
    fn others(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for given_up in [GivenUp::ToTheDeadLetters, GivenUp::Dropped] {
            for handing_on in [
                HandingOn::AfterItsTargetHasIt,
                HandingOn::BeforeItsTargetHasIt,
            ] {
                for when_full in [WhenFull::RefusesTheNewest, WhenFull::DropsTheOldest] {
                    all.push(Self {
                        given_up,
                        handing_on,
                        when_full,
                        ..self.clone()
                    });
                }
            }
        }
        all
    }
}

/// The property that the broker names, and the value that is there: `inequivalent arg 'x-overflow' for queue 'messages' in
/// vhost '/': received the value 'reject-publish' of type 'longstr' but current is none`.
fn difference(said: &str) -> (&str, Option<&str>) {
    let property = said.split('\'').nth(1).unwrap_or_default();
    let there = said.rsplit("but current is ").next().unwrap_or_default();
    (property, there.split('\'').nth(1))
}

/// As the broker shows it.
fn shown(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// Arguments of the road's queue, each with its reason.
pub(crate) fn messages_arguments(topology: &Topology) -> Vec<(&'static str, AMQPValue)> {
    let mut arguments = match topology.given_up {
        // what the receiver rejects goes to the dead letters instead of nowhere
        GivenUp::ToTheDeadLetters => hand_on_to(topology.road.dead, topology.queue_type, topology),
        GivenUp::Dropped => Vec::new(),
    };
    arguments.extend([queue_type(topology.queue_type), overflow(topology)]);
    if topology.queue_type == QueueType::Quorum {
        arguments.push(("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)));
    }
    arguments
}

/// Arguments of a queue of the ladder. Nobody consumes it: its messages only wait for their time, all
/// the same, so that none waits behind one that has longer to go. Replicated whatever that queue is,
/// since only a quorum queue keeps them until their target has confirmed that it took them back.
pub(crate) fn rung_arguments(topology: &Topology, rung: Rung) -> Vec<(&'static str, AMQPValue)> {
    let millis = i64::try_from(rung.0.as_millis()).unwrap_or(i64::MAX);
    let mut arguments = hand_on_to(topology.road.messages, QueueType::Quorum, topology);
    arguments.extend([
        queue_type(QueueType::Quorum),
        overflow(topology),
        ("x-message-ttl", AMQPValue::LongLongInt(millis)),
    ]);
    arguments
}

/// What leaves a queue of type `from` dead goes to the exchange and queue of the name `target`.
fn hand_on_to(
    target: &str,
    from: QueueType,
    topology: &Topology,
) -> Vec<(&'static str, AMQPValue)> {
    let mut arguments = vec![
        ("x-dead-letter-exchange", text(target)),
        ("x-dead-letter-routing-key", text(target)),
    ];
    let safely = topology.handing_on == HandingOn::AfterItsTargetHasIt;
    if from == QueueType::Quorum && safely {
        // a dead letter leaves this queue only after its target has confirmed it, which the broker
        // does only together with the overflow below
        arguments.push(("x-dead-letter-strategy", text("at-least-once")));
    }
    arguments
}

fn queue_type(queue_type: QueueType) -> (&'static str, AMQPValue) {
    let queue_type = match queue_type {
        QueueType::Quorum => "quorum",
        QueueType::Classic => "classic",
    };
    ("x-queue-type", text(queue_type))
}

/// There is no maximum length: dead letters that cannot leave count towards it, and publishers would
/// be refused for ever. Where an operator sets one by a policy, this says what becomes of the rest.
fn overflow(topology: &Topology) -> (&'static str, AMQPValue) {
    let overflow = match topology.when_full {
        WhenFull::RefusesTheNewest => "reject-publish",
        WhenFull::DropsTheOldest => "drop-head",
    };
    ("x-overflow", text(overflow))
}

/// Arguments of the queue of dead letters: replicated whatever the road's other queue is, and without a
/// dead-letter exchange of its own.
pub(crate) fn dead_arguments(topology: &Topology) -> Vec<(&'static str, AMQPValue)> {
    vec![
        queue_type(QueueType::Quorum),
        // what it refuses waits where it came from; what it dropped would be gone
        overflow(topology),
        (
            "x-delivery-limit",
            AMQPValue::LongLongInt(DEAD_DELIVERY_LIMIT),
        ),
    ]
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = Road::MESSAGES.messages;
    const DEAD: &str = Road::MESSAGES.dead;

    #[test]
    fn blamed_is_what_would_make_it_fit() {
        use QueueType::{Classic, Quorum};
        let inequivalent = |property: &str, there: &str| {
            format!(
                "inequivalent arg '{property}' for queue 'messages' in vhost '/': received the value 'x' of type 'longstr' but current is {there}"
            )
        };
        let value = |text: &str| format!("the value '{text}' of type 'longstr'");
        let none = "none".to_owned();
        for (ours, without, queue, property, there, blamed) in [
            (
                Classic,
                "",
                MESSAGES,
                "x-queue-type",
                value("quorum"),
                Setting::QueueType,
            ),
            (
                Quorum,
                "",
                MESSAGES,
                "x-dead-letter-strategy",
                none.clone(),
                Setting::QueueType,
            ),
            (
                Classic,
                "",
                MESSAGES,
                "x-dead-letter-strategy",
                value("at-least-once"),
                Setting::QueueType,
            ),
            (
                Classic,
                "dead-lettering",
                MESSAGES,
                "x-dead-letter-strategy",
                value("at-least-once"),
                Setting::QueueType,
            ),
            (
                Quorum,
                "",
                MESSAGES,
                "x-delivery-limit",
                none.clone(),
                Setting::QueueType,
            ),
            (
                Quorum,
                "",
                MESSAGES,
                "x-delivery-limit",
                value("20"),
                Setting::VhostOfQueue,
            ),
            (
                Quorum,
                "safe-dead-lettering",
                MESSAGES,
                "x-dead-letter-strategy",
                value("at-least-once"),
                Setting::Without,
            ),
            (
                Quorum,
                "",
                MESSAGES,
                "x-dead-letter-exchange",
                none.clone(),
                Setting::Without,
            ),
            (
                Quorum,
                "",
                MESSAGES,
                "x-dead-letter-exchange",
                value("theirs"),
                Setting::VhostOfQueue,
            ),
            (
                Quorum,
                "",
                DEAD,
                "x-overflow",
                value("drop-head"),
                Setting::Without,
            ),
            (Quorum, "", DEAD, "x-overflow", none, Setting::VhostOfQueue),
            (
                Quorum,
                "",
                DEAD,
                "x-queue-type",
                value("classic"),
                Setting::VhostOfQueue,
            ),
            (
                Quorum,
                "",
                MESSAGES,
                "durable",
                "'false'".to_owned(),
                Setting::VhostOfQueue,
            ),
            (
                Quorum,
                "",
                "messages.retry.1000",
                "x-overflow",
                value("drop-head"),
                Setting::Ladder,
            ),
        ] {
            let topology = Topology::new(ours, &without.parse().unwrap());
            let said = inequivalent(property, &there);
            assert_eq!(topology.blamed(queue, &said), blamed, "{ours:?}: {said}");
        }
    }
}
