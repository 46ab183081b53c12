//! The one place that knows exchanges, queues and bindings.
//!
//! Declared at the start of every session: a broker that lost its data gets it back, and a queue
//! that somebody declared differently is noticed before anything is published to it.
//!
//! ```text
//! exchange messages ──▶ queue messages ──(given up on)──▶ exchange messages.dead ──▶ queue messages.dead
//! ```

use std::time::Duration;

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{
    Error,
    connection::{QueueType, within},
};

/// Exchange, queue and routing key of messages on their way.
pub const MESSAGES: &str = "messages";
/// Exchange, queue and routing key of messages given up on.
pub const DEAD: &str = "messages.dead";

/// The broker's own net under the receiver's counts: it gives up on the 1,001st return. Far above
/// what lost connections add to the count of innocent messages, since the default of 4.x, 20, is not.
const DELIVERY_LIMIT: i64 = 1_000;
/// A dead letter is only ever returned by a crash or a cut. 4.0 would drop it after 20 of those;
/// -1 means no limit from 4.0 on, but 3.10 drops at the first return, so: a number never reached.
const DEAD_DELIVERY_LIMIT: i64 = 1_000_000;

/// Held while something is created: an exclusive queue belongs to one connection and goes with it.
const LOCK: &str = "messages.topology-lock";
/// How old a new queue must be before anything is published to it. RabbitMQ writes down twice a second
/// which quorum queues it has; killed before that (seen on 3.10), it comes back with a queue that has
/// no leader for ever, and what it had confirmed is out of reach.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How long to wait for another node that is creating.
const LOCK_LIMIT: Duration = Duration::from_secs(15);

/// Declares everything, or finds it as declared.
///
/// Only one node at a time creates: RabbitMQ 3.10 answers every second round of concurrent
/// declarations of one quorum queue with an internal error, and may leave a queue without a leader.
///
/// # Errors
/// [`Error::Incompatible`] when something has other properties on the broker; else the link's.
pub async fn declare(connection: &Connection, queue_type: QueueType) -> Result<(), Error> {
    let lock = if exists(connection).await? {
        None
    } else {
        Some(lock(connection).await?)
    };
    let channel = within("open a channel", connection.create_channel()).await?;
    // Where dead letters go comes first: a queue whose dead-letter target is absent drops them.
    exchange(&channel, DEAD).await?;
    queue(&channel, DEAD, &dead_arguments()).await?;
    bind(&channel, DEAD).await?;
    queue(&channel, MESSAGES, &messages_arguments(queue_type)).await?;
    if lock.is_some() {
        tokio::time::sleep(SETTLE).await;
    }
    // Last, so that nothing is published to a queue that may still be forgotten.
    exchange(&channel, MESSAGES).await?;
    bind(&channel, MESSAGES).await?;
    within("close a channel", channel.close(200, "declared".into())).await?;
    if let Some(lock) = lock {
        within(
            "unlock",
            lock.queue_delete(LOCK.into(), QueueDeleteOptions::default()),
        )
        .await?;
        within("close a channel", lock.close(200, "declared".into())).await?;
    }
    Ok(())
}

/// True if all of it is there, however it was declared: the exchange comes last.
async fn exists(connection: &Connection) -> Result<bool, Error> {
    // The broker closes the channel of a passive declaration that finds nothing.
    let channel = within("open a channel", connection.create_channel()).await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    for name in [DEAD, MESSAGES] {
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
    let found = channel.exchange_declare(MESSAGES.into(), ExchangeKind::Direct, passive, nothing);
    match within("look for an exchange", found).await {
        Ok(()) => {}
        Err(error) if code(&error) == Some(404) => return Ok(false),
        Err(error) => return Err(error),
    }
    within("close a channel", channel.close(200, "looked".into())).await?;
    Ok(true)
}

/// Waits for the lock, and gives the channel that holds it.
async fn lock(connection: &Connection) -> Result<Channel, Error> {
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    let take = async {
        loop {
            let channel = within("open a channel", connection.create_channel()).await?;
            let taken = channel.queue_declare(LOCK.into(), exclusive, FieldTable::default());
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

/// Arguments of the queue `messages`, each with its reason.
pub fn messages_arguments(queue_type: QueueType) -> Vec<(&'static str, AMQPValue)> {
    let mut arguments = vec![
        // what the receiver rejects goes to the dead letters instead of nowhere
        ("x-dead-letter-exchange", text(DEAD)),
        ("x-dead-letter-routing-key", text(DEAD)),
    ];
    match queue_type {
        QueueType::Quorum => arguments.extend([
            ("x-queue-type", text("quorum")),
            ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
            // a dead letter leaves this queue only after its target has confirmed it ..
            ("x-dead-letter-strategy", text("at-least-once")),
            // .. which the broker does only together with this. There is no maximum length: dead
            // letters that cannot leave count towards it, and publishers would be refused for ever.
            ("x-overflow", text("reject-publish")),
        ]),
        QueueType::Classic => arguments.push(("x-queue-type", text("classic"))),
    }
    arguments
}

/// Arguments of the queue `messages.dead`: replicated whatever `messages` is, and without a
/// dead-letter exchange of its own.
pub fn dead_arguments() -> Vec<(&'static str, AMQPValue)> {
    vec![
        ("x-queue-type", text("quorum")),
        (
            "x-delivery-limit",
            AMQPValue::LongLongInt(DEAD_DELIVERY_LIMIT),
        ),
    ]
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
    explain(within("declare an exchange", declared).await, || {
        format!("exchange {name:?}")
    })
}

async fn queue(
    channel: &Channel,
    name: &'static str,
    arguments: &[(&'static str, AMQPValue)],
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
    explain(within("declare a queue", declared).await.map(drop), || {
        format!("queue {name:?}")
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
fn explain(result: Result<(), Error>, what: impl FnOnce() -> String) -> Result<(), Error> {
    match result {
        Err(error) if code(&error) == Some(406) => {
            let said = error.to_string();
            let difference = said
                .rsplit("PRECONDITION_FAILED - ")
                .next()
                .unwrap_or(&said)
                .to_owned();
            Err(Error::Incompatible {
                what: what(),
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

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
