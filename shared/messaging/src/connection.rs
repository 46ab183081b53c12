//! One session with the broker: open, used by one role, dropped whole.
//!
//! A role (publisher, consumer, dead letters) owns its connection. Nothing is repaired in place: any
//! error ends the session, and [`supervise`] opens a new one after a jittered pause. The client
//! library's own recovery stays off, since it can hang under load, and publishing and consuming never
//! share a connection, since a broker that is short of memory blocks whole connections.
//!
//! Every await on the library goes through [`within`]: after a link dies, some never return.

use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::{Stream, StreamExt, stream::BoxStream};
use lapin::{
    Channel, Connection, ConnectionProperties, ErrorKind, Event, protocol::AMQPErrorKind,
    uri::AMQPUri,
};
use rand::RngExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Error, Topology,
    guarantee::{Guarantee, Without},
    numbers,
    topology::{Road, Rung},
};

/// Deadline of one exchange with the broker that answers at once when all is well.
pub const RPC_LIMIT: Duration = Duration::from_secs(5);

/// How long the end of a broken session waits for the broker's word.
const HANG_UP_LIMIT: Duration = Duration::from_millis(500);

/// Bytes of the largest frame, unless the URL says otherwise; a longer body travels in several. The library keeps room for 64
/// of them for each connection: with the broker's 128 KiB that is 8 MiB.
const FRAME_MAX: u32 = 32 * 1024;

/// How to reach the broker, and what is declared there.
#[derive(Debug, Clone, Args)]
pub struct BrokerArgs {
    /// Where RabbitMQ is: amqp://user:password@host:port/vhost (%2f is the default vhost)
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: String,
    /// Type of the queue of messages on their way
    #[arg(long, env = "QUEUE_TYPE", value_enum, default_value = "quorum")]
    pub queue_type: QueueType,
    /// Seconds between heartbeats; a link silent for twice as long is dead
    #[arg(long, env = "HEARTBEAT_SECS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub heartbeat_secs: u16,
    /// Guarantees to switch off, with commas between them, to see what they protect from: outbox,
    /// confirms, mandatory, persistence, ack-after-commit, inbox, look-behind, dead-lettering,
    /// prefetch, message-id, drain, reconsume, safe-dead-lettering, reject-publish,
    /// separate-connections, heartbeat
    #[arg(long, env = "WITHOUT", default_value = "", hide_default_value = true)]
    pub without: Without,
}

/// Quorum queues are replicated and count deliveries; classic queues do neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QueueType {
    /// Replicated, counts deliveries, keeps dead letters until they are stored.
    Quorum,
    /// One node, no count of deliveries, at-most-once dead-lettering.
    Classic,
}

/// A broker to connect to, checked once at start.
#[derive(Clone)]
pub struct Broker {
    uri: AMQPUri,
    node: String,
    pub(crate) topology: Topology,
    pub(crate) without: Without,
}

impl Broker {
    /// Checks the settings. `node` is shown in the broker's list of connections.
    ///
    /// # Errors
    /// What is wrong with the URL, without its password.
    pub fn new(args: &BrokerArgs, node: &str) -> Result<Self, String> {
        // The library's own reason may quote the whole URL, password included.
        let mut uri: AMQPUri = args.amqp_url.parse().map_err(|_: String| {
            "not an AMQP URL like amqp://user:password@host:5672/vhost".to_owned()
        })?;
        uri.query.heartbeat = Some(heartbeat(args));
        uri.query.frame_max.get_or_insert(FRAME_MAX);
        uri.query.connection_timeout = u64::try_from(RPC_LIMIT.as_millis()).ok();
        Ok(Self {
            uri,
            node: node.to_owned(),
            topology: Topology::new(args.queue_type, &args.without),
            without: args.without.clone(),
        })
    }

    /// Goes this road instead of that of `messages`.
    #[must_use]
    pub fn on(mut self, road: Road) -> Self {
        self.topology = self.topology.of(road);
        self
    }

    /// Declares these queues too.
    #[must_use]
    pub fn with_ladder(mut self, rungs: &[Rung]) -> Self {
        self.topology = self.topology.with_ladder(rungs);
        self
    }

    /// Opens a connection named "NODE ROLE", and gives its events too: the library hands each event
    /// to one listener only, so there must be one. However its session ends, [`hang_up`] is to follow.
    ///
    /// # Errors
    /// The broker is away, or refuses us.
    pub async fn connect(
        &self,
        role: &str,
    ) -> Result<(Connection, BoxStream<'static, Event>), Error> {
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("{} {role}", self.node).into());
        let connection = within(
            "connect",
            Connection::connect_uri(self.uri.clone(), properties),
        )
        .await?;
        let events = connection.events_listener().boxed();
        Ok((connection, events))
    }
}

/// Seconds. 0 asks for none, and gets what the broker suggests, 60 s: the library follows it.
fn heartbeat(args: &BrokerArgs) -> u16 {
    if args.without.has(Guarantee::Heartbeat) {
        0
    } else {
        args.heartbeat_secs
    }
}

/// Awaits an answer of the broker for at most [`RPC_LIMIT`].
///
/// # Errors
/// The library's, or [`Error::Deadline`].
pub async fn within<T>(
    what: &'static str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(RPC_LIMIT, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::Deadline {
            what,
            limit: RPC_LIMIT,
        }),
    }
}

