//! Takes deliveries and settles each exactly once.
//!
//! One session is one connection, one channel and one consumer with manual acks. PREFETCH is the only
//! bound on work in hand: every delivery is begun as it comes in, and the broker gives no further one
//! until one is settled. While a delivery is held because the database is away, no further one is
//! begun. What a delivery needs is the [`Deed`]'s business; this module knows only how to answer.
//!
//! The session is over when the link breaks, when an answer does not go out, and when the stream of
//! deliveries ends (the broker cancels a consumer whose queue lost its leader; the process would look
//! healthy and do nothing). Then everything in hand is dropped, since it will be delivered again, and
//! a new session begins.
//!
//! At `stop`: the consumer is cancelled, what has not begun goes back, what has begun is finished and
//! settled, and then the channel is closed.

use std::{sync::Arc, time::Duration};

use chaos::FailPoints;
use futures::{
    FutureExt, StreamExt, pin_mut,
    stream::{BoxStream, FuturesUnordered},
};
use lapin::{
    Channel, Connection, Event,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{DeliveryTag, FieldTable},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    acks::{Acks, Left},
    manner::{Answer, Manner},
    patience::Held,
    redrive::Lent,
    settle::{Settle, settle},
};
use crate::{
    Error,
    connection::{self, Broker, Link, within},
    numbers, topology,
};

/// What is done with each delivery of a queue.
pub trait Deed: Send + Sync {
    /// Does it, and says how to settle. Holds the delivery as long as the infrastructure is at fault.
    /// When `stop` comes before the work has begun, it is not begun.
    fn deliver(
        &self,
        delivery: &Delivery,
        stop: &CancellationToken,
    ) -> impl Future<Output = Settle> + Send;

    /// Deliveries held at this moment.
    fn held(&self) -> watch::Receiver<Held>;
}

/// One consumer of one queue.
pub struct Consumer<D> {
    broker: Broker,
    role: &'static str,
    queue: &'static str,
    manner: Manner,
    fail_points: FailPoints,
    link: watch::Sender<Link>,
    /// For who publishes on it, if anybody does.
    connection: watch::Sender<Option<Arc<Connection>>>,
    deed: Arc<D>,
}

impl<D: Deed> Consumer<D> {
    /// A consumer that is not running yet, and the state of its link. `role` names its connection.
    pub fn new(
        broker: Broker,
        role: &'static str,
        queue: &'static str,
        manner: Manner,
        fail_points: FailPoints,
        deed: Arc<D>,
    ) -> (Self, watch::Receiver<Link>) {
        let (link, linked) = watch::channel(Link::Connecting);
        (
            Self {
                broker,
                role,
                queue,
                manner,
                fail_points,
                link,
                connection: watch::channel(None).0,
                deed,
            },
            linked,
        )
    }

    /// Lets somebody publish on its connection: what the guarantee `separate-connections` forbids.
    pub fn lend(&self) -> Lent {
        Lent {
            connection: self.connection.subscribe(),
            link: self.link.subscribe(),
        }
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// Only what another session would meet again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        connection::supervise(self.role, &self.link, &stop, || self.session(&stop)).await
    }

    async fn session(&self, stop: &CancellationToken) -> Result<(), Error> {
        let (connection, events) = self.broker.connect(self.role).await?;
        let connection = Arc::new(connection);
        self.connection.send_replace(Some(Arc::clone(&connection)));
        let result = self.session_on(&connection, events, stop).await;
        self.connection.send_replace(None);
        connection::hang_up(&connection).await;
        result
    }

