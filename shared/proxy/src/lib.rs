//! A TCP proxy that hurts what runs through it: cuts (with a reset or an end), freezes one
//! direction while both sockets stay open, strands, refuses, delays.
//!
//! One stands before one server, for as many clients as come. It knows no protocol, so a cut falls wherever it falls, in the middle of a frame too.

#![warn(missing_docs)]

mod url;

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
    io::{AsyncReadExt, AsyncWriteExt, copy, sink},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{broadcast, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

const CHUNK: usize = 16 * 1024;
/// How long a gentle end reads on, so that bytes which are still under way do not turn it into a
/// reset.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

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

#[expect(
    clippy::disallowed_methods,
    reason = "a connection ends with its ends, or by a cut"
)]
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        if shared.mood.borrow().refuse {
            reset(client);
            continue;
        }
        // Before anything else, so that no cut is missed.
        let cuts = shared.cuts.subscribe();
        tokio::spawn(connection(number, client, cuts, Arc::clone(&shared)));
    }
}

async fn connection(
    number: u64,
    mut client: TcpStream,
    mut cuts: broadcast::Receiver<Cut>,
    shared: Arc<Shared>,
) {
    let connected = tokio::select! {
        connected = TcpStream::connect(&shared.target) => connected.ok(),
        _ = cuts.recv() => None,
    };
    let Some(mut server) = connected else {
        return reset(client);
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let _open = Open::new(&shared.open);
    let cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(number, Direction::Up, from_client, to_server, &shared);
        let down = pump(number, Direction::Down, from_server, to_client, &shared);
        tokio::select! {
            ended = async { tokio::try_join!(up, down) } => {
                // One side's reset is passed on as such.
                if ended.is_ok() {
                    return;
                }
                Cut::Reset
            }
            // Too many cuts to keep count of are a cut as well.
            cut = cuts.recv() => cut.unwrap_or(Cut::Reset),
        }
    };
    match cut {
        Cut::Reset => {
            reset(client);
            reset(server);
        }
        Cut::End => {
            tokio::join!(end(client), end(server));
        }
    }
}

/// Forwards one direction until its end, which is passed on too.
async fn pump(
    number: u64,
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
) -> io::Result<()> {
    let mut mood = shared.mood.subscribe();
    let mut chunk = vec![0; CHUNK];
    let mut pieces = 0;
    loop {
        let length = from.read(&mut chunk).await?;
        pieces += 1;
        let delay = mood.borrow().delay(number.rotate_left(32) ^ pieces);
        if !delay.is_zero() {
            sleep(delay).await;
        }
        // The sender lives as long as `shared`, so this never errs.
        let _ = mood.wait_for(|mood| !mood.frozen(direction, number)).await;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..length]).await?;
        let moved = u64::try_from(length).unwrap_or(u64::MAX);
        shared.bytes(direction).fetch_add(moved, Ordering::Relaxed);
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the drop is what sends the reset"
)]
fn reset(stream: TcpStream) {
    // Then the drop sends a reset instead of an end.
    let _ = stream.set_zero_linger();
}

async fn end(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let _ = timeout(DRAIN_LIMIT, copy(&mut stream, &mut sink())).await;
}

struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the echo server ends with the test's runtime"
)]
mod tests;
