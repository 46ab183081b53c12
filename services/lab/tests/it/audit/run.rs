//! A run that real nodes stored, processed and parked, and its record.

use std::path::PathBuf;
use std::time::Duration;

use lab::audit::drain::{self, Bounds};
use lab::audit::ledger::Ledger;
use lab::audit::{Circumstances, Report, audit};
use lab::run::requests::{Answer, Answered, Line, Offered, Recorder};
use lab::run::sight::{NodeSight, Sight};
use lab::run::{Meta, RunDir, RunId};
use lab::stack::node::Service;
use reqwest::StatusCode;
use serde_json::json;
use sqlx::AssertSqlSafe;
use testkit::{Process, Program};

use super::LIMIT;
use crate::world::{World, lab, ready};

/// A stack, and a run on it with its record.
pub(super) struct Run {
    pub(super) world: World,
    pub(super) nodes: Vec<Process>,
    pub(super) dir: RunDir,
    ledger: Ledger,
    recorder: Recorder,
    pub(super) root: PathBuf,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Run {
    pub(super) async fn new(receiver: impl Fn(Program) -> Program) -> Self {
        let world = World::new().await;
        let nodes = vec![
            world.sender("sender-1").start().await,
            receiver(world.receiver("receiver-1")).start().await,
        ];
        for node in &nodes {
            ready(node).await;
        }
        let root = std::env::temp_dir().join(format!("lab-audit-{}", world.database.name));
        let id = RunId::new();
        let mut meta = Meta::new(id.clone(), "load", 1, &nodes[0].url());
        meta.started_at = Some(meta.created_at);
        meta.ended_at = Some(meta.created_at);
        let dir = RunDir::create(&root, id, &meta).unwrap();
        Self {
            ledger: Ledger::new(&world.database.auditor_url).unwrap(),
            recorder: Recorder::create(&dir).unwrap(),
            world,
            nodes,
            dir,
            root,
        }
    }

    /// Posts a request as the load does, and puts on record what the client is told; `said` instead, if given.
    pub(super) async fn request(&mut self, number: u64, texts: &[&str], said: Option<Answer>) {
        let poison = texts[0].starts_with("poison:");
        self.recorder
            .append(&[Line::Offered(Offered {
                number,
                due_us: number * 1_000,
                messages: u32::try_from(texts.len()).unwrap(),
                poison,
            })])
            .unwrap();
        let body: Vec<_> = texts.iter().map(|text| json!({"message": text})).collect();
        let answer = crate::load::client()
            .post(format!("{}/api/messages", self.nodes[0].url()))
            .header("Idempotency-Key", self.dir.id().key(number))
            .header("X-Run", self.dir.id().as_str())
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(
            answer.status(),
            StatusCode::ACCEPTED,
            "{:?}",
            answer.text().await
        );
        let answer = said.unwrap_or(Answer::Accepted);
        self.recorder
            .append(&[Line::Answered(Answered {
                number,
                answer,
                tries: 1,
                done_us: number * 1_000 + 500,
            })])
            .unwrap();
    }

    fn sight(&self) -> Sight {
        let broker = &self.world.broker;
        let services = [Service::Sender, Service::Receiver];
        let nodes = self
            .nodes
            .iter()
            .zip(services)
            .map(|(node, service)| NodeSight {
                name: node.name().to_owned(),
                service,
                ops: node.ops_url(),
                address: node.url(),
                place: None,
            });
        Sight {
            gateway: self.nodes[0].url(),
            auditor_url: self.world.database.auditor_url.clone(),
            management: Some(self.world.servers.at.rabbitmq.management.clone()),
            vhost: broker.vhost.clone(),
            nodes: nodes.collect(),
            redrive_token: None,
            ..Sight::default()
        }
    }

    /// Waits until it is drained or stuck.
    pub(super) async fn watch(&self, recovery: Duration) -> Circumstances {
        let bounds = Bounds {
            recovery,
            unhealed: None,
        };
        let (sight, mut tell) = (self.sight(), |_: &str| {});
        let watching = drain::watch(&sight, &self.ledger, &self.dir, &bounds, &mut tell);
        let drain = tokio::time::timeout(LIMIT, watching).await.unwrap();
        Circumstances {
            drained: drain.drained,
            stuck: drain.stuck,
            doubts: drain.doubts,
            dead_max: 0,
            ..Circumstances::default()
        }
    }

    pub(super) async fn judge(&self, circumstances: &Circumstances) -> Report {
        audit(&self.ledger, &self.dir, circumstances).await.unwrap()
    }

    /// As the superuser.
    pub(super) async fn change(&self, sql: String) -> u64 {
        let done = sqlx::query(AssertSqlSafe(sql))
            .execute(&self.world.database.admin)
            .await;
        done.unwrap().rows_affected()
    }

    /// The `lab` program itself, on this run.
    pub(super) async fn command(&self, more: &[&str]) -> (i32, String) {
        let mut program = Program::new("lab", lab())
            .arg("--lab-dir")
            .arg(self.root.to_string_lossy());
        for arg in ["audit", "--run", self.dir.id().as_str()]
            .iter()
            .chain(more)
        {
            program = program.arg(*arg);
        }
        let (status, output) = program.output(LIMIT).await.unwrap();
        (status.code().unwrap(), output)
    }
}

/// Thirty requests, some of several messages, two poison, one whose client learned nothing.
pub(super) async fn a_good_run() -> (Run, Circumstances) {
    let mut run = Run::new(|receiver| receiver).await;
    for number in 0..30 {
        match number {
            7 | 19 => run.request(number, &["poison: always fails"], None).await,
            11 => {
                run.request(number, &["nobody knows"], Some(Answer::Unknown))
                    .await;
            }
            n if n % 5 == 0 => run.request(number, &["one", "two", "three"], None).await,
            _ => run.request(number, &["one"], None).await,
        }
    }
    let circumstances = run.watch(LIMIT).await;
    assert!(circumstances.drained, "{circumstances:?}");
    (run, circumstances)
}
