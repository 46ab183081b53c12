//! An answer of the broker that comes after the session that asked has given up on it, as from a queue that is still being
//! recovered.

use std::{net::SocketAddr, time::Duration};

use testkit::wait_until;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::{
    load::offer,
    world::{World, address, ready},
};

const LIMIT: Duration = Duration::from_mins(1);
/// Class and method of `basic.consume`, as they are on the wire.
const CONSUME: [u8; 4] = [0, 60, 0, 20];

/// Passes a receiver's links on to the broker. From the moment at which one asks to consume, nothing comes back on it until
/// all are let go.
struct Withholding {
    address: SocketAddr,
    free: watch::Sender<bool>,
}

impl Withholding {
    async fn before(broker: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (free, freed) = watch::channel(false);
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&broker).await {
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let (ask, asked) = watch::channel(false);
                    spawn(up(from_client, to_server, ask));
                    spawn(down(from_server, to_client, asked, freed.clone()));
                }
            }
        });
        Self { address, free }
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, ask: watch::Sender<bool>) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        if piece[..count].windows(4).any(|four| four == CONSUME) {
            ask.send_replace(true);
        }
        if to.write_all(&piece[..count]).await.is_err() {
            break;
        }
    }
}

async fn down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: watch::Receiver<bool>,
    mut free: watch::Receiver<bool>,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        if *asked.borrow() && free.wait_for(|free| *free).await.is_err() {
            break;
        }
        if to.write_all(&piece[..count]).await.is_err() {
            break;
        }
    }
}

#[tokio::test]
async fn a_consumer_that_the_broker_adds_late_holds_no_messages() {
    let world = World::new().await;
    let broker = Withholding::before(address(&world.broker.amqp_url)).await;
    let (before, vhost) = world.broker.amqp_url.rsplit_once('/').unwrap();
    let (user, _) = before.rsplit_once('@').unwrap();
    let receiver = world
        .receiver("receiver-1")
        .env("AMQP_URL", format!("{user}@{}/{vhost}", broker.address))
        // it is not the heartbeat that ends the session, and not that of the broker either
        .env("HEARTBEAT_SECS", 30)
        .start()
        .await;
    wait_until("the receiver to give up on an answer", LIMIT, async || {
        receiver.log().contains("consume: no answer within")
    })
    .await;
    broker.free.send_replace(true);
    ready(&receiver).await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    let messages = 100;
    offer(&[sender.url()], messages, 4, Duration::ZERO).await;
    world.drained(LIMIT).await.assert_exactly_once(messages);
}
