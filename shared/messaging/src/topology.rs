//! The one place that knows exchanges, queues and bindings.
//!
//! Declared at the start of every session: a broker that lost its data gets it back, and a queue
//! that somebody declared differently is noticed before anything is published to it.
//!
//! ```text
//! exchange messages ──▶ queue messages ──(given up on)──▶ exchange messages.dead ──▶ queue messages.dead
//! ```

use lapin::{
    Channel, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
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

/// Declares everything, or finds it as declared.
///
/// # Errors
/// [`Error::Incompatible`] when something has other properties on the broker; else the link's.
pub async fn declare(channel: &Channel, queue_type: QueueType) -> Result<(), Error> {
    // Where dead letters go comes first: a queue whose dead-letter target is absent drops them.
    exchange(channel, DEAD).await?;
    queue(channel, DEAD, &dead_arguments()).await?;
    exchange(channel, MESSAGES).await?;
    queue(channel, MESSAGES, &messages_arguments(queue_type)).await
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
        ("x-delivery-limit", AMQPValue::LongLongInt(DEAD_DELIVERY_LIMIT)),
    ]
}

async fn exchange(channel: &Channel, name: &'static str) -> Result<(), Error> {
    // durable: bindings of a durable queue must survive a restart with it
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let declared =
        channel.exchange_declare(name.into(), ExchangeKind::Direct, options, FieldTable::default());
    explain(within("declare an exchange", declared).await, || format!("exchange {name:?}"))
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
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    let declared = channel.queue_declare(name.into(), options, table);
    explain(within("declare a queue", declared).await.map(drop), || format!("queue {name:?}"))?;
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
    let Err(Error::Broker(error)) = &result else { return result };
    match error.kind() {
        ErrorKind::ProtocolError(reply) if reply.get_id() == 406 => Err(Error::Incompatible {
            what: what(),
            difference: reply.get_message().to_string(),
        }),
        _ => result,
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
