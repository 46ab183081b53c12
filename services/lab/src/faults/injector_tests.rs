//! Notes of what is no more, and of what was done in part.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::*;
use crate::faults::inside::Inside;
use crate::faults::site::{Identity, Life, LinkSight, Look};
use crate::faults::{Aim, Which};
use crate::run::sight::{NodeSight, Sight};
use crate::stack::node::Service;
use crate::stack::servers::Which as Server;

#[path = "../../tests/it/faults/nothing.rs"]
mod nothing;

use nothing::Nothing;

/// A stack of containers as it is told of: these receivers run, or nobody answers.
#[derive(Default)]
struct Told {
    receivers: Option<Vec<&'static str>>,
    /// Of these the broker lists connections.
    connected: Vec<&'static str>,
    released: Mutex<Vec<String>>,
    /// So often nobody answers who is to be healed.
    deaf: Mutex<u32>,
}

impl Told {
    fn receivers(&self) -> Result<&[&'static str]> {
        self.receivers
            .as_deref()
            .context("no Docker engine answers")
    }

    fn is_listed(&self, target: &Target) -> Result<bool> {
        let all = self.receivers()?;
        Ok(all.iter().any(|name| *name == target.to_string()))
    }

    fn release(&self, target: &Target) -> Result<()> {
        anyhow::ensure!(self.is_listed(target)?, "there is no node {target}");
        let mut deaf = self.deaf.lock().unwrap();
        if *deaf > 0 {
            *deaf -= 1;
            anyhow::bail!("nobody answers");
        }
        self.released.lock().unwrap().push(target.to_string());
        Ok(())
    }
}

#[async_trait]
impl Look for Told {
    async fn nodes(&self) -> Result<Vec<NodeSight>> {
        let nodes = self.receivers()?.iter().map(|name| NodeSight {
            name: (*name).to_owned(),
            service: Service::Receiver,
            ops: String::new(),
            address: String::new(),
            place: None,
        });
        Ok(nodes.collect())
    }
    async fn listed(&self, target: &Target, _: Option<&str>) -> Result<bool> {
        self.is_listed(target)
    }
    async fn identity(&self, target: &Target) -> Result<Option<Identity>> {
        anyhow::ensure!(self.is_listed(target)?, "there is no node {target}");
        Ok(Some(Identity {
            name: "container a".to_owned(),
            started: "later".to_owned(),
        }))
    }
    async fn life(&self, target: &Target, was: &Identity) -> Result<Life> {
        let now = self.identity(target).await?;
        Ok(if now.as_ref() == Some(was) {
            Life::Runs
        } else {
            Life::Gone
        })
    }
    async fn answers(&self, target: &Target) -> Result<bool> {
        let released = self.released.lock().unwrap();
        Ok(released.contains(&target.to_string()))
    }
    async fn broker(&self, _: &[&str]) -> Result<Option<Value>> {
        let each = self.connected.iter();
        let each = each.map(|name| json!({"name": name, "vhost": "/", "client_properties": {"connection_name": name}}));
        Ok(Some(each.collect()))
    }
    fn vhost(&self) -> String {
        "/".to_owned()
    }
    fn auditor_url(&self) -> Result<String> {
        anyhow::bail!("no database")
    }
    async fn ops(&self, _: &str, _: &str) -> Result<Value> {
        anyhow::bail!("nobody answers")
    }
    async fn log(&self, _: &str, _: &Identity, _: DateTime<Utc>) -> Result<Option<String>> {
        Ok(None)
    }
    async fn link(&self, _: &str, _: Server) -> Result<LinkSight> {
        anyhow::bail!("no proxies")
    }
}

/// An injector in a folder of its own, and what it is on.
struct Room {
    injector: Injector,
    told: Arc<Told>,
    root: PathBuf,
}

impl Room {
    fn of(told: Told) -> Self {
        let root =
            std::env::temp_dir().join(format!("lab-injector-{:016x}", rand::random::<u64>()));
        let told = Arc::new(told);
        let heard = Arc::clone(&told);
        let harm = Nothing {
            on_release: Some(Box::new(move |target| heard.release(target))),
        };
        let site = Site {
            look: Arc::<Told>::clone(&told),
            harm: Arc::new(harm),
        };
        Self {
            injector: Injector::new(site, &root),
            told,
            root,
        }
    }

    /// Notes a fault that was done to these before.
    fn note(&self, fault: &str, struck: &[&str], before: Value) {
        let order = find(fault).unwrap();
        let order = order.check(&Order::new(fault).on(Which::All)).unwrap();
        let aim = Aim {
            struck: struck.iter().map(|name| (*name).to_owned()).collect(),
            before,
        };
        let mut active = Active::new(order, aim);
        active.seen = Some("it was seen".to_owned());
        self.injector.notes.write(&active).unwrap();
    }

