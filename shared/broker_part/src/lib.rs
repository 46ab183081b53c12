//! RabbitMQ as a part of a process: what [`daemon`] and [`live`] say of what [`messaging`] knows.
//!
//! None of them may know the other, and a sender and a receiver say the same of their broker. For the same reason the halves of
//! the road are wired here: [`sending`] and [`receiving`] spawn on a lifecycle what [`messaging`] only makes.
#![warn(missing_docs)]

pub mod receiving;
pub mod sending;

use anyhow::ensure;
use daemon::{WrongSetting, parts::Part};
use futures::future::select_all;
use live::{Announcer, Event, Kind};
use messaging::{
    Error,
    connection::{Broker, BrokerArgs, Link},
    watching::{Sight, Watcher, Watching, What},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The broker of these settings, for the node of this name.
///
/// # Errors
/// A setting that cannot be used.
pub fn broker(args: &BrokerArgs, node: &str) -> Result<Broker, WrongSetting> {
    args.without
        .check(args.queue_type)
        .map_err(|why| WrongSetting::because("WITHOUT", why))?;
    Broker::new(args, node).map_err(|why| WrongSetting::because("AMQP_URL", why))
}

/// Has everything that happens to messages announced.
pub fn announced(announcer: Announcer) -> Watching {
    if announcer.is_on() {
        Watching::by(Told(announcer))
    } else {
        Watching::nobody()
    }
}

struct Told(Announcer);

impl Watcher for Told {
    fn see(&self, sight: &Sight<'_>) {
        let kind = match sight.what {
            What::Accepted => Kind::Accepted,
            What::Published => Kind::Published,
            What::Unroutable => Kind::Returned,
            What::Refused => Kind::Refused,
            What::Delivered => Kind::Delivered,
            What::Failed => Kind::Failed,
            What::Duplicate => Kind::Duplicate,
            What::Processed => Kind::Processed,
            What::Dead => Kind::Dead,
            What::Redriven => Kind::Redriven,
        };
        self.0.announce(Event {
            attempt: sight.attempt,
            ms: sight.ms,
            run: sight.run.map(str::to_owned),
            redelivered: sight.redelivered,
            ..Event::now(kind, sight.message_id)
        });
    }
}

/// How a role ended: what no new session can mend is a setting that does not fit the broker.
///
/// # Errors
/// That of the role.
pub fn ended(result: Result<(), Error>) -> anyhow::Result<()> {
    result.map_err(|error| match error.setting() {
        Some(setting) => WrongSetting::because(setting.name(), error.to_string()).into(),
        None => error.into(),
    })
}

/// Keeps the part as the worst of these links is, until `stop`: a node that takes messages but cannot
/// park them is not what it should be.
///
/// # Errors
/// There is no link to follow.
pub async fn follow(
    part: Part,
    mut links: Vec<watch::Receiver<Link>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    ensure!(
        !links.is_empty(),
        "there is no link with the broker to follow"
    );
    let changes = async {
        loop {
            let now = links
                .iter_mut()
                .map(|link| link.borrow_and_update().clone());
            if let Some(worst) = now.max_by_key(trouble) {
                tell(&part, &worst);
            }
            let changes = links.iter_mut().map(|link| Box::pin(link.changed()));
            let (changed, ..) = select_all(changes).await;
            if changed.is_err() {
                // A session ended for good; whether that is right is not for us to say.
                std::future::pending::<()>().await;
            }
        }
    };
    stop.run_until_cancelled(changes).await;
    Ok(())
}

fn trouble(link: &Link) -> u8 {
    match link {
        Link::Open => 0,
        Link::Blocked(_) => 1,
        Link::Connecting => 2,
        Link::Closed => 3,
        Link::Away(_) => 4,
    }
}

fn tell(part: &Part, link: &Link) {
    match link {
        Link::Connecting => part.starting("not connected yet"),
        Link::Open => part.up(),
        Link::Blocked(reason) => part.note(format!("publishing is blocked: {reason}")),
        Link::Away(reason) => part.away(reason),
        Link::Closed => part.away("stopped"),
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use daemon::parts::{Kind, Parts};
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn a_part_is_as_the_worst_of_its_links() {
        let part = Parts::new().part("rabbitmq");
        let mut seen = part.subscribe();
        let [one, other] = [(); 2].map(|()| watch::channel(Link::Connecting).0);
        let links = vec![one.subscribe(), other.subscribe()];
        let followed = follow(part.clone(), links, CancellationToken::new());
        let play = async {
            let mut is = async |kind| {
                seen.wait_for(|now| now.kind == kind).await.unwrap();
            };
            one.send_replace(Link::Open);
            other.send_replace(Link::Open);
            is(Kind::Up).await;
            other.send_replace(Link::Away("gone".to_owned()));
            is(Kind::Away).await;
            one.send_replace(Link::Blocked("memory".to_owned()));
            other.send_replace(Link::Open);
            is(Kind::Blocked).await;
        };
        tokio::select! {
            ended = followed => panic!("nobody stopped it: {ended:?}"),
            () = play => {}
        }
        let why = part.state().why.unwrap();
        assert_eq!(why, "publishing is blocked: memory");
    }

    #[tokio::test]
    async fn links_are_followed_until_the_stop_also_when_one_has_ended() {
        let part = Parts::new().part("rabbitmq");
        let link = watch::channel(Link::Open).0;
        let stop = CancellationToken::new();
        let followed = follow(part.clone(), vec![link.subscribe()], stop.clone());
        let mut followed = pin!(followed);
        assert!(poll!(&mut followed).is_pending());
        drop(link);
        assert!(poll!(&mut followed).is_pending(), "nobody stopped it");
        stop.cancel();
        let Poll::Ready(ended) = poll!(&mut followed) else {
            panic!("it goes on after the stop");
        };
        ended.unwrap();
        assert_eq!(part.state().kind, Kind::Up);
    }

    #[tokio::test]
    async fn without_links_there_is_nothing_to_follow() {
        let part = Parts::new().part("rabbitmq");
        let followed = follow(part, Vec::new(), CancellationToken::new());
        followed.await.unwrap_err();
    }
}
