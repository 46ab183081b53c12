//! A stack in this process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use lab::say::Steps;
use lab::stack::dir::LabDir;
use lab::stack::node::Service;
use lab::stack::scene::Scene;
use lab::stack::servers::Given;
use lab::stack::{Options, Plan, Stack, postgres};
use reqwest::Client;
use serde_json::{Value, json};
use testkit::wait_until;
use tokio::sync::mpsc;

use super::{LIMIT, folder, port};
use crate::world::lab;

/// A stack in this process, as an experiment has it.
pub(super) struct Own {
    pub(super) stack: Arc<Stack>,
    pub(super) root: PathBuf,
}

impl Own {
    pub(super) async fn start() -> Self {
        let dir = LabDir::open(&folder()).unwrap();
        let root = dir.root().to_owned();
        let settings = [
            ("WORK_DELAY_MAX_MS", "50"),
            ("WORK_FAIL_ONE_IN", "0"),
            ("HEARTBEAT_SECS", "2"),
            // also then a crash is told of
            ("LOG", "error"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let options = Options {
            faults: true,
            console: false,
            settings: BTreeMap::from(settings),
            program: Some(lab().to_owned()),
            ..Options::default()
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

    pub(super) async fn fresh(&self, name: &str) {
        self.fresh_with(name, &[]).await;
    }

    pub(super) async fn fresh_with(&self, name: &str, settings: &[(&str, &str)]) {
        let settings = settings.iter();
        let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let scene = Scene {
            vhost: name.to_owned(),
            database: name.to_owned(),
            settings: settings.collect(),
            nodes: Plan::from([(Service::Sender, 1), (Service::Receiver, 2)]),
            ..Scene::default()
        };
        self.stack.fresh(scene, &Steps::new(&|_| {})).await.unwrap();
    }

    /// Waits until every node has all it needs: none is about to open a session, which declares and
    /// binds everything anew. Then sends a message and waits until it is processed.
    pub(super) async fn process_one(&self) {
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

    pub(super) async fn stop(self) {
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
