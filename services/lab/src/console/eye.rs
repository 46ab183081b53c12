//! Looks at everything once a second and tells the readers: the state, and what the second brought.
//!
//! Whether nodes live is looked at twice as often, so that a death is seen soon. Nothing here waits for a server that is
//! away: each look has a limit, and what did not answer is shown as not known, or as it was last with a word that it is old.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use daemon::{clock, node};
use reqwest::Client;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::balance::latency;
use super::figures::{Figures, Queues, Told, queues};
use super::hear::{SILENT, Said};
use super::history::{self, Second};
use super::picture::{Conditions, NodeNow, Picture, QueueNow, Since};
use crate::run::sight::{NodeSight, Sight};
use crate::stack::node::Service;
use crate::stack::supervisor::Doing;
use crate::status::NodeCondition;

const TICK: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_millis(900);
/// Where everything is changes seldom, and is asked every so many seconds.
const SIGHT_EVERY: u32 = 5;
const QUEUE: &str = "messages";

/// Who looks.
pub struct Eye {
    app: App,
    client: Client,
    told: watch::Sender<Arc<Picture>>,
    sight: Option<Sight>,
    figures: Figures,
    since: Since,
    /// What nodes told in this second.
    last: HashMap<String, Told>,
    conditions: Conditions,
    newest: Option<i64>,
    /// The last look that was told, and when it was made.
    second: Option<Second>,
    looked: Option<Instant>,
}

impl Eye {
    /// The picture goes where `told` is read.
    pub fn new(app: App, told: watch::Sender<Arc<Picture>>) -> Self {
        Self {
            app,
            client: Client::new(),
            told,
            sight: None,
            figures: Figures::default(),
            since: Since::default(),
            last: HashMap::new(),
            conditions: Conditions::default(),
            newest: None,
            second: None,
            looked: None,
        }
    }

