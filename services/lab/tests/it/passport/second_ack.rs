//! Between a receiver and the broker: what acks a delivery once more than the receiver did. The broker closes the channel
//! for that, and only the channel.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

use crate::world::address;

/// Before the first frame: "AMQP", and the version.
const GREETING: usize = 8;
/// Type, channel, and the payload's length.
const HEAD: usize = 7;
/// The end of a frame.
const END: u8 = 0xCE;
/// basic.consume of the queue `messages`: class, method, a reserved word, the queue.
const CONSUME: &[u8] = b"\x00\x3c\x00\x14\x00\x00\x08messages";

/// Where a receiver connects to instead.
pub(super) struct SecondAck {
    pub(super) url: String,
    now: Arc<Notify>,
}

#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
impl SecondAck {
    /// Passes everything on to this broker.
    pub(super) async fn to(amqp_url: &str) -> Self {
        let broker = address(amqp_url);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = amqp_url.replace(&broker, &listener.local_addr().unwrap().to_string());
        let now = Arc::new(Notify::new());
        let told = Arc::clone(&now);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let broker = TcpStream::connect(&broker).await.unwrap();
                tokio::spawn(pass_on(client, broker, Arc::clone(&told)));
            }
        });
        Self { url, now }
    }

    /// Acks a delivery that nobody had, on the channel of the consumer of `messages`.
    pub(super) fn send(&self) {
        self.now.notify_one();
    }
}

async fn pass_on(client: TcpStream, broker: TcpStream, now: Arc<Notify>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let down = copy(&mut from_broker, &mut to_client);
    let up = async move {
        let (frames, mut next) = mpsc::channel::<Vec<u8>>(16);
        // A read that is given up in the middle would lose half a frame.
        let reading = async {
            let mut greeting = vec![0; GREETING];
            from_client.read_exact(&mut greeting).await?;
            let mut frame = greeting;
            while frames.send(frame).await.is_ok() {
                let mut head = [0; HEAD];
                from_client.read_exact(&mut head).await?;
                let size = u32::from_be_bytes(head[3..].try_into().unwrap());
                frame = head.to_vec();
                frame.resize(HEAD + usize::try_from(size).unwrap() + 1, 0);
                from_client.read_exact(&mut frame[HEAD..]).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let writing = async {
            let mut channel = None;
            loop {
                tokio::select! {
                    Some(frame) = next.recv() => {
                        if frame.get(HEAD..).is_some_and(|rest| rest.starts_with(CONSUME)) {
                            channel = Some([frame[1], frame[2]]);
                        }
                        to_broker.write_all(&frame).await?;
                    }
                    channel = asked(&now, channel) => to_broker.write_all(&ack(channel)).await?,
                    else => return Ok::<_, std::io::Error>(()),
                }
            }
        };
        tokio::select! {
            ended = reading => ended,
            ended = writing => ended,
        }
    };
    // Whichever side ends first ends the other.
    tokio::select! {
        _ = down => {}
        _ = up => {}
    }
}

/// Where to, once somebody asks; nowhere without a consumer.
async fn asked(now: &Notify, channel: Option<[u8; 2]>) -> [u8; 2] {
    match channel {
        None => std::future::pending().await,
        Some(channel) => {
            now.notified().await;
            channel
        }
    }
}

/// basic.ack of a tag that was never given out.
fn ack(channel: [u8; 2]) -> Vec<u8> {
    let tag = u64::from(u32::MAX).to_be_bytes();
    let payload = [&[0, 60, 0, 80][..], &tag, &[0]].concat();
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[1][..], &channel, &size, &payload, &[END]].concat()
}
