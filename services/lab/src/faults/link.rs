//! The link between a node and a server is slow, cut, silent, or refuses; through the proxy that stands between them.
//!
//! Evidence: a probe through the proxy beside one that goes straight to the server, the best of several where only time
//! tells; for a silent link also the proxy's
//! count of bytes, which stands still; for a cut one the system's list of sockets.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::probe::{Both, Probed, SILENCE, best, probe};
use super::site::{LinkHarm, LinkSight};
use super::targets::{choose, names};
use super::{Active, Aim, Evidence, Fault, Look, Means, Order, Site};
use crate::say::Usage;
use crate::stack::node::Service;
use crate::stack::servers::Which as Server;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Slow,
    Cut,
    Silent,
    Refuse,
}

/// Harm to links.
#[derive(Debug)]
pub struct Link {
    pub server: Server,
    pub how: How,
}

impl Link {
    fn harm(&self, order: &Order) -> Result<LinkHarm> {
        Ok(match self.how {
            How::Slow => LinkHarm::Slow(order.length("latency")?, order.length("jitter")?),
            How::Cut => LinkHarm::Cut,
            How::Refuse => LinkHarm::Refuse,
            How::Silent => {
                let direction = order.text("direction");
                LinkHarm::Silent {
                    up: direction != "down",
                    down: direction != "up",
                }
            }
        })
    }

    async fn look_at(&self, name: &str, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let before = look.link(name, self.server).await?;
        let title = self.server.title();
        if self.how == How::Cut {
            let old: Vec<String> = active.noted(name)?;
            return Ok(cut(&format!("{name} and {title}"), &old, &before.sockets));
        }
        let harm = self.harm(&active.order)?;
        let patience = match harm {
            LinkHarm::Slow(latency, jitter) => 2 * (latency + jitter) + SILENCE,
            _ => SILENCE,
        };
        let (proxy, direct) = (&before.through.to_string(), &before.server);
        let look_once = || async move {
            let (through, direct) = tokio::join!(
                probe(proxy, self.server, patience),
                probe(direct, self.server, SILENCE),
            );
            Both { through, direct }
        };
        let Both { through, direct } = best(look_once, |both| both.says_enough(harm)).await;
        // a machine that is too busy to look has seen nothing, neither harm nor its end
        ensure!(
            through != Probed::Late && direct != Probed::Late,
            "{name} to {title}: a probe took longer than it may"
        );
        let after = look.link(name, self.server).await?;
        let Probed::Answered(direct) = direct else {
            bail!("{title} itself does not answer, so the link cannot be judged");
        };
        let moved = Moved::between(&before, &after);
        Ok(judge(
            &format!("{name} to {title}"),
            harm,
            &through,
            direct,
            moved,
        ))
    }
}

#[async_trait]
impl Fault for Link {
    fn means(&self) -> Means {
        Means::Links
    }

    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        let struck = names(&choose(order, look, &Service::ALL).await?);
        let mut before = Map::new();
        for name in &struck {
            let link = look.link(name, self.server).await?;
            if self.how == How::Cut && link.sockets.is_empty() {
                let title = self.server.title();
                let why = format!("{name} has no connection to {title} that could be cut");
                return Err(Usage(why).into());
            }
            before.insert(name.clone(), json!(link.sockets));
        }
        Ok(Aim {
            struck,
            before: Value::Object(before),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let harm = self.harm(&active.order)?;
        for name in &active.struck {
            site.harm.link(name, self.server, harm).await?;
        }
        Ok(())
    }

    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        for name in &active.struck {
            site.harm.link(name, self.server, LinkHarm::Nothing).await?;
        }
        Ok(())
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let each = active
            .struck
            .iter()
            .map(|name| self.look_at(name, active, look));
        let each = futures::future::try_join_all(each).await?;
        Ok(Evidence::of_all(&each))
    }
}

/// Bytes that the proxy passed on during a probe.
#[derive(Debug, Clone, Copy)]
struct Moved {
    up: u64,
    down: u64,
}

impl Moved {
    fn between(before: &LinkSight, after: &LinkSight) -> Self {
        Self {
            up: after.bytes_up - before.bytes_up,
            down: after.bytes_down - before.bytes_down,
        }
    }
}

fn cut(link: &str, old: &[String], now: &[String]) -> Evidence {
    let left = old.iter().filter(|socket| now.contains(socket)).count();
    match (left, old.len(), now.len()) {
        // they are reset, which is all; whether others are opened is up to the node
        (0, were, 0) => Evidence::HealedBySelf(format!(
            "{link}: {were} connections are gone, there is none now"
        )),
        (0, were, now) => Evidence::HealedBySelf(format!(
            "{link}: {were} connections are gone, {now} others are open"
        )),
        (left, _, _) => Evidence::NotSeen(format!("{link}: {left} connections are as before")),
    }
}