    /// Until the process stops.
    pub async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let looking = async {
            let mut ticks = interval(TICK);
            // a look that took long moves none of those after it: they stay a second apart
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut count = 0_u32;
            loop {
                ticks.tick().await;
                if count.is_multiple_of(2) {
                    self.second(count / 2).await;
                } else {
                    self.glance().await;
                }
                count = count.wrapping_add(1);
            }
        };
        stop.run_until_cancelled(looking).await;
        Ok(())
    }

    async fn second(&mut self, count: u32) {
        if self.sight.is_none() || count.is_multiple_of(SIGHT_EVERY) {
            // one that cannot be had now keeps the last one
            if let Ok(Ok(mut sight)) = timeout(LIMIT * 2, self.app.ground.sight()).await {
                sight
                    .nodes
                    .retain(|node| Service::MAIN.contains(&node.service));
                self.sight = Some(sight);
            }
        }
        self.look_at_nodes().await;
        let sight = self.sight.clone().unwrap_or_default();
        let nodes = self.asked(&sight);
        let conditions = self.conditions.last().unwrap_or_default().iter();
        let frozen = conditions.filter(|one| one.frozen);
        let frozen: Vec<String> = frozen.map(|one| one.name.clone()).collect();
        // nodes count as of now, however long a broker that stands still keeps the others
        let (at, now) = (clock::now().timestamp_millis(), Instant::now());
        let lasted = self.looked.replace(now).map_or(1, |before| {
            let since = now.duration_since(before);
            (since + Duration::from_millis(500)).as_secs()
        });
        let (told, queues, latency, knobs) = tokio::join!(
            self.figures.look(&self.client, &nodes, &frozen),
            queues(&self.client, &sight),
            timeout(LIMIT, latency(&self.app.pool, self.newest)),
            timeout(LIMIT, self.app.knobs.read()),
        );
        self.last = told;
        let mut times = None;
        if let Ok(Ok((newest, found))) = latency {
            self.newest = Some(newest);
            times = found;
        }
        let mut picture = self.picture(queues.as_ref());
        if let Ok(Ok(knobs)) = knobs {
            picture.knobs = knobs;
        } else {
            let away = "Redis is away, and knobs are turned through it.";
            picture.knobs = self.told.borrow().knobs.clone();
            picture.knobs.why_not = Some(away.to_owned());
        }
        self.tell(&picture, at, lasted, times);
        self.show(picture);
    }

    /// What came since the last look, which was made so many seconds before.
    fn tell(&mut self, picture: &Picture, at: i64, lasted: u64, times: Option<(f64, f64)>) {
        let last = self.second.as_ref();
        let mut look = Second {
            t: history::second(last.map(|last| last.t), at),
            ready: picture.queue.ready,
            unacked: picture.queue.unacked,
            p50: times.map(|(p50, _)| p50),
            p99: times.map(|(_, p99)| p99),
            faults: picture
                .faults
                .iter()
                .map(|one| format!("{} {}", one.kind, one.target))
                .collect(),
            ..Second::default()
        };
        for told in self.last.values() {
            let [accepted, published, processed, failed, redelivered, dead] = told.counts;
            look.accepted += accepted;
            look.published += published;
            look.processed += processed;
            look.failed += failed;
            look.redelivered += redelivered;
            look.dead += dead;
        }
        for second in history::spread(last, lasted, &look) {
            if let Ok(text) = serde_json::to_string(&second) {
                self.app.feed.tell("second", text);
            }
            self.app.history.add(second);
        }
        self.second = Some(look);
    }

    /// Between two seconds: only whether somebody died or came back, and what was broken or healed.
    async fn glance(&mut self) {
        self.look_at_nodes().await;
        let before = self.told.borrow().clone();
        let now = self.nodes();
        let states = |nodes: &[NodeNow]| -> Vec<(String, &'static str)> {
            nodes
                .iter()
                .map(|node| (node.name.clone(), node.state))
                .collect()
        };
        let faults = self.app.faults();
        // a node that dies and the fault that killed it are seen together
        if states(&before.nodes) != states(&now) || before.faults != faults {
            let at = clock::now().timestamp_millis();
            self.show(Picture {
                at,
                nodes: now,
                faults,
                ..(*before).clone()
            });
        }
    }

    /// None is shown while the notes cannot be read: what is broken then is not known.
    fn show(&self, picture: Picture) {
        if self.app.feed.is_read()
            && let Ok(text) = serde_json::to_string(&picture)
        {
            self.app.feed.show("state", text);
        }
        self.told.send_replace(Arc::new(picture));
    }

    async fn look_at_nodes(&mut self) {
        if self.app.ground.is_native() {
            let nodes = timeout(LIMIT, self.app.ground.conditions()).await;
            // the console is about the main job; other services may run beside it
            let main = |mut nodes: Vec<NodeCondition>| {
                nodes.retain(|node| Service::MAIN.contains(&node.service));
                nodes
            };
            let nodes = nodes.ok().and_then(Result::ok).map(main);
            self.conditions.hear(nodes, Instant::now());
        }
    }

    /// Whom to ask: in the native stack those that it has now, and that can answer.
    fn asked(&self, sight: &Sight) -> Vec<NodeSight> {
        let Some(conditions) = self.conditions.last() else {
            return sight.nodes.clone();
        };
        let alive = conditions
            .iter()
            .filter(|one| one.doing == Doing::Ready && !one.frozen);
        alive
            .map(|one| NodeSight {
                name: one.name.clone(),
                service: one.service,
                ops: one.ops.clone(),
                address: String::new(),
                place: None,
            })
            .collect()
    }

    fn picture(&mut self, queues: Option<&Queues>) -> Picture {
        let nodes = self.nodes();
        self.since.keep(&nodes);
        let off: BTreeSet<&String> = self.last.values().flat_map(|told| &told.off).collect();
        let why_not = self.app.heard.why_not();
        let balances = self.app.balances.borrow().clone();
        let load = self.app.loads.now();
        let of_run = load
            .as_ref()
            .and_then(|load| balances.runs.get(load.run.as_str()));
        let newest = balances.newest.iter();
        let newest = newest.filter_map(|run| balances.runs.get(run));
        Picture {
            at: clock::now().timestamp_millis(),
            live: why_not.is_none(),
            why_not,
            exchange: QUEUE,
            queue: QueueNow {
                name: QUEUE,
                kind: queues.map(|queues| queues.kind.clone()),
                ready: queues.map(|queues| queues.ready),
                unacked: queues.map(|queues| queues.unacked),
                dead: queues.map(|queues| queues.dead),
                parked: balances.undecided,
                blocked: nodes.iter().any(|node| node.blocked),
            },
            balance: of_run.cloned().unwrap_or_else(|| balances.all.clone()),
            runs: newest.cloned().collect(),
            all: balances.all.clone(),
            counting: balances.counting,
            uncounted: balances.why_not.clone(),
            faults: self.app.faults(),
            guarantees_off: off.into_iter().cloned().collect(),
            experiment: self.app.experiment(),
            nodes,
            nodes_why_old: self.conditions.why_old(Instant::now()),
            load,
            ..Picture::default()
        }
    }

    fn nodes(&mut self) -> Vec<NodeNow> {
        let heard = self.app.heard.nodes();
        let now = clock::now().timestamp_millis();
        let states: Vec<(String, Service, &'static str)> =
            match (self.conditions.last(), &self.sight) {
                (Some(conditions), _) => conditions
                    .iter()
                    .map(|one| (one.name.clone(), one.service, state(one)))
                    .collect(),
                (None, Some(sight)) if !self.app.ground.is_native() => {
                    let alive = |node: &NodeSight| {
                        self.last.contains_key(&node.name)
                            || heard.get(&node.name).is_some_and(speaks)
                    };
                    let state = |node: &NodeSight| if alive(node) { "up" } else { "dead" };
                    sight
                        .nodes
                        .iter()
                        .map(|node| (node.name.clone(), node.service, state(node)))
                        .collect()
                }
                _ => Vec::new(),
            };
        let mut all = Vec::new();
        for (name, service, state) in states {
            let told = self.last.get(&name).cloned().unwrap_or_default();
            // what was announced a moment ago is newer than what was asked
            let said = heard.get(&name).filter(|said| speaks(said));
            let gauges = said.map(|said| said.gauges);
            let up = state == "up";
            all.push(NodeNow {
                colour: node::colour(&name),
                service: service.name().to_owned(),
                since: self.since.of(&name, state, now),
                rate: if up { told.rate } else { 0.0 },
                in_hand: if state == "dead" {
                    0
                } else {
                    gauges.map_or(told.in_hand, |gauges| gauges.in_hand)
                },
                prefetch: gauges.map(|gauges| gauges.prefetch).or(told.prefetch),
                waiting: gauges.map_or(told.waiting, |gauges| gauges.waiting),
                held: gauges.map_or(0, |gauges| gauges.held),
                blocked: up && told.blocked,
                state,
                name,
            });
        }
        all
    }
}

fn speaks(said: &Said) -> bool {
    said.at.elapsed() < SILENT
}

fn state(node: &NodeCondition) -> &'static str {
    match node.doing {
        _ if node.frozen => "frozen",
        Doing::Ready | Doing::Unready => "up",
        Doing::Starting => "starting",
        Doing::Stopping => "stopping",
        Doing::Stopped | Doing::Waiting | Doing::Failed => "dead",
    }
}
