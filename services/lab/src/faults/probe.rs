//! Asking a server through a link and straight, at the same moments.
//!
//! A busy machine may answer late at any time, so one late answer says little about a link. But noise only ever adds to a
//! time, and a link that is slow slows every answer: of several looks the best counts, of each way by itself.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::site::LinkHarm;
use crate::stack::servers::Which as Server;

/// Most looks at one link.
const LOOKS: u32 = 5;

/// Between two of them, so that one moment of a busy machine does not decide.
const PAUSE: Duration = Duration::from_millis(50);

/// No further look begins after so long.
const LOOKS_LIMIT: Duration = Duration::from_secs(8);

/// How long nothing may come before it counts as silence.
pub(super) const SILENCE: Duration = Duration::from_secs(1);

/// What came after more than this time beyond the patience was not seen when it happened.
const LATE: Duration = Duration::from_millis(500);

/// What came of asking a server something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probed {
    /// After this time.
    Answered(Duration),
    Nothing,
    Refused,
    /// Nobody looked in time: what became of it meanwhile says nothing about the link.
    Late,
}

impl Probed {
    /// Of two looks the one that says more: the sooner answer, else what was seen last.
    fn or_better(self, other: Self) -> Self {
        match (self, other) {
            (Self::Answered(one), Self::Answered(other)) => Self::Answered(one.min(other)),
            (Self::Answered(time), _) | (_, Self::Answered(time)) => Self::Answered(time),
            (Self::Late, seen) | (seen, Self::Late) => seen,
            (_, last) => last,
        }
    }
}

/// What came of asking both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Both {
    pub(super) through: Probed,
    pub(super) direct: Probed,
}

impl Both {
    /// Whether another look could say no more about this harm.
    pub(super) fn says_enough(&self, harm: LinkHarm) -> bool {
        match (harm, &self.through, &self.direct) {
            // one answer that is soon enough clears the link; that all of them are late is what convicts it
            (LinkHarm::Slow(latency, _), through, Probed::Answered(_)) => {
                matches!(through, Probed::Answered(time) if *time < 2 * latency)
            }
            (LinkHarm::Slow(..), _, _) => false,
            (_, through, direct) => *through != Probed::Late && *direct != Probed::Late,
        }
    }
}

/// Looks until that is enough, and not for ever; gives the best of each way.
pub(super) async fn best<F: Future<Output = Both>>(
    mut look: impl FnMut() -> F,
    enough: impl Fn(&Both) -> bool,
) -> Both {
    let begun = Instant::now();
    let mut best = look().await;
    for _ in 1..LOOKS {
        if enough(&best) || begun.elapsed() > LOOKS_LIMIT {
            break;
        }
        sleep(PAUSE).await;
        let Both { through, direct } = look().await;
        best = Both {
            through: best.through.or_better(through),
            direct: best.direct.or_better(direct),
        };
    }
    best
}

/// Says the protocol's first word and waits for the first byte of an answer.
pub(super) async fn probe(address: &str, server: Server, patience: Duration) -> Probed {
    let word: &[u8] = match server {
        Server::RabbitMq => b"AMQP\x00\x00\x09\x01",
        // may we speak TLS?
        Server::Postgres => &[0, 0, 0, 8, 4, 210, 22, 47],
        Server::Redis => b"PING\r\n",
    };
    let begun = Instant::now();
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(word).await?;
        stream.read_u8().await
    };
    let asked = timeout(patience, asked).await;
    if begun.elapsed() > patience + LATE {
        return Probed::Late;
    }
    match asked {
        Ok(Ok(_)) => Probed::Answered(begun.elapsed()),
        Ok(Err(_)) => Probed::Refused,
        Err(_) => Probed::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SLOW: LinkHarm = LinkHarm::Slow(Duration::from_millis(300), MS);

    fn answered(through: u32, direct: u32) -> Both {
        Both {
            through: Probed::Answered(through * MS),
            direct: Probed::Answered(direct * MS),
        }
    }

    /// The best of these, and how many were looked at.
    async fn best_of(each: &[Both], harm: LinkHarm) -> (Both, usize) {
        let mut looks = 0;
        let look = || {
            looks += 1;
            let seen = each[(looks - 1).min(each.len() - 1)].clone();
            async move { seen }
        };
        let best = best(look, |both| both.says_enough(harm)).await;
        (best, looks)
    }

    #[tokio::test]
    async fn one_soon_answer_clears_a_link_however_late_the_others_were() {
        let seen = [answered(650, 192), answered(700, 20), answered(40, 90)];
        assert_eq!(best_of(&seen, SLOW).await, (answered(40, 20), 3));
    }

    #[tokio::test]
    async fn a_slow_link_is_looked_at_several_times_and_the_best_of_each_way_counts() {
        let seen = [answered(900, 310), answered(640, 400), answered(1_200, 5)];
        let all = usize::try_from(LOOKS).unwrap();
        assert_eq!(best_of(&seen, SLOW).await, (answered(640, 5), all));
    }

    #[tokio::test]
    async fn what_was_not_looked_at_in_time_is_looked_at_again() {
        let late = Both {
            through: Probed::Late,
            ..answered(0, 3)
        };
        let refused = Both {
            through: Probed::Refused,
            ..answered(0, 9)
        };
        let right = Both {
            through: Probed::Refused,
            ..answered(0, 3)
        };
        let seen = [late.clone(), refused];
        assert_eq!(best_of(&seen, LinkHarm::Refuse).await, (right, 2));
        let never = best_of(std::slice::from_ref(&late), LinkHarm::Refuse)
            .await
            .0;
        assert_eq!(never.through, Probed::Late);
        // one look is enough for what is no question of time
        assert_eq!(best_of(&[answered(9, 9)], LinkHarm::Refuse).await.1, 1);
    }

    #[tokio::test]
    async fn who_looks_too_late_has_seen_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            drop(stream);
            // in this thread nothing else is done meanwhile
            std::thread::sleep(LATE + 20 * MS);
        };
        let probe = probe(&address, Server::Redis, MS);
        let (probed, ()) = tokio::join!(probe, server);
        assert_eq!(probed, Probed::Late);
    }
}
