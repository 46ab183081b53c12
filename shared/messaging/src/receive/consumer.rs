//! Takes deliveries and settles each exactly once.
//!
//! One session is one connection, one channel and one consumer with manual acks. PREFETCH is the only
//! bound on work in hand: every delivery is begun as it comes in, and the broker gives no further one
//! until one is settled. While a delivery is held because the database is away, no further one is
//! begun. What a delivery needs is the [`Deed`]'s business; this module knows only how to answer.
//!
//! The bound can be turned while it runs ([`Consumer::turned_by`]). The broker takes a bound for the consumers that come
//! after it, so the consumer is cancelled and another one begun on the same channel: what is in hand stays in hand, and is
//! settled there as it would have been. What it leaves above a smaller bound is worked off before anything new is begun.
//!
//! The session is over when the link breaks, when an answer does not go out, and when the stream of
//! deliveries ends (the broker cancels a consumer whose queue lost its leader; the process would look
//! healthy and do nothing). Then everything in hand is dropped, since it will be delivered again, and
//! a new session begins.
//!
//! At `stop`: the consumer is cancelled, what has not begun goes back, what has begun is finished and
//! settled, and then the channel is closed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chaos::{FailPoints, Knobs, knobs::Settings};
use futures::{
    FutureExt, StreamExt, pin_mut,
    stream::{BoxStream, FuturesUnordered, SelectAll},
};
use lapin::{
    Channel, Connection, Event,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{DeliveryTag, FieldTable, ShortString},
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

    /// At a stop: gives back what came in and was never handed to [`Deed::deliver`].
    fn not_begun(&self, delivery: &Delivery) -> Settle {
        let _ = delivery;
        Settle::Requeue(Duration::ZERO)
    }

    /// A session was opened, in which deliveries will come in.
    fn opened(&self) {}

    /// It ended: by this error, or because the node stops. What it had in hand is dropped by now.
    fn ended(&self, error: Option<&Error>) {
        let _ = error;
    }

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
    knobs: Option<Knobs>,
    in_hand: Arc<AtomicUsize>,
}

/// How many deliveries a consumer has in hand, at any moment.
#[derive(Debug, Clone)]
pub struct InHand(Arc<AtomicUsize>);

