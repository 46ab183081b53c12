//! Faults, on a stack of their own: what is injected is seen, what is healed is seen to be over, and what was not injected
//! is not seen.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use futures::future::join_all;
use lab::audit::Verdict;
use lab::audit::class::Class;
use lab::experiment::file::Experiment;
use lab::experiment::journal::Outcome;
use lab::experiment::runner::Play;
use lab::experiment::stage::Stage;
use lab::faults::native::Native;
use lab::faults::site::LinkHarm;
use lab::faults::{Evidence, Harm, Injector, Order, Site, Which, catalogue};
use lab::say::{Steps, Usage};
use lab::stack::dir::{self, LabDir};
use lab::stack::node::Service;
use lab::stack::scene::Scene;
use lab::stack::servers::{Given, Which as Server};
use lab::stack::strike::{End, Target};
use lab::stack::{Options, Plan, Stack, clear_up, postgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use testkit::wait_until;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::world::lab;

const LIMIT: Duration = Duration::from_mins(2);
/// Enough for statistics of the broker that are five seconds old.
const NOT_SEEN: Duration = Duration::from_secs(6);

fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("unacked-{}", uuid::Uuid::new_v4().simple()))
}

fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A stack in this process, as an experiment has it.
struct Own {
    stack: Arc<Stack>,
    root: PathBuf,
}

