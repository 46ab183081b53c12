//! Says what happens on this node, without ever being waited for.
//!
//! [`Announcer::announce`] adds one to a count and puts the event into a bounded queue, or leaves it
//! out when there is no room. The [`Voice`] looks into the queue every 100 ms and publishes one frame;
//! with nothing to say, it says so once a second. It never sleeps on the queue, so that announcing
//! wakes nobody.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use daemon::{
    clock,
    lifecycle::Lifecycle,
    node::Node,
    redis::fred::{clients::Pool, interfaces::PubsubInterface},
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    channel,
    frame::{Event, Frame, Gauges, Kind, VERSION},
    sample::sample,
};

/// Events that may wait for the next frame.
const ROOM: usize = 4_096;
const GATHER: Duration = Duration::from_millis(100);
const HEARTBEAT: Duration = Duration::from_secs(1);
/// All that this crate counts.
const LEFT_OUT: &str = "unacked_live_events_dropped_total";
const UNHEARD: &str = "unacked_live_frames_lost_total";

/// Shows what this crate counts from the start, at 0.
pub(crate) fn register() {
    let dropped = "Events that found no room in the queue for the next live frame";
    metrics::describe_counter!(LEFT_OUT, dropped);
    metrics::counter!(LEFT_OUT).increment(0);
    let lost = "Live frames that could not be published, since Redis was away";
    metrics::describe_counter!(UNHEARD, lost);
    metrics::counter!(UNHEARD).increment(0);
}

/// Where events go. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Announcer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    events: mpsc::Sender<Event>,
    tally: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    kinds: [AtomicU64; Kind::ALL.len()],
    dropped: AtomicU64,
}

/// The other end, which publishes.
pub struct Voice {
    events: mpsc::Receiver<Event>,
    tally: Arc<Counters>,
    redis: Pool,
    channel: String,
    node: Arc<Node>,
    seq: u64,
    said: Said,
}

/// What the frames so far have told.
struct Said {
    totals: BTreeMap<Kind, u64>,
    dropped: u64,
    at: i64,
}

impl Announcer {
    /// An announcer, and the loop that publishes for it.
    pub fn new(node: Arc<Node>, redis: Pool, prefix: &str) -> (Self, Voice) {
        let (events, waiting) = mpsc::channel(ROOM);
        let tally = Arc::<Counters>::default();
        let voice = Voice {
            events: waiting,
            tally: Arc::clone(&tally),
            redis,
            channel: channel(prefix),
            seq: 0,
            said: Said {
                totals: BTreeMap::new(),
                dropped: 0,
                at: node.started_at.timestamp_millis(),
            },
            node,
        };
        (Self(Some(Arc::new(Inner { events, tally }))), voice)
    }

    /// One that says nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Whether anybody could hear: what is costly to find out need not be.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Says that something happened. Never waits, never fails.
    pub fn announce(&self, event: Event) {
        let Some(inner) = &self.0 else { return };
        if let Some(kind) = inner.tally.kinds.get(event.kind as usize) {
            kind.fetch_add(1, Relaxed);
        }
        if inner.events.try_send(event).is_err() {
            inner.tally.dropped.fetch_add(1, Relaxed);
            metrics::counter!(LEFT_OUT).increment(1);
        }
    }
}

impl Voice {
    /// Runs it on the lifecycle, see [`Voice::run`].
    pub fn start(self, lifecycle: &Lifecycle, gauges: impl Fn() -> Gauges + Send + 'static) {
        lifecycle.spawn_once("live voice", async move {
            self.run(gauges).await;
            Ok(())
        });
    }

    /// Publishes until the last announcer is gone, which is after the process was asked to stop:
    /// what is still settled then is told too. `gauges` says how the node stands.
    pub async fn run(mut self, gauges: impl Fn() -> Gauges + Send) {
        let mut each = interval(GATHER);
        each.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said_at = None::<Instant>;
        let mut before = Gauges::default();
        loop {
            each.tick().await;
            let ended = self.events.is_closed();
            let mut events = Vec::new();
            while let Ok(event) = self.events.try_recv() {
                events.push(event);
            }
            let now = gauges();
            let quiet = events.is_empty() && !self.is_behind() && now == before;
            let due = said_at.is_none_or(|at| at.elapsed() >= HEARTBEAT);
            if !quiet || due || ended {
                said_at = Some(Instant::now());
                before = now;
                let frame = self.frame(events, now);
                self.publish(&frame).await;
            }
            if ended {
                return;
            }
        }
    }

