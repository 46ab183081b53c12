//! Every fault there is, with its arguments and where it works.

use super::catalogue::{Arg, Entry, Kind, Strikes};
use super::close_connection::CloseConnection;
use super::duplicate_publish::DuplicatePublish;
use super::fail_point::FailPoint;
use super::link::{How, Link};
use super::memory_alarm::MemoryAlarm;
use super::program::{Deed, Program};
use super::queue_limit::QueueLimit;
use super::queue_unbind::QueueUnbind;
use super::redrive::Redrive;
use super::targets::Targets;
use super::work::Work;
use crate::stack::node::Service;
use crate::stack::servers::Which as Server;
use crate::stack::strike::End;

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
    QUEUE,
];
const QUEUE: Arg = Arg {
    name: "queue",
    kind: Kind::OneOf(&["messages", "messages.dead"]),
    usual: "messages",
    what: "which queue",
};
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
const FAILURE: &[Arg] = &[ONE_IN, ACTION];
const ALWAYS: Arg = Arg {
    usual: "1",
    ..ONE_IN
};
const COPY: &[Arg] = &[
    Arg {
        name: "run",
        kind: Kind::Text,
        usual: "",
        what: "of which run the message is (if empty: of an experiment's own, else of any)",
    },
    Arg {
        name: "copies",
        kind: Kind::Number(1, 1_000),
        usual: "1",
        what: "how often it is published again",
    },
    Arg {
        name: "which",
        kind: Kind::OneOf(&["newest", "forgotten"]),
        usual: "newest",
        what: "forgotten: one that the inbox knows no more; there must be one",
    },
];
const BACK: &[Arg] = &[
    Arg {
        name: "run",
        kind: Kind::Text,
        usual: "",
        what: "of which run they are (if empty: of an experiment's own, else of any)",
    },
    Arg {
        name: "rate",
        kind: Kind::Number(1, 10_000),
        usual: "100",
        what: "so many a second at most",
    },
    Arg {
        name: "when",
        kind: Kind::OneOf(&["now", "alarm"]),
        usual: "now",
        what: "alarm: not before the broker has a memory alarm; there must be one",
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

/// In the order in which people see them.
pub fn all() -> Vec<Entry> {
    let mut all = Vec::new();
    all.extend(nodes());
    all.extend(servers());
    all.extend(links());
    all.extend(broker());
    all.extend(work());
    all
}

fn nodes() -> Vec<Entry> {
    let one = |service: Service| {
        let (targets, strikes) = (Targets::Nodes(service), Strikes::Nodes(service));
        let entry = |deed: &str, what, how| {
            // the catalogue is made once, and stays
            let name: &'static str = format!("{}-{deed}", service.name()).leak();
            Entry::new(name, what, strikes, Program { targets, deed: how })
        };
        [
            entry(
                "kill",
                "a node is killed and stays dead",
                Deed::End(End::Kill),
            ),
            entry(
                "terminate",
                "a node is asked to stop and stays away",
                Deed::End(End::Terminate),
            ),
            entry(
                "pause",
                "a node stands still, its sockets open",
                Deed::Pause,
            ),
        ]
    };
    Service::ALL.into_iter().flat_map(one).collect()
}

fn servers() -> Vec<Entry> {
    let one = |server, names: [&'static str; 3]| {
        let (targets, strikes) = (Targets::Server(server), Strikes::Server(server));
        let program = |deed| Program { targets, deed };
        [
            Entry::new(
                names[0],
                "the server is killed and stays dead",
                strikes,
                program(Deed::End(End::Kill)),
            ),
            Entry::new(
                names[1],
                "the server is stopped softly and started again",
                strikes,
                program(Deed::Restart),
            )
            .instant(),
            Entry::new(
                names[2],
                "the server stands still, its sockets open",
                strikes,
                program(Deed::Pause),
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
        [
            Entry::new(
                names[0],
                "a node's link to the server is slow",
                strikes,
                link(How::Slow),
            )
            .with(LATENCY),
            Entry::new(
                names[1],
                "a node's connections to the server are reset",
                strikes,
                link(How::Cut),
            )
            .instant(),
            Entry::new(
                names[2],
                "a node's link to the server is half-open: nothing passes",
                strikes,
                link(How::Silent),
            )
            .with(DIRECTION),
            Entry::new(
                names[3],
                "a node's connections to the server are reset, new ones too",
                strikes,
                link(How::Refuse),
            ),
        ]
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
        .with(&[QUEUE])
        .lasting(),
        Entry::new(
            "duplicate-publish",
            "a processed message is published once more",
            Strikes::Queue,
            DuplicatePublish,
        )
        .with(COPY)
        .instant(),
        Entry::new(
            "dead-letters-redrive",
            "dead letters are sent back; its end is a cancel",
            Strikes::Queue,
            Redrive,
        )
        .with(BACK),
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
    vec![
        one("work-slow", "the work takes long", Work::Slow, DELAYS),
        one("work-fail", "the work fails", Work::Fail(None), FAILURE),
        one(
            "work-reject",
            "the work fails, and basic.reject sends the message back",
            fail("reject"),
            &[ONE_IN],
        ),
        one(
            "work-drop",
            "the work fails, and the connection is dropped",
            fail("drop"),
            &[ONE_IN],
        ),
        one(
            "work-crash",
            "the work fails, and the process dies",
            fail("crash"),
            &[ONE_IN],
        ),
        one("work-hang", "the work never ends", fail("hang"), &[ONE_IN]),
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
