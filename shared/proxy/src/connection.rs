//! One connection after the other: what goes through it, and how it is cut.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, sink},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::broadcast,
    time::{sleep, timeout},
};

use super::{Cut, Direction, Shared};

const CHUNK: usize = 16 * 1024;
/// How long a gentle end reads on, so that bytes which are still under way do not turn it into a
/// reset.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

#[expect(
    clippy::disallowed_methods,
    reason = "a connection ends with its ends, or by a cut"
)]
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
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
