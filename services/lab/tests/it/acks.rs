//! Which deliveries an ack answers, as the broker has it: what comes again when a link ends without a farewell.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use chaos::FailPoints;
use lapin::{BasicProperties, message::Delivery, options::BasicGetOptions};
use messaging::{
    connection::{Broker, BrokerArgs, Link, QueueType},
    guarantee::Without,
    receive::{
        consumer::{Consumer, Deed},
        manner::Manner,
        patience::{Held, Holding},
        settle::Settle,
    },
    topology,
};
use testkit::{Direction, Proxy, QueueDepth, Servers, wait_until_eq};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(30);
const MESSAGES: &str = topology::Road::MESSAGES.messages;
/// The length of a frame with an ack.
const ACK: u64 = 21;

/// A deed whose answers the test gives. What is delivered again is held.
#[derive(Default)]
struct ByHand {
    begun: Mutex<Vec<u8>>,
    answers: watch::Sender<BTreeMap<u8, Settle>>,
    holding: Holding,
}

impl Deed for ByHand {
    async fn deliver(&self, delivery: &Delivery, _stop: &CancellationToken) -> Settle {
        let number = delivery.data[0];
        self.begun.lock().unwrap().push(number);
        if delivery.redelivered {
            return pending().await;
        }
        let mut answers = self.answers.subscribe();
        let answered = answers.wait_for(|answers| answers.contains_key(&number));
        answered.await.unwrap()[&number]
    }

    fn held(&self) -> watch::Receiver<Held> {
        self.holding.subscribe()
    }
}

/// A vhost, a link to it that can be cut, and what is done with its deliveries.
struct Road {
    broker: testkit::Broker,
    proxy: Proxy,
    deed: Arc<ByHand>,
}

impl Road {
    async fn new() -> Self {
        let broker = testkit::Broker::vhost(&Servers::shared()).await;
        Self {
            proxy: Proxy::before(&broker.amqp_url).await,
            broker,
            deed: Arc::default(),
        }
    }

    /// Runs a consumer beside the test, once it is there.
    async fn consume(&self, prefetch: u16, test: impl Future<Output = ()>) {
        let args = BrokerArgs {
            amqp_url: self.proxy.url(&self.broker.amqp_url),
            queue_type: QueueType::Quorum,
            // None is sent before the test is over.
            heartbeat_secs: 60,
            without: Without::default(),
        };
        let (consumer, mut link) = Consumer::new(
            Broker::new(&args, "receiver-1").unwrap(),
            "consumer",
            MESSAGES,
            Manner::safe(prefetch),
            FailPoints::default(),
            Arc::clone(&self.deed),
        );
        let test = async {
            link.wait_for(|link| *link == Link::Open).await.unwrap();
            test.await;
        };
        tokio::select! {
            ended = consumer.run(CancellationToken::new()) => panic!("{ended:?}"),
            () = test => {}
        }
    }

    async fn publish(&self, count: u8) {
        for number in 1..=count {
            let (kept, body) = (BasicProperties::default().with_delivery_mode(2), [number]);
            let published = self.broker.publish_raw(MESSAGES, MESSAGES, kept, &body);
            published.await.unwrap();
        }
    }

    /// Waits until these have begun, in any order.
    async fn begun(&self, numbers: &[u8]) {
        wait_until_eq("deliveries", LIMIT, numbers.to_vec(), async || {
            let mut begun = self.deed.begun.lock().unwrap().clone();
            begun.sort_unstable();
            begun
        })
        .await;
    }

    /// Gives all these answers at the same moment.
    fn answer(&self, answers: impl IntoIterator<Item = (u8, Settle)>) {
        self.deed.answers.send_modify(|all| all.extend(answers));
    }

    /// Cuts the link for good, and sees that exactly these come again.
    async fn cut_leaves(&self, numbers: &[u8]) {
        self.proxy.refuse(true);
        self.proxy.cut_rst();
        let count = u32::try_from(numbers.len()).unwrap();
        wait_until_eq("what comes again", LIMIT, Some(count), async || {
            self.broker.queue_depth(MESSAGES).await.ok().flatten()
        })
        .await;
        let (_connection, channel) = self.broker.channel().await.unwrap();
        let mut left = Vec::new();
        let get = || channel.basic_get(MESSAGES.into(), BasicGetOptions { no_ack: true });
        while let Some(message) = get().await.unwrap() {
            left.push(message.delivery.data[0]);
        }
        left.sort_unstable();
        assert_eq!(left, numbers);
    }
}

#[tokio::test]
async fn what_was_acked_never_comes_again_and_all_else_does() {
    let road = Road::new().await;
    let test = async {
        road.publish(8).await;
        road.begun(&[1, 2, 3, 4, 5, 6]).await;
        let later = Settle::Requeue(Duration::from_millis(100));
        road.answer([1, 2, 4, 6].map(|number| (number, Settle::Ack)));
        road.answer([(5, later)]);
        // The broker takes answers in their order: when 5 is back, the acks are there.
        road.begun(&[1, 2, 3, 4, 5, 5, 6, 7, 8]).await;
        road.cut_leaves(&[3, 5, 7, 8]).await;
    };
    road.consume(6, test).await;
}

#[tokio::test]
async fn one_ack_is_for_all_below_the_first_in_hand_and_those_above_have_their_own() {
    let road = Road::new().await;
    let test = async {
        road.publish(20).await;
        road.begun(&(1..=20).collect::<Vec<_>>()).await;
        let before = road.proxy.bytes(Direction::Up);
        let done = (1..=20).filter(|number| *number != 8);
        road.answer(done.map(|number| (number, Settle::Ack)));
        let left = QueueDepth {
            ready: 0,
            unacked: 1,
        };
        wait_until_eq("all but 8 to be acked", LIMIT, Some(left), async || {
            road.broker.queue_statistics(MESSAGES).await.ok()
        })
        .await;
        let sent = road.proxy.bytes(Direction::Up) - before;
        assert_eq!(sent, (1 + 12) * ACK, "1 to 7 together, 9 to 20 one by one");
        road.cut_leaves(&[8]).await;
    };
    road.consume(20, test).await;
}