impl Own {
    async fn start() -> Self {
        let dir = LabDir::open(&folder()).unwrap();
        let root = dir.root().to_owned();
        let settings = [
            ("WORK_DELAY_MAX_MS", "50"),
            ("WORK_FAIL_ONE_IN", "0"),
            ("HEARTBEAT_SECS", "2"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let options = Options {
            faults: true,
            settings: BTreeMap::from(settings),
            program: Some(lab().to_owned()),
        };
        let (news, _) = mpsc::unbounded_channel();
        let stack = Stack::prepare(dir, &Given::default(), port(), options, news).await;
        let own = Self {
            stack: Arc::new(stack.unwrap()),
            root,
        };
        own.stack.start_servers(&Steps::new(&|_| {})).await.unwrap();
        own.stack
            .start_nodes(&Plan::new(), &Steps::new(&|_| {}))
            .await
            .unwrap();
        own
    }

    async fn fresh(&self, name: &str) {
        let scene = Scene {
            vhost: name.to_owned(),
            database: name.to_owned(),
            settings: BTreeMap::new(),
            nodes: Plan::from([(Service::Sender, 1), (Service::Receiver, 2)]),
        };
        self.stack.fresh(scene, &Steps::new(&|_| {})).await.unwrap();
    }

    /// Waits until every node has all it needs: none is about to open a session, which declares and
    /// binds everything anew. Then sends a message and waits until it is processed.
    async fn process_one(&self) {
        let status = Box::pin(self.stack.status()).await;
        let (gateway, client) = (status.gateway, Client::new());
        for node in &status.nodes {
            let what = format!("{} to have all it needs", node.name);
            wait_until(&what, LIMIT, async || {
                let health = client.get(format!("{}/health/ready", node.ops));
                let Ok(answer) = health.send().await else {
                    return false;
                };
                let health: Value = answer.json().await.unwrap();
                let mut parts = health["parts"].as_object().unwrap().values();
                parts.all(|part| part["state"] == "up")
            })
            .await;
        }
        let text = uuid::Uuid::new_v4().to_string();
        let send = client.post(format!("{gateway}/api/messages"));
        let answer = send.json(&json!({"message": text})).send().await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
        wait_until("a message to be processed", LIMIT, async || {
            let received = client.get(format!("{gateway}/received"));
            let received = received
                .header("accept", "application/json")
                .send()
                .await
                .unwrap();
            received.text().await.unwrap().contains(&text)
        })
        .await;
    }

    async fn stop(self) {
        self.stack.stop(&Steps::new(&|_| {})).await;
        let _ = std::fs::remove_dir_all(postgres::outside(&self.root));
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}

impl Drop for Own {
    /// Only a failed test has anything running here.
    fn drop(&mut self) {
        if self.root.exists() {
            self.stack.abort();
        }
    }
}

/// An injector that does nothing.
struct Nothing;

#[async_trait]
impl Harm for Nothing {
    async fn hold(&self, _: &Target, _: End) -> Result<()> {
        Ok(())
    }
    async fn release(&self, _: &Target) -> Result<()> {
        Ok(())
    }
    async fn restart(&self, _: &Target) -> Result<()> {
        Ok(())
    }
    async fn pause(&self, _: &Target) -> Result<()> {
        Ok(())
    }
    async fn resume(&self, _: &Target) -> Result<()> {
        Ok(())
    }
    async fn manage(&self, _: Method, _: &[&str], _: Option<Value>) -> Result<()> {
        Ok(())
    }
    async fn memory_alarm(&self, _: bool) -> Result<()> {
        Ok(())
    }
    async fn put_ops(&self, _: &str, _: &str, _: String) -> Result<()> {
        Ok(())
    }
    async fn link(&self, _: &str, _: Server, _: LinkHarm) -> Result<()> {
        Ok(())
    }
}

/// Of every fault, and of one whose evidence is later than that of all others.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_injected_is_seen_what_is_healed_is_over_and_what_is_neither_is_not_seen() {
    let own = Own::start().await;
    own.fresh("faults-1").await;
    own.process_one().await;
    let site = Native::site(&own.stack);

    let nothing = Site {
        harm: Arc::new(Nothing),
        ..site.clone()
    };
    // not among the notes of the stack: each would be in the way of the others
    let each = catalogue().iter().map(|entry| {
        let injector = Injector::new(nothing.clone(), &own.root.join(entry.name));
        async move {
            let injected = injector.inject(&Order::new(entry.name)).await;
            let mut active = injected.unwrap_or_else(|error| panic!("{}: {error:#}", entry.name));
            let evidence = injector.see(&mut active, NOT_SEEN).await.unwrap();
            assert!(
                !evidence.happened(),
                "{} was not injected: {evidence:?}",
                entry.name
            );
        }
    });
    join_all(each).await;

    let injector = Injector::new(site, &own.root);
    for entry in catalogue() {
        let name = entry.name;
        // a message goes through between two: each leaves a stack that works
        own.process_one().await;
        let mut active = injector.inject(&Order::new(name)).await;
        let active = active
            .as_mut()
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(injector.active().unwrap().len(), 1, "{name}");
        let evidence = injector.see(active, LIMIT).await.unwrap();
        assert!(evidence.happened(), "{name}: {evidence:?}");
        if !entry.instant {
            assert!(
                matches!(evidence, Evidence::Seen(_)),
                "{name}: {evidence:?}"
            );
            let again = injector.inject(&Order::new(name).on(Which::All)).await;
            // an unbound queue cannot be aimed at either
            assert!(again.unwrap_err().is::<Usage>(), "{name}");
        }
        let healed = injector.heal(active).await;
        let healed = healed.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(healed.by_itself, entry.instant, "{name}: {healed:?}");
        assert!(injector.active().unwrap().is_empty(), "{name}");
    }
    own.process_one().await;

    heals_by_itself(&own, &injector).await;
    own.fresh("faults-2").await;
    own.process_one().await;
    own.stack.clear(&Steps::new(&|_| {})).await.unwrap();
    assert!(Box::pin(own.stack.status()).await.nodes.is_empty());
    what_a_killed_lab_left_can_be_removed(&own.stack).await;
    own.stop().await;
}

/// What the services mend before anybody heals it.
async fn heals_by_itself(own: &Own, injector: &Injector) {
    let crash = Order::new("fail-point").with("action", "crash@1");
    let mut active = injector.inject(&crash.on(Which::All)).await.unwrap();
    own.process_one().await;
    injector.see(&mut active, LIMIT).await.unwrap();
    wait_until("a crashed receiver to be back", LIMIT, async || {
        let looked = injector.look(&active).await;
        // the message comes to the other one next, which may crash too
        looked.is_ok_and(|evidence| evidence.text().contains("is gone"))
    })
    .await;
    injector.heal(&active).await.unwrap();
    own.process_one().await;

    let unbind = injector.inject(&Order::new("queue-unbind")).await;
    let mut unbind = unbind.unwrap();
    let seen = injector.see(&mut unbind, LIMIT).await.unwrap();
    assert!(matches!(seen, Evidence::Seen(_)), "{seen:?}");
    // whoever opens a new session binds the queue again
    let close = Order::new("rabbitmq-close-connection").on(Which::All);
    let mut close = injector.inject(&close).await.unwrap();
    injector.see(&mut close, LIMIT).await.unwrap();
    wait_until("the queue to be bound again", LIMIT, async || {
        let looked = injector.look(&unbind).await;
        matches!(looked, Ok(Evidence::HealedBySelf(_)))
    })
    .await;
    let healed = injector.heal_all().await.unwrap();
    assert_eq!(healed.len(), 2);
    assert!(
        healed
            .iter()
            .all(|(_, healed)| healed.as_ref().unwrap().by_itself),
        "{healed:?}"
    );
}

async fn what_a_killed_lab_left_can_be_removed(stack: &Arc<Stack>) {
    let vhost = ["vhosts", "r1121-0915-left"];
    stack.manage(Method::PUT, &vhost, None).await.unwrap();
    let database = stack.addresses().unwrap().database;
    let mut database = PgConnection::connect(&database).await.unwrap();
    let create = r#"create database "r1121-0915-left""#;
    sqlx::query(create).execute(&mut database).await.unwrap();
    stack.remove_left_scenes().await.unwrap();
    let look = Native::site(stack).look;
    assert_eq!(look.broker(&vhost).await.unwrap(), None);
    assert!(look.broker(&["vhosts", "/"]).await.unwrap().is_some());
    let left = "select count(*) from pg_database where datname like 'r1121%'";
    let (left,): (i64,) = sqlx::query_as(left).fetch_one(&mut database).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scene_that_cannot_be_removed_is_removed_later() {
    let own = Own::start().await;
    let scene = Scene {
        vhost: "left-1".to_owned(),
        database: "left-1".to_owned(),
        ..Scene::default()
    };
    let quiet = Steps::new(&|_| {});
    own.stack.fresh(scene, &quiet).await.unwrap();
    let postgres = Target::Server(Server::Postgres);
    own.stack.hold(&postgres, End::Kill).await.unwrap();
    own.stack.clear(&quiet).await.unwrap_err();
    own.stack.release(&postgres).await.unwrap();
    wait_until("the scene to be removed", LIMIT, async || {
        own.stack.clear(&quiet).await.is_ok()
    })
    .await;
    // without a scene this is the stack's own database
    let database = own.stack.addresses().unwrap().database;
    let mut database = PgConnection::connect(&database).await.unwrap();
    let left = "select count(*) from pg_database where datname = 'left-1'";
    let (left,): (i64,) = sqlx::query_as(left).fetch_one(&mut database).await.unwrap();
    assert_eq!(left, 0);
    drop(database);
    own.stop().await;
}

/// An experiment with every fault of the catalogue at once, and none of them done.
fn everything() -> String {
    let places = ["sender-1", "sender-2", "receiver-1", "receiver-2"];
    let mut links: BTreeMap<&str, std::slice::Iter<'_, &str>> = BTreeMap::new();
    let faults = catalogue().iter().map(|entry| {
        // two that hurt one link would be in each other's way
        let on = entry.needs_links().then(|| {
            let server = entry.name.split('-').next().unwrap();
            let place = links.entry(server).or_insert_with(|| places.iter()).next();
            format!(", on: {}", place.unwrap())
        });
        let time = if entry.instant { "" } else { ", for: 1s" };
        let (name, on) = (entry.name, on.unwrap_or_default());
        format!("  - {{ at: 1s, fault: {name}{on}{time} }}\n")
    });
    let faults: String = faults.collect();
    format!(
        "title: Nothing is done\nlearn: What was not done proves nothing.\n\
         stack: {{ sender: 2, receiver: 2, settings: {{ WORK_DELAY_MAX_MS: 10, WORK_FAIL_ONE_IN: 0 }} }}\n\
         load: {{ rate: 20/s, for: 3s }}\nfaults:\n{faults}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_experiment_whose_faults_are_not_done_is_inconclusive_for_each_of_them() {
    let root = folder();
    std::fs::create_dir(&root).unwrap();
    let experiment = Experiment::parse("nothing.yaml", &everything(), 16).unwrap();
    let steps = Steps::new(&|_| {});
    let stage = Stage::prepare(&root, Some(lab()), true, &steps)
        .await
        .unwrap();
    let stage = stage.struck_by(Arc::new(Nothing));
    stage.start(&steps).await.unwrap();
    let play = Play {
        experiment: &experiment,
        setup: &experiment.safe,
        twin: false,
        seed: 7,
    };
    let played = Box::pin(play.run(&stage, &root, &steps)).await;
    stage.close(&|_| {}).await;
    let own = root.canonicalize().unwrap().join("experiments");
    let _ = std::fs::remove_dir_all(postgres::outside(&own));
    std::fs::remove_dir_all(&root).unwrap();
    let played = played.unwrap();
    let journal = &played.journal;
    assert_eq!(journal.faults.len(), catalogue().len());
    let mut injected = 0;
    for fault in &journal.faults {
        let doubt = fault.doubt.as_deref().unwrap_or_default();
        let unseen = format!("{}: it was injected and could not be seen: ", fault.fault);
        if fault.injected_ms.is_some() {
            injected += 1;
            assert!(doubt.starts_with(&unseen), "{fault:?}");
        }
        let reasons = &journal.audit.reasons;
        assert!(reasons.iter().any(|why| why == doubt), "{reasons:#?}");
    }
    // all at once is much for a busy machine; each alone is looked at above
    assert!(injected * 4 >= catalogue().len() * 3, "{injected}");
    // all else was well
    assert_eq!(
        journal.audit.classes.keys().collect::<Vec<_>>(),
        [&Class::Ok]
    );
    assert_eq!(played.verdict, Verdict::Inconclusive);
    assert_eq!(played.verdict.exit_code(), 3);
    assert_eq!(journal.outcome, Outcome::Inconclusive);
}

/// `lab up` in a process of its own.
struct Up {
    child: Child,
    root: PathBuf,
    log: PathBuf,
}

impl Up {
    async fn start(root: &Path, faults: bool) -> Self {
        let log = root.with_extension("log");
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(root);
        command.args(["up", "--yes", "--sender", "1", "--receiver", "1"]);
        command.args(["--port", &port().to_string()]);
        if faults {
            command.arg("--faults");
        }
        let output = File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(output).spawn().unwrap();
        let up = Self {
            child,
            root: root.to_owned(),
            log,
        };
        up.says("ready after").await;
        up
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn says(&self, what: &str) {
        wait_until(&format!("`lab up` to say: {what}"), LIMIT, async || {
            let said = self.said();
            if said.contains(what) {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(lab());
        command
            .arg("--lab-dir")
            .arg(&self.root)
            .arg("fault")
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    async fn fault(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    async fn active(&self) -> Vec<Value> {
        let output = self.fault(&["active", "--json"]).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// One that is refused, with its one line.
    async fn refused(&self, arguments: &[&str]) -> String {
        let output = self.fault(arguments).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        said
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(pid) = self.child.id() {
            signal(pid, Signal::SIGTERM);
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_healed_whoever_dies_meanwhile_and_what_cannot_be_done_is_one_line() {
    let root = folder();
    let mut up = Up::start(&root, false).await;
    for (arguments, why) in [
        (
            &["inject", "receiver-kil"][..],
            "there is no fault receiver-kil",
        ),
        (
            &["inject", "receiver-kill", "--on", "nobody"],
            "there is no receiver nobody",
        ),
        (&["inject", "redis-kill", "--set", "x=1"], "no argument x"),
        (&["inject", "redis-kill", "--on", "a"], "cannot be on a"),
        (&["inject", "redis-link-cut"], "lab up --faults"),
        (&["heal", "nothing-1"], "no fault nothing-1 is active"),
    ] {
        let said = up.refused(arguments).await;
        assert!(said.contains(why), "{said}");
    }
    let list = said(&up.fault(&["list"]).await);
    assert!(list.contains("this stack has no proxies"), "{list}");
    assert_eq!(
        said(&up.fault(&["heal", "--all"]).await).trim(),
        "no fault is active"
    );

    load_asks_first(&up).await;

    // the command is told to end, and then another is killed
    for how in [Signal::SIGINT, Signal::SIGKILL] {
        let child = up
            .command(&["inject", "receiver-pause", "--for", "10m"])
            .spawn()
            .unwrap();
        wait_until("the pause to be seen", LIMIT, async || {
            let active = up.active().await;
            active.iter().any(|one| one["now"]["is"] == "seen")
        })
        .await;
        signal(child.id().unwrap(), how);
        let output = child.wait_with_output().await.unwrap();
        if how == Signal::SIGINT {
            let said = said(&output);
            assert!(
                said.contains("injected") && said.contains("seen: "),
                "{said}"
            );
            assert!(said.contains("healed: "), "{said}");
        }
        wait_until("nothing to be active", LIMIT, async || {
            let active = up.active().await;
            if active.is_empty() {
                Ok(())
            } else {
                Err(active)
            }
        })
        .await;
    }

    // one that ends with the programs, one in the broker's data, one that is stopped
    for fault in ["receiver-kill", "queue-limit", "sender-pause"] {
        let injected = said(&up.fault(&["inject", fault]).await);
        assert!(
            injected.contains("seen: ") && injected.contains("` heals it"),
            "{injected}"
        );
    }
    assert_eq!(up.active().await.len(), 3);
    up.child.kill().await.unwrap();
    let refused = up.refused(&["inject", "redis-kill"]).await;
    assert!(refused.contains("was killed"), "{refused}");
    let healed = said(&up.fault(&["heal", "--all"]).await);
    assert_eq!(healed.lines().count(), 3, "{healed}");
    assert!(
        healed.contains("queue-limit on queue messages: in the broker's data"),
        "{healed}"
    );
    assert_eq!(notes(&root), 1);
    drop(up);

    let up = Up::start(&root, true).await;
    assert!(
        up.said()
            .contains("the fault queue-limit on queue messages is over"),
        "{}",
        up.said()
    );
    assert_eq!(notes(&root), 0);
    let list = said(&up.fault(&["list"]).await);
    assert!(!list.contains("not native"), "{list}");
    let injected = said(
        &up.fault(&["inject", "redis-link-silent", "--for", "1s", "--on", "all"])
            .await,
    );
    assert!(
        injected.contains("no answer through the proxy"),
        "{injected}"
    );
    assert!(injected.contains("healed: "), "{injected}");
    // a stack that ends leaves nothing
    said(&up.fault(&["inject", "queue-limit"]).await);
    let mut up = up;
    signal(up.child.id().unwrap(), Signal::SIGINT);
    assert!(up.child.wait().await.unwrap().success());
    assert_eq!(notes(&root), 0);
    assert!(dir::holder(&root).is_none());
    assert_eq!(clear_up(&root.canonicalize().unwrap()).await, 0);
    let _ = std::fs::remove_dir_all(postgres::outside(&root.canonicalize().unwrap()));
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::remove_file(&up.log).unwrap();
    let refused = up.refused(&["inject", "redis-kill"]).await;
    assert!(refused.contains("no stack runs"), "{refused}");
}

/// A load on a stack that is broken is refused, unless that is meant; its table knows what came of it.
async fn load_asks_first(up: &Up) {
    let load = async |arguments: &[&str]| {
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(&up.root).arg("load");
        command.args(["--total", "20", "--rate", "100"]);
        command.args(arguments).output().await.unwrap()
    };
    let slow = ["--set", "delay-min=1ms", "--set", "delay-max=5ms"];
    said(
        &up.fault(&[&["inject", "work-slow"], &slow[..]].concat())
            .await,
    );
    let refused = load(&[]).await;
    let why = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{why}");
    assert!(
        why.lines().count() == 1 && why.contains("work-slow on "),
        "{why}"
    );
    assert!(
        why.contains("fault heal --all") && why.contains("--despite-faults"),
        "{why}"
    );
    assert!(!up.root.join("runs").exists() && refused.stdout.is_empty());

    let table = said(&load(&["--despite-faults"]).await);
    assert!(table.contains("\naccepted to processed "), "{table}");
    let figures = said(&load(&["--despite-faults", "--json"]).await);
    let figures: Value = serde_json::from_str(&figures).unwrap();
    assert_eq!(figures["accepted"], 20);
    assert_eq!(
        (&figures["stored"], &figures["on_their_way"]),
        (&json!(20), &json!(0))
    );
    let times = ["p50", "p90", "p99", "p99_9", "max"];
    let times = times.map(|name| figures["processed_us"][name].as_u64().unwrap());
    assert!(times[0] > 0 && times.is_sorted(), "{figures}");
    said(&up.fault(&["heal", "--all"]).await);
}

/// How many faults are noted as active.
fn notes(root: &Path) -> usize {
    std::fs::read_dir(root.join("faults")).map_or(0, Iterator::count)
}
