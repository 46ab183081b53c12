//! Every fault there is, by its name `target-deed`, with its arguments and where it works.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::close_connection::CloseConnection;
use super::duplicate_publish::DuplicatePublish;
use super::fail_point::FailPoint;
use super::kill::Kill;
use super::link::{How, Link};
use super::memory_alarm::MemoryAlarm;
use super::pause::Pause;
use super::queue_limit::QueueLimit;
use super::queue_unbind::QueueUnbind;
use super::restart::Restart;
use super::targets::Targets;
use super::work::Work;
use super::{Fault, Order, Which};
use crate::load::length;
use crate::say::Usage;
use crate::stack::node::Service;
use crate::stack::servers::Which as Server;
use crate::stack::strike::End;

/// What an argument may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A length of time, in milliseconds from .. to.
    Length(u64, u64),
    /// A whole number from .. to.
    Number(u64, u64),
    OneOf(&'static [&'static str]),
    Text,
}

/// An argument of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Arg {
    pub name: &'static str,
    pub kind: Kind,
    /// What it is when it is not given.
    pub usual: &'static str,
    pub what: &'static str,
}

/// What a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strikes {
    Nodes(Service),
    /// Senders or receivers, as the arguments say.
    AnyNode,
    Server(Server),
    /// Nodes' links to it.
    Links(Server),
    /// What messages go through: there is one.
    Queue,
    /// Nodes' connections with the broker.
    Connections,
}

/// A fault as it is offered.
pub struct Entry {
    pub name: &'static str,
    pub what: &'static str,
    pub strikes: Strikes,
    pub args: &'static [Arg],
    /// On whom without further words.
    pub usual: Which,
    /// It is over as soon as it is injected: there is nothing to heal.
    pub instant: bool,
    /// It is in the broker's data, and outlives the programs.
    pub lasting: bool,
    /// Why a stack of containers cannot have it.
    pub no_compose: Option<&'static str>,
    pub fault: Box<dyn Fault>,
}

const NO_DOCKER: &str = "not yet: lab does not drive containers";
const NO_PROXY: &str = "containers speak to the servers themselves, without a proxy";

const LATENCY: &[Arg] = &[
    Arg {
        name: "latency",
        kind: Kind::Length(20, 60_000),
        usual: "200ms",
        what: "each piece is held back so long, each way",
    },
    Arg {
        name: "jitter",
        kind: Kind::Length(0, 60_000),
        usual: "100ms",
        what: "and up to so much longer",
    },
];
const DIRECTION: &[Arg] = &[Arg {
    name: "direction",
    kind: Kind::OneOf(&["both", "up", "down"]),
    usual: "both",
    what: "up: nothing reaches the server; down: nothing comes back",
}];
const ROLE: &[Arg] = &[Arg {
    name: "role",
    kind: Kind::OneOf(&["any", "publisher", "consumer", "dead letters"]),
    usual: "any",
    what: "of which connections",
}];
const LIMIT: &[Arg] = &[
    Arg {
        name: "max-length",
        kind: Kind::Number(0, 1_000_000_000),
        usual: "10",
        what: "how many messages the queue may hold",
    },
    Arg {
        name: "queue",
        kind: Kind::OneOf(&["messages", "messages.dead"]),
        usual: "messages",
        what: "which queue",
    },
];
const DELAYS: &[Arg] = &[
    Arg {
        name: "delay-min",
        kind: Kind::Length(0, 600_000),
        usual: "2s",
        what: "the shortest time that the work takes",
    },
    Arg {
        name: "delay-max",
        kind: Kind::Length(0, 600_000),
        usual: "5s",
        what: "the longest",
    },
];
const ONE_IN: Arg = Arg {
    name: "one-in",
    kind: Kind::Number(0, 1_000_000),
    usual: "2",
    what: "the work fails one time in so many (1: always, 0: never)",
};
const ACTION: Arg = Arg {
    name: "action",
    kind: Kind::OneOf(&["nack", "reject", "drop", "crash", "ack", "park", "hang"]),
    usual: "nack",
    what: "what the receiver does then",
};
const ALWAYS: Arg = Arg {
    usual: "1",
    ..ONE_IN
};
const COPY: &[Arg] = &[
    Arg {
        name: "run",
        kind: Kind::Text,
        usual: "",
        what: "of which run the message is (any, if empty)",
    },
    Arg {
        name: "copies",
        kind: Kind::Number(1, 1_000),
        usual: "1",
        what: "how often it is published again",
    },
];
const POINT: &[Arg] = &[
    Arg {
        name: "point",
        kind: Kind::Text,
        usual: "settle.before_ack",
        what: "which fail point",
    },
    Arg {
        name: "action",
        kind: Kind::Text,
        usual: "crash@1",
        what: "crash, error, park or delay:MS, then perhaps @N (the Nth passage) or %N (every Nth)",
    },
];