    async fn session_on(
        &self,
        connection: &Connection,
        events: BoxStream<'static, Event>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        topology::declare(connection, &self.broker.topology).await?;
        let channel = within("open a channel", connection.create_channel()).await?;
        within(
            "prefetch",
            channel.basic_qos(self.manner.prefetch, BasicQosOptions::default()),
        )
        .await?;
        let consumer = channel.basic_consume(
            self.queue.into(),
            self.role.replace(' ', "-").as_str().into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = within("consume", consumer).await?;
        self.link.send_replace(Link::Open);
        pin_mut!(events);
        let ended = tokio::select! {
            result = self.consume(&channel, consumer, stop) => result,
            error = connection::watch_events(events, &self.link) => Err(error),
        };
        if let Err(error) = ended {
            return self.manner.broken(error, stop).await;
        }
        connection::close(connection, &[&channel]).await;
        Ok(())
    }

    async fn consume(
        &self,
        channel: &Channel,
        consumer: lapin::Consumer,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let tag = consumer.tag();
        let mut deliveries = self.manner.deliveries(consumer, self.queue);
        let mut held = self.deed.held();
        let mut in_hand = FuturesUnordered::new();
        let mut acks = Acks::default();
        let in_hand_gauge = metrics::gauge!(numbers::IN_HAND, "queue" => self.queue);
        loop {
            let paused = held.borrow_and_update().count > 0;
            #[expect(clippy::cast_precision_loss, reason = "bounded by the prefetch")]
            in_hand_gauge.set(acks.in_hand() as f64);
            tokio::select! {
                Some(left) = in_hand.next() => {
                    // The effects of one commit are done together, and so are their acks.
                    let more = std::iter::from_fn(|| in_hand.next().now_or_never().flatten());
                    let mut left = std::iter::once(left).chain(more);
                    let ended: Result<(), Error> = left.try_for_each(|left| {
                        let (tag, left) = left?;
                        acks.end(tag, left);
                        Ok(())
                    });
                    // Before an error: what is done need not come again.
                    acks.send().await?;
                    ended?;
                }
                Some(delivery) = deliveries.next(), if !paused => {
                    let delivery = delivery?;
                    acks.begin(delivery.delivery_tag);
                    in_hand.push(self.deliver(delivery, stop));
                }
                _ = held.changed() => {}
                () = stop.cancelled() => break,
            }
        }
        let cancel = channel.basic_cancel(tag, BasicCancelOptions::default());
        within("cancel the consumer", cancel).await?;
        while let Some(Some(Ok(delivery))) = deliveries.next().now_or_never() {
            settle(&delivery, Settle::Requeue(Duration::ZERO), stop).await?;
        }
        while let Some(left) = in_hand.next().await {
            let (tag, left) = left?;
            acks.end(tag, left);
            acks.send().await?;
        }
        in_hand_gauge.set(0.0);
        Ok(())
    }

    /// Sees one delivery to its answer, or to where only the ack is missing.
    async fn deliver(
        &self,
        delivery: Delivery,
        stop: &CancellationToken,
    ) -> Result<(DeliveryTag, Left), Error> {
        let id = delivery
            .properties
            .message_id()
            .as_ref()
            .map(|id| id.as_str().to_owned());
        let span = tracing::info_span!(
            "delivery",
            queue.name = self.queue,
            message.id = id,
            delivery.tag = delivery.delivery_tag,
            delivery.redelivered = delivery.redelivered,
            delivery.attempt = tracing::field::Empty,
        );
        async {
            if delivery.redelivered {
                metrics::counter!(numbers::REDELIVERED, "queue" => self.queue).increment(1);
            }
            match self.manner.answer {
                Answer::AfterTheDeed => {
                    let answer = self.deed.deliver(&delivery, stop).await;
                    self.before_the_answer().await?;
                    if answer == Settle::Ack {
                        return Ok((delivery.delivery_tag, Left::ToAck(delivery.acker.clone())));
                    }
                    settle(&delivery, answer, stop).await?;
                }
                Answer::OnArrival => {
                    self.before_the_answer().await?;
                    settle(&delivery, Settle::Ack, stop).await?;
                    self.deed.deliver(&delivery, stop).await;
                }
            }
            Ok((delivery.delivery_tag, Left::Settled))
        }
        .instrument(span)
        .await
    }

    async fn before_the_answer(&self) -> Result<(), Error> {
        let name = "settle.before_ack";
        let hit = self.fail_points.hit(name).await;
        hit.map_err(|_| Error::Injected(name))
    }
}
