//! Hears what all nodes say.
//!
//! One subscription at a time. It is over when Redis closes it, when a ping is not answered, or when
//! more was said than could be taken in; then those who listen are told that they are not live, and
//! another one begins. What was said in between is lost, which is why pages fetch their state after
//! [`Heard::Live`].

use std::{sync::Arc, time::Duration};

use daemon::{
    lifecycle::Lifecycle,
    redis::{
        RedisArgs,
        fred::{
            clients::Client,
            interfaces::{ClientLike, EventInterface, PubsubInterface},
        },
        subscriber, why,
    },
};
use tokio::{
    sync::{broadcast, watch},
    time::{interval, sleep},
};

use crate::{channel, frame::Frame, knobs};

/// What each who listens may have waiting; more is lost, and they are told.
const ROOM: usize = 1_024;
const PING: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(300);

/// What is heard.
#[derive(Debug, Clone)]
pub enum Heard {
    /// A node's news.
    Frame(Arc<Frame>),
    /// From here on all is heard. What was before is not known.
    Live,
    /// Nothing is heard, for this reason.
    NotLive(Arc<str>),
}

/// How hearing stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hearing {
    /// All is heard.
    Live,
    /// Nothing is, for this reason.
    NotLive(Arc<str>),
}

impl Hearing {
    /// Whether all is heard.
    pub fn is_live(&self) -> bool {
        *self == Self::Live
    }
}

/// The ears of a process. Clones share everything.
#[derive(Debug, Clone)]
pub struct Listener {
    heard: broadcast::Sender<Heard>,
    hearing: Arc<watch::Sender<Hearing>>,
    knobs: Arc<watch::Sender<()>>,
}

impl Listener {
    /// Listens until the process stops.
    pub fn start(args: &RedisArgs, lifecycle: &Lifecycle) -> Self {
        let listener = Self::silent("connecting");
        let (ears, args) = (listener.clone(), args.clone());
        let stopping = lifecycle.stopping();
        lifecycle.spawn("live listener", async move {
            stopping.run_until_cancelled(ears.listen(&args)).await;
            Ok(())
        });
        listener
    }

    /// One that never hears anything, for this reason.
    pub fn silent(why: &str) -> Self {
        Self {
            heard: broadcast::Sender::new(ROOM),
            hearing: Arc::new(watch::Sender::new(Hearing::NotLive(why.into()))),
            knobs: Arc::default(),
        }
    }

    /// Everything from now on. Who is slower than `ROOM` loses, and is told.
    pub fn subscribe(&self) -> broadcast::Receiver<Heard> {
        self.heard.subscribe()
    }

    /// Whether anything is heard, now and later.
    pub fn hearing(&self) -> watch::Receiver<Hearing> {
        self.hearing.subscribe()
    }

    /// To be woken when somebody turned the knobs.
    pub(crate) fn knobs(&self) -> watch::Receiver<()> {
        self.knobs.subscribe()
    }

    async fn listen(&self, args: &RedisArgs) {
        loop {
            let why = match subscriber(args) {
                Ok(client) => self.session(&client, &args.redis_prefix).await,
                Err(error) => error.to_string(),
            };
            let why: Arc<str> = why.into();
            let was_live = self.hearing.borrow().is_live();
            self.hearing
                .send_replace(Hearing::NotLive(Arc::clone(&why)));
            if was_live {
                tracing::warn!(%why, "nothing is heard of other nodes");
                let _ = self.heard.send(Heard::NotLive(why));
            }
            sleep(PAUSE).await;
        }
    }

    /// One subscription, until it is over; gives the reason.
    async fn session(&self, client: &Client, prefix: &str) -> String {
        // Before the connection: nothing that is said may be missed after `Live`.
        let mut messages = client.message_rx();
        let connection = client.connect();
        let why = self.hear(client, prefix, &mut messages).await;
        // Bounded, for the link may be dead; then its task is ended.
        let _ = tokio::time::timeout(PING, client.quit()).await;
        connection.abort();
        why
    }

    async fn hear(
        &self,
        client: &Client,
        prefix: &str,
        messages: &mut broadcast::Receiver<daemon::redis::fred::types::Message>,
    ) -> String {
        let (frames, knobs) = (channel(prefix), knobs::key(prefix));
        if let Err(error) = client.wait_for_connect().await {
            return why(&error);
        }
        let names = vec![frames.clone(), knobs.clone()];
        if let Err(error) = client.subscribe(names).await {
            return why(&error);
        }
        self.hearing.send_replace(Hearing::Live);
        let _ = self.heard.send(Heard::Live);
        // They may have been turned while nobody listened.
        self.knobs.send_replace(());
        let pings = async {
            let mut each = interval(PING);
            loop {
                each.tick().await;
                if let Err(error) = client.ping::<()>(None).await {
                    break why(&error);
                }
            }
        };
        let hears = async {
            loop {
                match messages.recv().await {
                    Ok(message) if *message.channel == *knobs => {
                        self.knobs.send_replace(());
                    }
                    Ok(message) if *message.channel == *frames => {
                        let frame = message.value.as_bytes().and_then(Frame::read);
                        if let Some(frame) = frame {
                            let _ = self.heard.send(Heard::Frame(Arc::new(frame)));
                        }
                    }
                    Ok(_) => {}
                    Err(error) => break format!("too much was said at once: {error}"),
                }
            }
        };
        tokio::select! {
            why = pings => why,
            why = hears => why,
        }
    }
}
