//! A TCP proxy that hurts what runs through it: cuts (with a reset or an end), freezes one
//! direction while both sockets stay open, strands, refuses, delays.
//!
//! One stands before one server, for as many clients as come. It knows no protocol, so a cut falls wherever it falls, in the middle of a frame too.

#![warn(missing_docs)]

mod connection;
mod url;

use connection::accept;
pub use url::target;
use url::through;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::AbortHandle,
};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What is done to the connections, present and future.
#[derive(Debug, Clone, Copy, Default)]
struct Mood {
    frozen_up: bool,
    frozen_down: bool,
    /// Connections up to this number are frozen for good.
    stranded: u64,
    refuse: bool,
    latency: Duration,
    jitter: Duration,
}

impl Mood {
    fn frozen(self, direction: Direction, number: u64) -> bool {
        let direction_frozen = match direction {
            Direction::Up => self.frozen_up,
            Direction::Down => self.frozen_down,
        };
        direction_frozen || number <= self.stranded
    }

    /// How long a piece is held back; `dice` is anything that differs from piece to piece.
    fn delay(self, dice: u64) -> Duration {
        // The finaliser of splitmix64: enough to look like chance, and no dependency.
        let mut mixed = dice.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = f64::from((mixed >> 32) as u32) / f64::from(u32::MAX);
        self.latency + self.jitter.mul_f64(share)
    }
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    Reset,
    End,
}

/// A proxy before one server. It ends, and its connections are reset, when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    target: String,
    mood: watch::Sender<Mood>,
    cuts: broadcast::Sender<Cut>,
    up: AtomicU64,
    down: AtomicU64,
    accepted: AtomicU64,
    open: AtomicUsize,
}

impl Proxy {
    /// A proxy on a free port of loopback before `target`, an `ADDRESS:PORT`. The target need not
    /// be there.
    ///
    /// # Errors
    /// No port is to be had.
    #[expect(
        clippy::disallowed_methods,
        reason = "it outlives whoever asked for it; Drop ends the task"
    )]
    pub async fn start(target: impl Into<String>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: target.into(),
            mood: watch::Sender::new(Mood::default()),
            cuts: broadcast::Sender::new(16),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// As [`Proxy::start`], for tests.
    ///
    /// # Panics
    /// If no port is to be had.
    pub async fn to(target: impl Into<String>) -> Self {
        Self::start(target).await.expect("a free port")
    }

    /// A proxy before the server that this URL names; [`Proxy::url`] then leads through it.
    ///
    /// # Panics
    /// As [`Proxy::to`], and if the URL names no host.
    pub async fn before(url: &str) -> Self {
        Self::to(target(url).expect("a URL with a host and a known port")).await
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same URL, but through the proxy.
    ///
    /// # Panics
    /// If it names no host.
    pub fn url(&self, url: &str) -> String {
        through(url, self.address).expect("a URL with a host")
    }

    /// Resets all open connections, on both sides; says how many were open.
    pub fn cut_rst(&self) -> usize {
        self.cut(Cut::Reset)
    }

    /// Ends all open connections politely, on both sides; says how many were open.
    pub fn cut_fin(&self) -> usize {
        self.cut(Cut::End)
    }

    fn cut(&self, cut: Cut) -> usize {
        self.shared.cuts.send(cut).unwrap_or(0)
    }

    /// Forwards nothing in this direction, on any connection, until [`Proxy::thaw`]. What arrives
    /// is kept, and taken from the sender as far as buffers reach.
    pub fn freeze(&self, direction: Direction) {
        self.shared.mood.send_modify(|mood| match direction {
            Direction::Up => mood.frozen_up = true,
            Direction::Down => mood.frozen_down = true,
        });
    }

    /// Forwards in both directions again, what was kept first.
    pub fn thaw(&self) {
        self.shared.mood.send_modify(|mood| {
            mood.frozen_up = false;
            mood.frozen_down = false;
        });
    }

    /// Forwards nothing any more, in either direction, on the connections that are open now; new
    /// ones work. It is as if the other end had gone without a word.
    pub fn strand(&self) {
        let stranded = self.accepted();
        self.shared
            .mood
            .send_modify(|mood| mood.stranded = stranded);
    }

    /// Resets new connections at once, or lets them through again. Open ones stay.
    pub fn refuse(&self, refuse: bool) {
        self.shared.mood.send_modify(|mood| mood.refuse = refuse);
    }

    /// Holds back each piece (up to 16 KiB) for this long, in each direction.
    pub fn latency(&self, latency: Duration) {
        self.slow(latency, Duration::ZERO);
    }

    /// Holds back each piece (up to 16 KiB), in each direction, for the latency and up to `jitter`
    /// more, another time for each piece. Pieces keep their order.
    pub fn slow(&self, latency: Duration, jitter: Duration) {
        self.shared.mood.send_modify(|mood| {
            mood.latency = latency;
            mood.jitter = jitter;
        });
    }

    /// Undoes everything: nothing is frozen, stranded, refused or slow any more. Connections that
    /// were cut stay cut.
    pub fn heal(&self) {
        self.shared.mood.send_replace(Mood::default());
    }

    /// How many bytes went through in this direction.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.bytes(direction).load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// How many connections were ever made to us, refused ones included.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("target", &self.shared.target)
            .finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_rst();
    }
}

impl Shared {
    fn bytes(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the echo server ends with the test's runtime"
)]
mod tests;