/// Ends a session in order: a synchronous call first, since a quorum queue may overlook acks that
/// were sent just before the channel closes, then the connection. Best effort: the session is over.
pub async fn close(connection: &Connection, channels: &[&Channel]) {
    let orderly = async {
        for channel in channels {
            channel
                .basic_qos(1, lapin::options::BasicQosOptions::default())
                .await?;
        }
        connection.close(200, "bye".into()).await
    };
    if let Err(error) = within("close", orderly).await {
        info!(%error, "the connection was closed without a good-bye");
    }
}

/// Ends the connection of a session that broke, in whatever state it is; nothing to do when it is closed.
///
/// Dropped only, it lives on when a call without an answer is on its way: the library keeps it for the answer, and the broker
/// for its heartbeats. A consumer that the broker adds late is then handed messages that nobody settles.
pub async fn hang_up(connection: &Connection) {
    if connection.status().connected() {
        // What is asked for goes out by itself; a broker that is slow closes later.
        let closing = connection.close(200, "the session broke".into());
        drop(tokio::time::timeout(HANG_UP_LIMIT, closing).await);
    }
}

/// What a role's link with the broker is like at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Not open yet, for the first time.
    Connecting,
    /// In use.
    Open,
    /// Open, but the broker takes no publishes, for this reason.
    Blocked(String),
    /// Lost, or never had, for this reason; tried again by itself.
    Away(String),
    /// Ended on purpose.
    Closed,
}

impl Link {
    /// Whether there is a session.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Open | Self::Blocked(_))
    }

    /// Whether the broker takes no publishes.
    pub fn is_blocked(&self) -> bool {
        matches!(self, Self::Blocked(_))
    }
}

/// Waits until the connection breaks, and keeps `link` true meanwhile.
///
/// # Errors
/// Always: why it broke.
pub async fn watch_events(
    mut events: impl Stream<Item = Event> + Unpin,
    link: &watch::Sender<Link>,
) -> Error {
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => {
                warn!(reason, "the broker blocks publishing");
                link.send_replace(Link::Blocked(reason));
            }
            Event::ConnectionUnblocked => {
                info!("the broker takes publishes again");
                link.send_replace(Link::Open);
            }
            // About one channel only, whose user is told by the call that failed.
            Event::Error(error) if is_soft(&error) => {}
            Event::Error(error) => return error.into(),
            _ => {}
        }
    }
    // The library keeps its sender as long as the connection lives.
    Error::Deadline {
        what: "connection events",
        limit: Duration::ZERO,
    }
}

fn is_soft(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => matches!(error.kind(), AMQPErrorKind::Soft(_)),
        _ => false,
    }
}

/// A pause that grows from 0.5 s to 5 s, each jittered by half so that nodes do not come back in step.
///
/// Not shorter at first: after a lost connection a quorum queue needs a moment to elect its leader,
/// and a channel opened earlier may never confirm.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        let full = Duration::from_millis(500 << self.failures.min(4)).min(Duration::from_secs(5));
        self.failures += 1;
        full.mul_f64(rand::rng().random_range(0.5..1.5))
    }

    /// All went well: the next pause is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Runs `session` again and again until `stop`, with a pause after each that broke, and publishes the
/// state of the link. A session sets [`Link::Open`] when it is open, and returns `Ok` only for `stop`.
///
/// # Errors
/// An error that another session would meet again ([`Error::is_final`]).
pub async fn supervise<S>(
    role: &'static str,
    link: &watch::Sender<Link>,
    stop: &CancellationToken,
    mut session: impl FnMut() -> S,
) -> Result<(), Error>
where
    S: Future<Output = Result<(), Error>>,
{
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let Err(error) = session().await else { break };
        if matches!(*link.borrow(), Link::Open | Link::Blocked(_)) {
            backoff.reset();
            warn!(role, %error, "the session with RabbitMQ broke");
            metrics::counter!(numbers::SESSIONS_BROKEN, "role" => role).increment(1);
        } else if !error.is_final() {
            info!(role, %error, "RabbitMQ is away");
        }
        link.send_replace(Link::Away(error.to_string()));
        if error.is_final() {
            return Err(error);
        }
        let pause = backoff.next_pause();
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => {} }
    }
    link.send_replace(Link::Closed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_guarantee() {
        let command = BrokerArgs::augment_args(clap::Command::new("node"));
        let without = command
            .get_arguments()
            .find(|arg| arg.get_id() == "without");
        let help = without.and_then(clap::Arg::get_help).unwrap().to_string();
        let names: Vec<&str> = help.rsplit(": ").next().unwrap().split(", ").collect();
        assert_eq!(names, Guarantee::ALL.map(Guarantee::name));
    }

    #[test]
    fn pauses_grow_to_their_bound_and_start_again() {
        let mut backoff = Backoff::default();
        let first = backoff.next_pause();
        assert!((250..=750).contains(&first.as_millis()), "{first:?}");
        for _ in 0..20 {
            assert!(backoff.next_pause() <= Duration::from_millis(7_500));
        }
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(750));
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        let args = BrokerArgs {
            amqp_url: "http://user:secret@localhost".to_owned(),
            queue_type: QueueType::Quorum,
            heartbeat_secs: 10,
            without: Without::default(),
        };
        let reason = Broker::new(&args, "n").err().unwrap();
        assert!(
            reason.contains("not an AMQP URL") && !reason.contains("secret"),
            "{reason}"
        );
    }
}