    fn note_kill(&self, struck: &[&str]) {
        let was = struck.iter().map(|name| {
            let was = json!({"name": "container a", "started": "before"});
            ((*name).to_owned(), was)
        });
        self.note("receiver-kill", struck, Value::Object(was.collect()));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

#[tokio::test]
async fn a_fault_is_over_with_its_container() {
    let room = Room::of(Told {
        receivers: Some(vec!["receiver-new"]),
        ..Told::default()
    });
    room.note_kill(&["receiver-old"]);
    let active = room.injector.active().unwrap();
    let looked = room.injector.look(&active[0]).await.unwrap();
    assert!(matches!(looked, Evidence::HealedBySelf(_)), "{looked:?}");
    let healed = room.injector.heal_all().await.unwrap();
    let healed = healed[0].1.as_ref().unwrap();
    let how = "receiver-old is no more: what was done to it is over with it";
    assert_eq!((healed.how.as_str(), healed.by_itself), (how, true));
    assert_eq!(room.injector.active().unwrap(), []);
}

#[tokio::test]
async fn where_nobody_can_be_asked_the_note_stays() {
    let room = Room::of(Told::default());
    room.note_kill(&["receiver-old"]);
    let healed = room.injector.heal_all().await.unwrap();
    let why = format!("{:#}", healed[0].1.as_ref().unwrap_err());
    assert!(
        why.contains("cannot be healed") && why.contains("no Docker engine"),
        "{why}"
    );
    assert_eq!(room.injector.active().unwrap().len(), 1);
}

#[tokio::test]
async fn who_is_left_of_those_that_were_struck_is_healed() {
    let room = Room::of(Told {
        receivers: Some(vec!["receiver-new", "receiver-left"]),
        ..Told::default()
    });
    room.note_kill(&["receiver-old", "receiver-left"]);
    let healed = room.injector.heal_all().await.unwrap();
    let healed = healed[0].1.as_ref().unwrap();
    assert!(healed.how.contains("receiver-old is no more"), "{healed:?}");
    assert!(
        healed.how.contains("receiver-left: container a is gone"),
        "{healed:?}"
    );
    assert!(!healed.by_itself);
    assert_eq!(*room.told.released.lock().unwrap(), ["receiver-left"]);
    assert_eq!(room.injector.active().unwrap(), []);
}

#[tokio::test]
async fn what_is_done_at_once_is_over_even_if_less_was_done_than_ordered() {
    let room = Room::of(Told {
        receivers: Some(vec!["receiver-a"]),
        connected: vec!["receiver-a publisher"],
        ..Told::default()
    });
    let both = ["receiver-a publisher", "receiver-a consumer"];
    let each = both.map(|name| json!([name, name]));
    room.note(
        "rabbitmq-close-connection",
        &both,
        json!({"connections": each}),
    );
    let healed = room.injector.heal_all().await.unwrap();
    let healed = healed[0].1.as_ref().unwrap();
    assert!(healed.by_itself, "{healed:?}");
    assert_eq!(room.injector.active().unwrap(), []);
}

#[tokio::test]
async fn who_does_not_answer_yet_is_healed_a_little_later() {
    let room = Room::of(Told {
        receivers: Some(vec!["receiver-a"]),
        deaf: Mutex::new(3),
        ..Told::default()
    });
    room.note_kill(&["receiver-a"]);
    let healed = room.injector.heal_all().await.unwrap();
    let healed = healed[0].1.as_ref().unwrap();
    assert!(!healed.by_itself, "{healed:?}");
    assert_eq!(room.injector.active().unwrap(), []);
}

/// From inside, where these nodes were named, each with its host.
fn inside(root: &Path, nodes: &[(&str, &str)]) -> Injector {
    let nodes = nodes.iter().map(|(name, place)| NodeSight {
        name: (*name).to_owned(),
        service: Service::Receiver,
        ops: "http://127.0.0.1:1".to_owned(),
        address: String::new(),
        place: Some((*place).to_owned()),
    });
    let sight = Sight {
        nodes: nodes.collect(),
        ..Sight::default()
    };
    Injector::new(Inside::site(&sight), root).of(&Elsewhere::default(), root)
}

#[tokio::test]
async fn a_note_of_a_node_that_was_not_asked_for_stays() {
    let room = Room::of(Told::default());
    let order = Order::new("work-hang").on(Which::One("receiver-a".to_owned()));
    let order = find("work-hang").unwrap().check(&order).unwrap();
    let aim = Aim {
        struck: vec!["receiver-a".to_owned()],
        before: Value::Null,
    };
    let mut active = Active::new(order, aim);
    active.seen = Some("its knobs stand".to_owned());
    active.places = BTreeMap::from([("receiver-a".to_owned(), "a:9082:8082".to_owned())]);
    room.injector.notes.write(&active).unwrap();

    let others = inside(&room.root, &[("receiver-b", "b:9082:8082")]);
    let healed = others.heal_all().await.unwrap();
    let why = format!("{:#}", healed[0].1.as_ref().unwrap_err());
    assert!(
        why.contains("not among --nodes") && why.contains("--nodes a:9082:8082"),
        "{why}"
    );
    assert_eq!(others.active().unwrap().len(), 1);

    // whoever is behind that host by now, it is another
    let anew = inside(&room.root, &[("receiver-c", "a:9082:8082")]);
    let healed = anew.heal_all().await.unwrap();
    let healed = healed[0].1.as_ref().unwrap();
    assert!(
        healed.by_itself && healed.how.contains("is no more"),
        "{healed:?}"
    );
    assert_eq!(anew.active().unwrap(), []);
}
