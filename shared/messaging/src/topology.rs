//! The one place that declares exchanges, queues and bindings; `arguments.rs` has the properties
//! of the queues.
//!
//! Declared at the start of every session: a broker that lost its data gets it back, and a queue
//! that somebody declared differently is noticed before anything is published to it.
//!
//! This is the road of `messages`; another [`Road`] has other names in the same places.
//!
//! ```text
//! exchange messages ──▶ queue messages ──(given up on)──▶ exchange messages.dead ──▶ queue messages.dead
//!        ▲
//!        └──(time is over)── queue messages.retry.1000, messages.retry.5000, ..: the ladder, if there is one
//! ```

use std::time::Duration;

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{
    Error,
    arguments::{Topology, dead_arguments, messages_arguments, rung_arguments},
    connection::within,
    error::Setting,
};

/// The names of one road. Each is that of an exchange, of a queue and of a routing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Road {
    /// Of messages on their way. The queues of its ladder and the lock are named after it.
    pub messages: &'static str,
    /// Of those given up on.
    pub dead: &'static str,
}

impl Road {
    /// From the senders to the receivers.
    pub const MESSAGES: Self = Self {
        messages: "messages",
        dead: "messages.dead",
    };

    /// Where its messages are published to.
    pub(crate) fn route(self) -> Route {
        Route {
            exchange: self.messages.into(),
            key: self.messages.into(),
        }
    }

    /// Held while something is created: an exclusive queue belongs to one connection and goes with it.
    fn lock(self) -> String {
        format!("{}.topology-lock", self.messages)
    }
}

/// How old a new queue must be before anything is published to it. RabbitMQ writes down twice a second
/// which quorum queues it has; killed before that (seen on 3.10), it comes back with a queue that has
/// no leader for ever, and what it had confirmed is out of reach.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How long to wait for another node that is creating.
const LOCK_LIMIT: Duration = Duration::from_secs(15);

/// Where a message is published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub(crate) exchange: ShortString,
    pub(crate) key: ShortString,
}

/// One queue of the ladder: what is published to it comes back to the road's queue after its time.
///
/// Its name says its time, since a queue's time cannot be changed: another setting is another queue,
/// and what waits in the old one still comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung(pub Duration);

impl Rung {
    /// Of the queue.
    pub fn name(self, road: Road) -> String {
        format!("{}.retry.{}", road.messages, self.0.as_millis())
    }

    /// Straight to the queue: every queue is bound to the exchange without a name.
    pub fn route(self, road: Road) -> Route {
        Route {
            exchange: "".into(),
            key: self.name(road).into(),
        }
    }
}

/// Declares everything, or finds it as declared.
///
/// Only one node at a time creates: RabbitMQ 3.10 answers every second round of concurrent
/// declarations of one quorum queue with an internal error, and may leave a queue without a leader.
///
/// # Errors
/// [`Error::Incompatible`] when something has other properties on the broker; else the link's.
pub async fn declare(connection: &Connection, topology: &Topology) -> Result<(), Error> {
    let road = topology.road;
    let lock = if exists(connection, topology).await? {
        None
    } else {
        Some(lock(connection, road).await?)
    };
    // Whoever held the lock before may have created it all.
    let creates = lock.is_some() && !exists(connection, topology).await?;
    let channel = within("open a channel", connection.create_channel()).await?;
    // Where dead letters go comes first: a queue whose dead-letter target is absent drops them.
    exchange(&channel, road.dead).await?;
    let arguments = dead_arguments(topology);
    queue(&channel, road.dead, &arguments, topology).await?;
    bind(&channel, road.dead).await?;
    let arguments = messages_arguments(topology);
    queue(&channel, road.messages, &arguments, topology).await?;
    for rung in &topology.ladder {
        let arguments = rung_arguments(topology, *rung);
        queue(&channel, &rung.name(road), &arguments, topology).await?;
    }
    if creates {
        tokio::time::sleep(SETTLE).await;
    }
    // Last, so that nothing is published to a queue that may still be forgotten.
    exchange(&channel, road.messages).await?;
    bind(&channel, road.messages).await?;
    within("close a channel", channel.close(200, "declared".into())).await?;
    if let Some(lock) = lock {
        within(
            "unlock",
            lock.queue_delete(road.lock().into(), QueueDeleteOptions::default()),
        )
        .await?;
        within("close a channel", lock.close(200, "declared".into())).await?;
    }
    Ok(())
}