impl InHand {
    /// Now.
    pub fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
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
                knobs: None,
                in_hand: Arc::default(),
            },
            linked,
        )
    }

    /// Lets these knobs say how many deliveries may be in hand; not where any number may.
    #[must_use]
    pub fn turned_by(mut self, knobs: Knobs) -> Self {
        self.knobs = (self.manner.prefetch > 0).then_some(knobs);
        self
    }

    /// How many deliveries are in hand.
    pub fn in_hand(&self) -> InHand {
        InHand(Arc::clone(&self.in_hand))
    }

    /// How many deliveries may be in hand now; 0 for any number.
    fn prefetch(&self) -> u16 {
        let turned = self.knobs.as_ref().map(|knobs| knobs.now().prefetch);
        turned.unwrap_or(self.manner.prefetch)
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
        connection::supervise(self.role, &self.link, &stop, || {
            Box::pin(self.session(&stop))
        })
        .await
    }

    async fn session(&self, stop: &CancellationToken) -> Result<(), Error> {
        let (connection, events) = self.broker.connect(self.role).await?;
        let connection = Arc::new(connection);
        self.connection.send_replace(Some(Arc::clone(&connection)));
        let result = self.session_on(&connection, events, stop).await;
        self.in_hand.store(0, Ordering::Relaxed);
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
        let begun = self.begin(&channel, 0).await?;
        self.link.send_replace(Link::Open);
        self.deed.opened();
        pin_mut!(events);
        let ended = tokio::select! {
            result = self.consume(&channel, begun, stop) => result,
            error = connection::watch_events(events, &self.link) => Err(error),
        };
        self.deed.ended(ended.as_ref().err());
        if let Err(error) = ended {
            return self.manner.broken(error, stop).await;
        }
        connection::close(connection, &[&channel]).await;
        Ok(())
    }

    /// A consumer with the bound that holds now.
    async fn begin(&self, channel: &Channel, generation: u32) -> Result<Begun, Error> {
        let prefetch = self.prefetch();
        let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
        within("prefetch", qos).await?;
        let name = self.role.replace(' ', "-");
        // Not the name of one before: while it has deliveries in hand, the broker still knows it.
        let name = match generation {
            0 => name,
            again => format!("{name}-{again}"),
        };
        let consumer = channel.basic_consume(
            self.queue.into(),
            name.as_str().into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = within("consume", consumer).await?;
        Ok(Begun {
            consumer,
            prefetch,
            generation,
        })
    }

    /// Ends one consumer and begins the next. Dies it in between: the session is over, and its end gives everything back.
    async fn turn(
        &self,
        channel: &Channel,
        tag: ShortString,
        generation: u32,
    ) -> Result<Begun, Error> {
        let cancel = channel.basic_cancel(tag, BasicCancelOptions::default());
        within("cancel the consumer", cancel).await?;
        self.begin(channel, generation).await
    }

    async fn consume(
        &self,
        channel: &Channel,
        begun: Begun,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut current = Current::new(&begun);
        let mut deliveries = SelectAll::new();
        deliveries.push(self.deliveries(begun));
        let mut turning = FuturesUnordered::new();
        let mut knobs = self.knobs.as_ref().map(Knobs::watch);
        let mut held = self.deed.held();
        let mut in_hand = FuturesUnordered::new();
        let mut acks = Acks::default();
        let in_hand_gauge = metrics::gauge!(numbers::IN_HAND, "queue" => self.queue);
        loop {
            let paused = held.borrow_and_update().count > 0;
            let count = acks.in_hand();
            self.in_hand.store(count, Ordering::Relaxed);
            #[expect(clippy::cast_precision_loss, reason = "bounded by the prefetch")]
            in_hand_gauge.set(count as f64);
            let room = self.has_room(&current, count);
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
                    acks.send(deliveries.len() <= 1).await?;
                    ended?;
                }
                Some((of, delivery)) = deliveries.next(), if !paused && room => match delivery {
                    Err(Error::ConsumerEnded(_)) if of != current.generation => {}
                    delivery => {
                        let delivery = delivery?;
                        acks.begin(delivery.delivery_tag);
                        in_hand.push(self.deliver(delivery, stop));
                    }
                },
                () = turned(&mut knobs, current.prefetch), if turning.is_empty() => {
                    // From here on the end of the one before is no fault.
                    current.generation += 1;
                    turning.push(self.turn(channel, current.tag.clone(), current.generation));
                }
                Some(begun) = turning.next() => {
                    let begun = begun?;
                    current = Current::new(&begun);
                    deliveries.push(self.deliveries(begun));
                }
                _ = held.changed() => {}
                () = stop.cancelled() => break,
            }
        }
        while let Some(begun) = turning.next().await {
            let begun = begun?;
            current = Current::new(&begun);
            deliveries.push(self.deliveries(begun));
        }
        let cancel = channel.basic_cancel(current.tag, BasicCancelOptions::default());
        within("cancel the consumer", cancel).await?;
        while let Some(Some((_, delivery))) = deliveries.next().now_or_never() {
            // One of several may have ended; the others may still hold deliveries.
            if let Ok(delivery) = delivery {
                settle(&delivery, self.deed.not_begun(&delivery), stop).await?;
            }
        }
        while let Some(left) = in_hand.next().await {
            let (tag, left) = left?;
            acks.end(tag, left);
            acks.send(false).await?;
        }
        in_hand_gauge.set(0.0);
        Ok(())
    }

    /// What a consumer is given, with its generation.
    fn deliveries(&self, begun: Begun) -> BoxStream<'static, (u32, Result<Delivery, Error>)> {
        let generation = begun.generation;
        let deliveries = self.manner.deliveries(begun.consumer, self.queue);
        deliveries.map(move |item| (generation, item)).boxed()
    }

    /// Whether another delivery may be begun. The broker keeps to the bound, but for a while after it was turned: then it
    /// counts what the consumer before has in hand for that one.
    fn has_room(&self, current: &Current, in_hand: usize) -> bool {
        match self.manner.answer {
            Answer::AfterTheDeed => {
                current.prefetch == 0 || in_hand < usize::from(current.prefetch)
            }
            Answer::OnArrival => true,
        }
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

/// A consumer that has just begun.
struct Begun {
    consumer: lapin::Consumer,
    prefetch: u16,
    /// One more each time the bound was turned.
    generation: u32,
}

/// The consumer that is given deliveries.
struct Current {
    tag: ShortString,
    prefetch: u16,
    generation: u32,
}

impl Current {
    fn new(begun: &Begun) -> Self {
        Self {
            tag: begun.consumer.tag(),
            prefetch: begun.prefetch,
            generation: begun.generation,
        }
    }
}

/// Until the knobs say another bound than this.
async fn turned(knobs: &mut Option<watch::Receiver<Settings>>, prefetch: u16) {
    let Some(knobs) = knobs else {
        return std::future::pending().await;
    };
    let turned = knobs.wait_for(|settings| settings.prefetch != prefetch);
    if turned.await.is_err() {
        std::future::pending::<()>().await;
    }
}