    /// Whether something was counted that no frame has told, though it is not in the queue.
    fn is_behind(&self) -> bool {
        self.tally.dropped.load(Relaxed) != self.said.dropped
    }

    fn totals(&self) -> BTreeMap<Kind, u64> {
        let totals = Kind::ALL.into_iter().zip(&self.tally.kinds);
        let totals = totals.map(|(kind, count)| (kind, count.load(Relaxed)));
        totals.filter(|(_, count)| *count > 0).collect()
    }

    fn frame(&mut self, events: Vec<Event>, gauges: Gauges) -> Frame {
        let totals = self.totals();
        let dropped = self.tally.dropped.load(Relaxed);
        let before = std::mem::replace(
            &mut self.said,
            Said {
                totals: totals.clone(),
                dropped,
                at: clock::now().timestamp_millis(),
            },
        );
        let new = |(kind, count): (&Kind, &u64)| {
            let new = count - before.totals.get(kind).copied().unwrap_or(0);
            (new > 0).then_some((*kind, new))
        };
        let counts: BTreeMap<Kind, u64> = totals.iter().filter_map(new).collect();
        let sample = sample(events);
        // An event is counted a moment before it is in the queue, so it may be counted here and be in
        // the sample of the next frame.
        let left_out = counts.values().sum::<u64>();
        let left_out = left_out.saturating_sub(sample.len() as u64);
        self.seq += 1;
        Frame {
            v: VERSION,
            node: self.node.name.clone(),
            service: self.node.service.to_owned(),
            boot: self.node.id,
            seq: self.seq,
            at: self.said.at,
            since: before.at,
            counts,
            totals,
            sample,
            left_out,
            dropped: dropped - before.dropped,
            gauges,
        }
    }

    /// A frame that cannot be published is gone: the next one has the totals.
    async fn publish(&self, frame: &Frame) {
        let Ok(text) = serde_json::to_string(frame) else {
            return;
        };
        // Bounded by the client's own limit.
        let client = self.redis.next_connected();
        if let Err(error) = client.publish::<i64, _, _>(&*self.channel, text).await {
            metrics::counter!(UNHEARD).increment(1);
            tracing::debug!(%error, "a frame was not published");
        }
    }
}

#[cfg(test)]
mod tests {
    use daemon::{
        node::NodeArgs,
        redis::{RedisArgs, connect},
    };
    use uuid::Uuid;

    use super::*;

    fn pair() -> (Announcer, Voice) {
        let node = Arc::new(NodeArgs::default().node("receiver").unwrap());
        // Port 1 on loopback: nobody listens there.
        let args = RedisArgs {
            redis_url: "redis://127.0.0.1:1".to_owned(),
            redis_prefix: "test:".to_owned(),
        };
        Announcer::new(node, connect(&args).unwrap(), "test:")
    }

    fn gathered(voice: &mut Voice) -> Frame {
        let mut events = Vec::new();
        while let Ok(event) = voice.events.try_recv() {
            events.push(event);
        }
        voice.frame(events, Gauges::default())
    }

    #[tokio::test]
    async fn what_finds_no_room_is_counted_and_nobody_waits() {
        let (announcer, mut voice) = pair();
        for _ in 0..ROOM + 5 {
            announcer.announce(Event::now(Kind::Delivered, Uuid::nil()));
        }
        let frame = gathered(&mut voice);
        let all = ROOM as u64 + 5;
        assert_eq!(frame.count(Kind::Delivered), all);
        assert_eq!((frame.dropped, frame.sample.len()), (5, 20));
        assert_eq!(frame.left_out, all - 20);
        let next = gathered(&mut voice);
        assert_eq!((next.counts.len(), next.dropped, next.left_out), (0, 0, 0));
        assert_eq!(next.totals[&Kind::Delivered], all);
        assert_eq!((next.seq, next.since), (frame.seq + 1, frame.at));
    }

    #[tokio::test]
    async fn each_kind_has_its_own_count() {
        let (announcer, mut voice) = pair();
        for (n, kind) in Kind::ALL.into_iter().enumerate() {
            for _ in 0..=n {
                announcer.announce(Event::now(kind, Uuid::nil()));
            }
        }
        let frame = gathered(&mut voice);
        for (n, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(frame.count(kind), n as u64 + 1, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn the_voice_ends_with_the_last_announcer_though_redis_is_away() {
        let (announcer, voice) = pair();
        drop(announcer);
        let limit = Duration::from_secs(10);
        let run = voice.run(Gauges::default);
        tokio::time::timeout(limit, run).await.unwrap();
    }
}