/// All of them.
pub fn catalogue() -> &'static [Entry] {
    static ALL: LazyLock<Vec<Entry>> = LazyLock::new(all);
    &ALL
}

/// The one of this name.
pub fn find(name: &str) -> Result<&'static Entry, Usage> {
    let found = catalogue().iter().find(|entry| entry.name == name);
    found.ok_or_else(|| {
        Usage(format!(
            "there is no fault {name}; `cargo lab fault list` names all"
        ))
    })
}

impl Entry {
    fn new(
        name: &'static str,
        what: &'static str,
        strikes: Strikes,
        fault: impl Fault + 'static,
    ) -> Self {
        Self {
            name,
            what,
            strikes,
            args: &[],
            usual: Which::Any,
            instant: false,
            lasting: false,
            no_compose: Some(NO_DOCKER),
            fault: Box::new(fault),
        }
    }

    fn with(mut self, args: &'static [Arg]) -> Self {
        self.args = args;
        self
    }

    fn instant(mut self) -> Self {
        self.instant = true;
        self
    }

    fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    fn usually_all(mut self) -> Self {
        self.usual = Which::All;
        self
    }

    /// Whether it needs `lab up --faults`.
    pub fn needs_links(&self) -> bool {
        matches!(self.strikes, Strikes::Links(_))
    }

    /// The same order with all its arguments, or why it can never be obeyed.
    pub fn check(&self, order: &Order) -> Result<Order, Usage> {
        let name = self.name;
        let wrong = |why: String| Usage(format!("{name}: {why}"));
        for given in order.args.keys() {
            if !self.args.iter().any(|arg| arg.name == given) {
                let known: Vec<&str> = self.args.iter().map(|arg| arg.name).collect();
                return Err(wrong(match &*known {
                    [] => format!("it has no argument {given}, nor any other"),
                    known => format!("it has no argument {given}; it has: {}", known.join(", ")),
                }));
            }
        }
        let mut args = BTreeMap::new();
        for arg in self.args {
            let value = order.args.get(arg.name).map_or(arg.usual, String::as_str);
            arg.check(value).map_err(wrong)?;
            args.insert(arg.name.to_owned(), value.to_owned());
        }
        let which = match (&order.which, self.strikes) {
            (Which::One(node), Strikes::Server(_) | Strikes::Queue) => {
                return Err(wrong(format!(
                    "it strikes no node, so it cannot be on {node}"
                )));
            }
            (Which::Usual, _) => self.usual.clone(),
            (which, _) => which.clone(),
        };
        let checked = Order {
            which,
            args,
            ..order.clone()
        };
        self.fault.check(&checked).map_err(|why| wrong(why.0))?;
        Ok(checked)
    }
}

impl Arg {
    fn check(&self, value: &str) -> Result<(), String> {
        let name = self.name;
        match self.kind {
            Kind::Text => Ok(()),
            Kind::OneOf(words) if words.contains(&value) => Ok(()),
            Kind::OneOf(words) => Err(format!(
                "{name} is {value:?}; right is one of: {}",
                words.join(", ")
            )),
            Kind::Number(min, max) => match value.parse() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(format!(
                    "{name} is {value:?}; right is a number from {min} to {max}"
                )),
            },
            Kind::Length(min, max) => {
                let length = length::parse(value).map_err(|why| format!("{name}: {why}"))?;
                let range = u128::from(min)..=u128::from(max);
                if range.contains(&length.as_millis()) {
                    Ok(())
                } else {
                    Err(format!("{name} is {value}; right is {min}ms to {max}ms"))
                }
            }
        }
    }
}

