//! The receiving half of a service, wired: what is delivered is worked on and settled, what is given up on is parked, and the
//! inbox is kept small.

use std::{sync::Arc, time::Duration};

use daemon::{lifecycle::Lifecycle, process::Process};
use messaging::{
    connection::{Broker, Link},
    guarantee::Without,
    receive::{
        consumer::{Consumer, Deed},
        dead_letter::{self, Parking},
        handler::Handler,
        history,
        ladder::ladder,
        manner::Manner,
        patience::Held,
        processor::{self, Policy, Processor},
        retry::{Retry, RetryArgs, RetryBy},
        window::{InboxArgs, Pruner},
    },
    topology::Road,
    watching::Watching,
};
use tokio::sync::watch;

use crate::ended;

/// How a service receives.
pub struct ReceiveSettings<'a> {
    /// Where it is connected to.
    pub broker: Broker,
    /// Whose queues are consumed.
    pub road: Road,
    /// Deliveries in hand at most.
    pub prefetch: u16,
    /// What becomes of messages that do not succeed.
    pub policy: Policy,
    /// Which guarantees are off.
    pub without: &'a Without,
    /// Of its inbox.
    pub inbox: &'a InboxArgs,
    /// Who is told what happens.
    pub watching: Watching,
}

/// The receiving half of a service, not taking anything yet.
pub struct Receiving<H: Handler> {
    /// Of the messages. May still be changed, lent from, and asked what it has in hand.
    pub consumer: Consumer<Processor<H>>,
    /// Deliveries held because Postgres does not do what it should.
    pub held: watch::Receiver<Held>,
    /// Of all its consumers.
    pub links: Vec<watch::Receiver<Link>>,
    parking: Consumer<Parking<H>>,
    pruner: Pruner,
}

impl<H: Handler> Receiving<H> {
    /// Starts what serves many deliveries at once, and makes what takes them.
    pub fn new(
        process: &Process,
        handler: &Arc<H>,
        settings: ReceiveSettings<'_>,
        lifecycle: &Lifecycle,
    ) -> Self {
        let ReceiveSettings {
            broker,
            road,
            prefetch,
            policy,
            without,
            inbox,
            watching,
        } = settings;
        let (pool, node) = (&process.database.pool, &process.node.name);
        let fail_points = &process.fail_points;
        let (history, recorder) = history::history(pool.clone(), node.clone());
        let (processor, loops) = processor::processor(
            pool.clone(),
            node.clone(),
            Arc::clone(handler),
            policy,
            without,
            fail_points.clone(),
            history,
        );
        // These end with the last delivery, which is after the stop.
        lifecycle.spawn_once("looks", async move {
            loops.looks.run().await;
            Ok(())
        });
        lifecycle.spawn_once("failures", async move {
            loops.failures.run().await;
            Ok(())
        });
        lifecycle.spawn_once("effects", async move {
            loops.effects.run().await;
            Ok(())
        });
        lifecycle.spawn_once("history", async move {
            recorder.run().await;
            Ok(())
        });
        let processor = processor.watched(watching.clone());
        let held = processor.held();
        let (consumer, link) = Consumer::new(
            broker.clone(),
            "consumer",
            road.messages,
            Manner::new(prefetch, without),
            fail_points.clone(),
            Arc::new(processor),
        );
        let handler = Arc::clone(handler);
        let parking = Parking::new(pool.clone(), node.clone(), handler, fail_points.clone());
        let (parking, parking_link) = Consumer::new(
            broker,
            "dead letters",
            road.dead,
            Manner::safe(dead_letter::PREFETCH),
            fail_points.clone(),
            Arc::new(parking.watched(watching)),
        );
        Self {
            consumer,
            held,
            links: vec![link, parking_link],
            parking,
            pruner: Pruner::new(pool.clone(), inbox),
        }
    }

    /// Takes deliveries, and keeps the inbox small, as soon as there are tables; the migrations must have been asked for before.
    pub fn start(self, process: &Process, lifecycle: &Lifecycle) {
        let pruner = self.pruner;
        let prune = |stop| async move {
            pruner.run(stop).await;
            Ok(())
        };
        process
            .database
            .spawn_when_migrated("inbox window", lifecycle, prune);
        consume(process, "consumer", self.consumer, lifecycle);
        consume(process, "dead letters", self.parking, lifecycle);
    }
}

fn consume<D: Deed + 'static>(
    process: &Process,
    name: &'static str,
    consumer: Consumer<D>,
    lifecycle: &Lifecycle,
) {
    let run = |stop| async move { ended(consumer.run(stop).await) };
    process.database.spawn_when_migrated(name, lifecycle, run);
}

/// How a failed message comes back. The ladder ends with the last delivery, which is after the stop.
pub fn retry(process: &Process, broker: &Broker, args: &RetryArgs, lifecycle: &Lifecycle) -> Retry {
    match args.retry {
        RetryBy::Requeue => Retry::Requeue(Duration::from_millis(args.retry_hold_ms)),
        RetryBy::Ladder => {
            let rungs = args.retry_ladder_ms.clone();
            let fail_points = process.fail_points.clone();
            let (ladder, climber) = ladder(broker.clone(), rungs, fail_points);
            lifecycle.spawn_once("ladder", async move { ended(climber.run().await) });
            Retry::Ladder(ladder)
        }
    }
}