fn judge(link: &str, harm: LinkHarm, through: &Probed, direct: Duration, moved: Moved) -> Evidence {
    let seen = match (harm, through) {
        // there and back; a server that is as slow itself proves nothing, nor does a machine on which all answers are late
        (LinkHarm::Slow(latency, _), Probed::Answered(time)) => {
            let there_and_back = 2 * latency;
            let by_the_link = time.saturating_sub(direct);
            *time >= there_and_back
                && direct < latency
                && by_the_link >= there_and_back.saturating_sub(latency / 4)
        }
        (LinkHarm::Silent { up, down }, Probed::Nothing) => {
            (!up || moved.up == 0) && (!down || moved.down == 0)
        }
        (LinkHarm::Refuse, Probed::Refused) => true,
        _ => false,
    };
    let direct = direct.as_millis();
    let (up, down) = (moved.up, moved.down);
    let text = match through {
        Probed::Answered(time) => {
            let time = time.as_millis();
            format!("{link}: answered after {time} ms through the proxy, {direct} ms without")
        }
        Probed::Nothing => format!(
            "{link}: no answer through the proxy, which passed on {up} bytes up and {down} down; \
             without it {direct} ms"
        ),
        Probed::Refused => format!("{link}: refused through the proxy, {direct} ms without"),
        Probed::Late => format!("{link}: not looked at in time"),
    };
    if seen {
        Evidence::Seen(text)
    } else if matches!(through, Probed::Answered(_)) {
        Evidence::NotSeen(text)
    } else {
        // neither whole nor hurt as it was ordered
        Evidence::Partly(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn judged(harm: LinkHarm, through: &Probed, up: u64, down: u64) -> Evidence {
        judge("x", harm, through, 2 * MS, Moved { up, down })
    }

    #[test]
    fn a_silent_link_gives_no_answer_and_its_counter_stands_still() {
        let both = LinkHarm::Silent {
            up: true,
            down: true,
        };
        let upwards = LinkHarm::Silent {
            up: true,
            down: false,
        };
        assert!(judged(both, &Probed::Nothing, 0, 0).happened());
        assert!(!judged(both, &Probed::Nothing, 0, 9).happened());
        assert!(judged(upwards, &Probed::Nothing, 0, 9).happened());
        assert!(judged(both, &Probed::Answered(3 * MS), 8, 8).over());
        // a link that refuses is neither silent nor whole
        let refuses = judged(both, &Probed::Refused, 0, 0);
        assert!(!refuses.happened() && !refuses.over());
    }

    #[test]
    fn a_slow_link_answers_later_than_the_server() {
        let slow = LinkHarm::Slow(100 * MS, MS);
        assert!(judged(slow, &Probed::Answered(205 * MS), 8, 8).happened());
        assert!(judged(slow, &Probed::Answered(20 * MS), 8, 8).over());
        let late = Probed::Answered(205 * MS);
        let nobody_knows = judge("x", slow, &late, 150 * MS, Moved { up: 8, down: 8 });
        assert!(!nobody_knows.happened());
        // a busy machine: what 300 ms each way would have added is not there
        let late = Probed::Answered(650 * MS);
        let slow = LinkHarm::Slow(300 * MS, MS);
        let noise = judge("x", slow, &late, 192 * MS, Moved { up: 8, down: 8 });
        assert!(noise.over());
        let late = Probed::Answered(850 * MS);
        assert!(judge("x", slow, &late, 192 * MS, Moved { up: 8, down: 8 }).happened());
        assert!(!judged(slow, &Probed::Nothing, 0, 0).happened());
    }

    #[test]
    fn a_cut_is_seen_by_the_sockets_that_are_gone() {
        let old = ["a".to_owned(), "b".to_owned()];
        let cut = |now: &[&str]| {
            let now: Vec<String> = now.iter().map(|&socket| socket.to_owned()).collect();
            cut("x", &old, &now)
        };
        assert!(matches!(cut(&["a", "b"]), Evidence::NotSeen(_)));
        assert!(matches!(cut(&["b", "c"]), Evidence::NotSeen(_)));
        assert!(matches!(cut(&["c"]), Evidence::HealedBySelf(_)));
        assert!(matches!(cut(&[]), Evidence::HealedBySelf(_)));
    }
}