/// True if all of it is there, however it was declared: the exchange comes last.
async fn exists(connection: &Connection, topology: &Topology) -> Result<bool, Error> {
    let road = topology.road;
    // The broker closes the channel of a passive declaration that finds nothing.
    let channel = within("open a channel", connection.create_channel()).await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let rungs = topology.ladder.iter().map(|rung| rung.name(road));
    for name in [road.dead, road.messages]
        .map(str::to_owned)
        .into_iter()
        .chain(rungs)
    {
        let found = channel.queue_declare(name.into(), passive, FieldTable::default());
        match within("look for a queue", found).await {
            Ok(_) => {}
            Err(error) if code(&error) == Some(404) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let nothing = FieldTable::default();
    let found =
        channel.exchange_declare(road.messages.into(), ExchangeKind::Direct, passive, nothing);
    match within("look for an exchange", found).await {
        Ok(()) => {}
        Err(error) if code(&error) == Some(404) => return Ok(false),
        Err(error) => return Err(error),
    }
    within("close a channel", channel.close(200, "looked".into())).await?;
    Ok(true)
}

/// Waits for the lock, and gives the channel that holds it.
async fn lock(connection: &Connection, road: Road) -> Result<Channel, Error> {
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    let take = async {
        loop {
            let channel = within("open a channel", connection.create_channel()).await?;
            let taken = channel.queue_declare(road.lock().into(), exclusive, FieldTable::default());
            match within("lock", taken).await {
                Ok(_) => return Ok(channel),
                // Another connection holds it.
                Err(error) if code(&error) == Some(405) => {
                    let pause = Duration::from_millis(rand::random_range(20..100));
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    };
    let waited_out = Error::Deadline {
        what: "lock the topology",
        limit: LOCK_LIMIT,
    };
    tokio::time::timeout(LOCK_LIMIT, take)
        .await
        .unwrap_or(Err(waited_out))
}

async fn exchange(channel: &Channel, name: &'static str) -> Result<(), Error> {
    // durable: bindings of a durable queue must survive a restart with it
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = channel.exchange_declare(
        name.into(),
        ExchangeKind::Direct,
        options,
        FieldTable::default(),
    );
    let declared = within("declare an exchange", declared).await;
    explain(declared, &format!("exchange {name:?}"), |_| {
        Setting::VhostOfExchange
    })
}

async fn queue(
    channel: &Channel,
    name: &str,
    arguments: &[(&'static str, AMQPValue)],
    topology: &Topology,
) -> Result<(), Error> {
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        table.insert((*key).into(), value.clone());
    }
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = channel.queue_declare(name.into(), options, table);
    let declared = within("declare a queue", declared).await.map(drop);
    explain(declared, &format!("queue {name:?}"), |said| {
        topology.blamed(name, said)
    })
}

async fn bind(channel: &Channel, name: &'static str) -> Result<(), Error> {
    let bound = channel.queue_bind(
        name.into(),
        name.into(),
        name.into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    within("bind a queue", bound).await
}

/// Turns the broker's 406 into an error that says what to do.
fn explain(
    result: Result<(), Error>,
    what: &str,
    setting: impl Fn(&str) -> Setting,
) -> Result<(), Error> {
    match result {
        Err(error) if code(&error) == Some(406) => {
            let said = error.to_string();
            let difference = said
                .rsplit("PRECONDITION_FAILED - ")
                .next()
                .unwrap_or(&said)
                .to_owned();
            Err(Error::Incompatible {
                what: what.to_owned(),
                setting: setting(&difference),
                difference,
            })
        }
        result => result,
    }
}

/// The broker's own reply code, if it is one that is an answer to us.
fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Broker(error) => match error.kind() {
            ErrorKind::ProtocolError(reply) => Some(reply.get_id()),
            _ => None,
        },
        _ => None,
    }
}