fn all() -> Vec<Entry> {
    let mut all = Vec::new();
    all.extend(nodes());
    all.extend(servers());
    all.extend(links());
    all.extend(broker());
    all.extend(work());
    all
}

fn nodes() -> Vec<Entry> {
    let one = |service, names: [&'static str; 3]| {
        let (targets, strikes) = (Targets::Nodes(service), Strikes::Nodes(service));
        let (kill, end) = (End::Kill, End::Terminate);
        [
            Entry::new(
                names[0],
                "a node is killed and stays dead",
                strikes,
                Kill { targets, end: kill },
            ),
            Entry::new(
                names[1],
                "a node is asked to stop and stays away",
                strikes,
                Kill { targets, end },
            ),
            Entry::new(
                names[2],
                "a node stands still, its sockets open",
                strikes,
                Pause { targets },
            ),
        ]
    };
    let sender = ["sender-kill", "sender-terminate", "sender-pause"];
    let receiver = ["receiver-kill", "receiver-terminate", "receiver-pause"];
    [
        one(Service::Sender, sender),
        one(Service::Receiver, receiver),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn servers() -> Vec<Entry> {
    let one = |server, names: [&'static str; 3]| {
        let (targets, strikes) = (Targets::Server(server), Strikes::Server(server));
        let kill = Kill {
            targets,
            end: End::Kill,
        };
        [
            Entry::new(names[0], "it is killed and stays dead", strikes, kill),
            Entry::new(
                names[1],
                "it is stopped softly and started again",
                strikes,
                Restart { targets },
            )
            .instant(),
            Entry::new(
                names[2],
                "it stands still, its sockets open",
                strikes,
                Pause { targets },
            ),
        ]
    };
    [
        one(
            Server::RabbitMq,
            ["rabbitmq-kill", "rabbitmq-restart", "rabbitmq-pause"],
        ),
        one(
            Server::Postgres,
            ["postgres-kill", "postgres-restart", "postgres-pause"],
        ),
        one(
            Server::Redis,
            ["redis-kill", "redis-restart", "redis-pause"],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn links() -> Vec<Entry> {
    let one = |server, names: [&'static str; 4]| {
        let strikes = Strikes::Links(server);
        let link = |how| Link { server, how };
        let mut four = [
            Entry::new(
                names[0],
                "a node's link to it is slow",
                strikes,
                link(How::Slow),
            )
            .with(LATENCY),
            Entry::new(
                names[1],
                "a node's connections to it are reset",
                strikes,
                link(How::Cut),
            )
            .instant(),
            Entry::new(
                names[2],
                "a node's link to it is half-open: nothing passes",
                strikes,
                link(How::Silent),
            )
            .with(DIRECTION),
            Entry::new(
                names[3],
                "a node's connections to it are reset, new ones too",
                strikes,
                link(How::Refuse),
            ),
        ];
        for entry in &mut four {
            entry.no_compose = Some(NO_PROXY);
        }
        four
    };
    let rabbitmq = [
        "rabbitmq-link-slow",
        "rabbitmq-link-cut",
        "rabbitmq-link-silent",
        "rabbitmq-link-refuse",
    ];
    let postgres = [
        "postgres-link-slow",
        "postgres-link-cut",
        "postgres-link-silent",
        "postgres-link-refuse",
    ];
    let redis = [
        "redis-link-slow",
        "redis-link-cut",
        "redis-link-silent",
        "redis-link-refuse",
    ];
    [
        one(Server::RabbitMq, rabbitmq),
        one(Server::Postgres, postgres),
        one(Server::Redis, redis),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn broker() -> Vec<Entry> {
    let rabbitmq = Strikes::Server(Server::RabbitMq);
    vec![
        Entry::new(
            "rabbitmq-close-connection",
            "the broker closes connections of nodes",
            Strikes::Connections,
            CloseConnection,
        )
        .with(ROLE)
        .instant(),
        Entry::new(
            "rabbitmq-memory-alarm",
            "the broker blocks publishing",
            rabbitmq,
            MemoryAlarm,
        ),
        Entry::new(
            "queue-limit",
            "the queue has a maximum length",
            Strikes::Queue,
            QueueLimit,
        )
        .with(LIMIT)
        .lasting(),
        Entry::new(
            "queue-unbind",
            "messages are unroutable",
            Strikes::Queue,
            QueueUnbind,
        )
        .lasting(),
        Entry::new(
            "duplicate-publish",
            "a processed message is published once more",
            Strikes::Queue,
            DuplicatePublish,
        )
        .with(COPY)
        .instant(),
    ]
}

fn work() -> Vec<Entry> {
    let receivers = Strikes::Nodes(Service::Receiver);
    let one = |name, what, work, args| {
        Entry::new(name, what, receivers, work)
            .with(args)
            .usually_all()
    };
    let fail = |action| Work::Fail(Some(action));
    const BOTH: &[Arg] = &[ONE_IN, ACTION];
    vec![
        one("work-slow", "the work takes long", Work::Slow, DELAYS),
        one("work-fail", "the work fails", Work::Fail(None), BOTH),
        one(
            "work-reject",
            "it fails, and basic.reject sends it back",
            fail("reject"),
            &[ONE_IN],
        ),
        one(
            "work-drop",
            "it fails, and the connection is dropped",
            fail("drop"),
            &[ONE_IN],
        ),
        one(
            "work-crash",
            "it fails, and the process dies",
            fail("crash"),
            &[ONE_IN],
        ),
        one("work-hang", "it never ends", fail("hang"), &[ONE_IN]),
        one(
            "work-poison",
            "every message fails at every attempt",
            fail("nack"),
            &[ALWAYS],
        ),
        Entry::new(
            "fail-point",
            "a fail point of a node is armed",
            Strikes::AnyNode,
            FailPoint,
        )
        .with(POINT),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn refused(order: &Order) -> String {
        let entry = find(&order.fault).unwrap();
        entry.check(order).unwrap_err().to_string()
    }

    #[test]
    fn each_has_its_own_name_and_usual_arguments_that_are_right() {
        let names: HashSet<&str> = catalogue().iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), catalogue().len());
        for entry in catalogue() {
            let checked = entry.check(&Order::new(entry.name)).unwrap();
            assert_eq!(checked.args.len(), entry.args.len(), "{}", entry.name);
            assert_ne!(checked.which, Which::Usual);
        }
    }

    #[test]
    fn what_was_checked_is_right_again() {
        let order = Order::new("rabbitmq-link-slow").with("latency", "1s");
        let entry = find("rabbitmq-link-slow").unwrap();
        let checked = entry.check(&order).unwrap();
        assert_eq!(checked.args["jitter"], "100ms");
        assert_eq!(entry.check(&checked).unwrap(), checked);
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_in_a_line() {
        let unknown = find("receiver-kil").err().unwrap().to_string();
        assert!(
            unknown.starts_with("there is no fault receiver-kil;"),
            "{unknown}"
        );
        for (order, why) in [
            (
                Order::new("redis-kill").with("x", "1"),
                "no argument x, nor any other",
            ),
            (
                Order::new("queue-limit").with("length", "1"),
                "it has: max-length, queue",
            ),
            (
                Order::new("queue-limit").with("max-length", "-1"),
                "right is a number",
            ),
            (
                Order::new("queue-limit").with("queue", "x"),
                "messages, messages.dead",
            ),
            (
                Order::new("rabbitmq-link-slow").with("latency", "200"),
                "no length of time",
            ),
            (
                Order::new("rabbitmq-link-slow").with("latency", "1ms"),
                "20ms to",
            ),
            (
                Order::new("rabbitmq-link-silent").with("direction", "left"),
                "both, up, down",
            ),
            (
                Order::new("work-fail").with("action", "explode"),
                "nack, reject",
            ),
            (
                Order::new("work-slow").with("delay-min", "9s"),
                "more than delay-max",
            ),
            (Order::new("fail-point").with("point", "x"), "no fail point"),
            (
                Order::new("redis-kill").on(Which::One("a".to_owned())),
                "cannot be on a",
            ),
        ] {
            let said = refused(&order);
            assert!(said.contains(why) && !said.contains('\n'), "{said}");
            assert!(said.starts_with(&format!("{}: ", order.fault)), "{said}");
        }
    }
}
