//! The broker's own limit: the bare client library on the same broker, without a database and without HTTP.
//!
//! Persistent messages in a quorum queue, a window of 1,000 publishes that are not yet confirmed, 250 deliveries in hand.
//! Publishing and consuming have a connection each, as in the services. Consuming is over when the broker has taken the
//! last ack: a synchronous call on the same channel comes after it. Nothing here is a message of the laboratory; it has a
//! vhost of its own, which goes with the scene.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::sheet::{Unit, real};
use super::stage::{PREFETCH, Scene, fast};
use super::{Course, Scenario};

const QUEUE: &str = "bench";
const WINDOW: usize = 1_000;
/// Deliveries that one ack stands for, where it stands for several.
const TOGETHER: u64 = 100;
/// No broker is that slow.
const LIMIT: Duration = Duration::from_mins(5);

/// How deliveries are acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acks {
    OneByOne,
    Multiple,
}

/// Each way once.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let scene = course.stage.scene(0, 0, fast()).await?;
    let (count, text) = (course.size.raw, course.size.text);
    let begun = Instant::now();
    let bare = Bare::open(&scene, count, text).await?;
    // the way that the services go: each delivery is acked by itself
    for acks in [Acks::OneByOne, Acks::Multiple] {
        let word = match acks {
            Acks::OneByOne => "one by one",
            Acks::Multiple => "100 at once",
        };
        bare.queue().await?;
        let before = scene.cpu();
        let published = bare.alone(Role::Publish).await?;
        let consumed = bare.alone(Role::Consume(acks)).await?;
        let split = scene.cpu().per(&before, count);
        bare.queue().await?;
        let together = bare.together(acks).await?;
        let sheet = &mut *course.sheet;
        sheet.add(Scenario::Raw, "publish alone", Unit::PerSecond, published);
        let name = format!("consume alone, acks {word}");
        sheet.add(Scenario::Raw, &name, Unit::PerSecond, consumed);
        let name = format!("both at once, acks {word}");
        sheet.add(Scenario::Raw, &name, Unit::PerSecond, together);
        // What finishes together is acked together by our receivers too. How many that are depends on the load, so both ways
        // are limits.
        let [alone, both] = match acks {
            Acks::Multiple => ["raw-consume", "raw"],
            Acks::OneByOne => ["raw-consume-acks-one-by-one", "raw-acks-one-by-one"],
        };
        sheet.role(alone, course.round, consumed);
        sheet.role(both, course.round, together);
        if acks == Acks::OneByOne {
            sheet.budget("raw, published and consumed", &split);
        }
    }
    course.said(begun, "raw");
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Publish,
    Consume(Acks),
}

struct Bare {
    publishing: Connection,
    consuming: Connection,
    count: u64,
    body: Arc<[u8]>,
}

impl Bare {
    async fn open(scene: &Scene<'_>, count: u64, size: usize) -> Result<Self> {
        let url = &scene.status.rabbitmq.amqp;
        let connect = || Connection::connect(url, ConnectionProperties::default());
        Ok(Self {
            publishing: connect().await.context("the broker cannot be reached")?,
            consuming: connect().await.context("the broker cannot be reached")?,
            count,
            body: vec![b'x'; size].into(),
        })
    }

    /// A new queue.
    async fn queue(&self) -> Result<()> {
        let channel = self.publishing.create_channel().await?;
        channel
            .queue_delete(QUEUE.into(), QueueDeleteOptions::default())
            .await?;
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(QUEUE.into(), options, arguments)
            .await?;
        Ok(())
    }

    async fn channel(&self, role: Role) -> Result<Channel> {
        let connection = match role {
            Role::Publish => &self.publishing,
            Role::Consume(_) => &self.consuming,
        };
        Ok(connection.create_channel().await?)
    }

    /// Messages a second.
    async fn alone(&self, role: Role) -> Result<f64> {
        let channel = self.channel(role).await?;
        let (count, body) = (self.count, Arc::clone(&self.body));
        let mut task = JoinSet::new();
        task.spawn(async move { work(role, &channel, count, &body, None).await });
        let took = finish(&mut task).await?;
        Ok(real(count) / took.as_secs_f64())
    }

    /// Messages a second, from the first publish to the last ack.
    async fn together(&self, acks: Acks) -> Result<f64> {
        let start = Arc::new(Barrier::new(2));
        let mut tasks = JoinSet::new();
        for role in [Role::Publish, Role::Consume(acks)] {
            let channel = self.channel(role).await?;
            let (count, body, start) = (self.count, Arc::clone(&self.body), Arc::clone(&start));
            tasks.spawn(async move { work(role, &channel, count, &body, Some(&start)).await });
        }
        // both begin at the same moment, and the consumer ends last
        let took = finish(&mut tasks).await?;
        Ok(real(self.count) / took.as_secs_f64())
    }
}

/// The longest time of all.
async fn finish(tasks: &mut JoinSet<Result<Duration>>) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    while let Some(ended) = timeout(LIMIT, tasks.join_next())
        .await
        .context("the broker takes too long")?
    {
        longest = longest.max(ended.context("a bare client died")??);
    }
    Ok(longest)
}

/// How long it took.
async fn work(
    role: Role,
    channel: &Channel,
    count: u64,
    body: &[u8],
    start: Option<&Barrier>,
) -> Result<Duration> {
    match role {
        Role::Publish => publish(channel, count, body, start).await,
        Role::Consume(acks) => consume(channel, count, acks, start).await,
    }
}

async fn publish(
    channel: &Channel,
    count: u64,
    body: &[u8],
    start: Option<&Barrier>,
) -> Result<Duration> {
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    if let Some(start) = start {
        start.wait().await;
    }
    let began = Instant::now();
    let mut window = VecDeque::with_capacity(WINDOW);
    for _ in 0..count {
        if window.len() == WINDOW
            && let Some(oldest) = window.pop_front()
        {
            confirmed(&oldest.await?)?;
        }
        let properties = BasicProperties::default().with_delivery_mode(2);
        let publish = channel.basic_publish(
            "".into(),
            QUEUE.into(),
            BasicPublishOptions::default(),
            body,
            properties,
        );
        window.push_back(publish.await?);
    }
    for rest in window {
        confirmed(&rest.await?)?;
    }
    Ok(began.elapsed())
}

fn confirmed(answer: &Confirmation) -> Result<()> {
    ensure!(
        matches!(answer, Confirmation::Ack(_)),
        "the broker did not confirm a message"
    );
    Ok(())
}

async fn consume(
    channel: &Channel,
    count: u64,
    acks: Acks,
    start: Option<&Barrier>,
) -> Result<Duration> {
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let mut consumer = channel
        .basic_consume(
            QUEUE.into(),
            "bench".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let mut began = Instant::now();
    if let Some(start) = start {
        start.wait().await;
        began = Instant::now();
    }
    for number in 1..=count {
        let delivery = consumer.next().await.context("the consumer ended")??;
        let multiple = acks == Acks::Multiple;
        if multiple && !number.is_multiple_of(TOGETHER) && number != count {
            continue;
        }
        let acked = delivery.ack(BasicAckOptions { multiple }).await?;
        ensure!(acked, "an ack was not sent");
    }
    // answered in turn, so after every ack
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    Ok(began.elapsed())
}
