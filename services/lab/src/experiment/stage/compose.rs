//! A stack of Docker Compose that runs already: its servers and its gateway stay, its nodes are made anew for each run.
//!
//! Each run has a vhost of its own, so that it finds no messages of another one, and may declare queues of another kind.
//! The database is shared; verdicts are per run. What the nodes were before is noted on disk before the first of them goes,
//! and put back in the end, by the next experiments if this program dies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use reqwest::{Client, Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

use super::{LOOK_EVERY, Scenery, told};
use crate::compose::Project;
use crate::experiment::file::Setup;
use crate::experiment::settings;
use crate::faults::compose::Compose as Faults;
use crate::faults::{Harm, Injector, http};
use crate::run::RunId;
use crate::run::sight::{Elsewhere, Sight};
use crate::say::{self, Tell, Usage};
use crate::stack::dir::{self, Lock, write_secret};
use crate::stack::node::Service;

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// What experiments say of nodes beside their settings.
const OURS: [&str; 4] = ["WITHOUT", "LAB_OPS", VHOST, TOKEN];
/// An experiment may have receivers send dead letters back.
const TOKEN: &str = "REDRIVE_TOKEN";
const VHOST: &str = "AMQP_VHOST";

/// What the stack was before the experiments, and what they left.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Before {
    counts: BTreeMap<Service, usize>,
    /// None: it was not set.
    settings: BTreeMap<String, Option<String>>,
    /// Made for runs.
    vhosts: Vec<String>,
}

impl Before {
    async fn of(project: &Project) -> Result<Self> {
        let all = project.look().await?;
        let nodes: Vec<_> = all.iter().filter(|one| one.role().is_some()).collect();
        let mut counts: BTreeMap<_, usize> = Service::MAIN.map(|service| (service, 0)).into();
        for service in nodes.iter().filter_map(|one| one.role()) {
            *counts.entry(service).or_default() += 1;
        }
        let usual = settings::usual(&Service::MAIN);
        let names = usual.keys().map(String::as_str).chain(OURS);
        let was = |name: &str| {
            let mut found = nodes.iter().filter_map(|one| one.environment.get(name));
            found.next().cloned()
        };
        let mut settings: BTreeMap<_, _> = names.map(|name| (name.to_owned(), was(name))).collect();
        // in the containers it is a part of AMQP_URL
        let url = nodes.iter().find_map(|one| one.environment.get("AMQP_URL"));
        let vhost = url.and_then(|url| Some(url.rsplit_once('/')?.1.to_owned()));
        settings.insert(VHOST.to_owned(), vhost);
        Ok(Self {
            counts,
            settings,
            vhosts: Vec::new(),
        })
    }
}

/// The stack, while it is the experiments'.
pub(super) struct Compose {
    project: Arc<Project>,
    elsewhere: Elsewhere,
    root: PathBuf,
    notes: PathBuf,
    /// As it stands on disk.
    before: Mutex<Before>,
    sight: Sight,
    client: Client,
    _lock: Lock,
}

impl Compose {
    /// Looks at the stack; nothing is changed yet.
    pub(super) async fn prepare(
        root: &Path,
        elsewhere: &Elsewhere,
        project: Arc<Project>,
    ) -> Result<Self> {
        let notes = elsewhere.notes(root);
        fs::create_dir_all(&notes).with_context(|| format!("cannot make {}", notes.display()))?;
        let Some(lock) = dir::lock(&notes)? else {
            let name = project.name();
            return Err(Usage(format!("experiments already run on the stack {name}")).into());
        };
        let left = fs::read(notes.join(FILE)).ok();
        let before = match left {
            Some(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{FILE} in {} is damaged", notes.display()))?,
            None => Before::of(&project).await?,
        };
        Ok(Self {
            sight: project.sight().await?,
            project,
            elsewhere: elsewhere.clone(),
            root: root.to_owned(),
            notes,
            before: Mutex::new(before),
            client: Client::new(),
            _lock: lock,
        })
    }

    /// Changes what is noted, on disk first.
    fn note(&self, change: impl FnOnce(&mut Before)) -> Result<()> {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = before.clone();
        change(&mut next);
        write_secret(
            &self.notes.join(FILE),
            &serde_json::to_string_pretty(&next)?,
        )?;
        *before = next;
        Ok(())
    }

    fn before(&self) -> Before {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.clone()
    }

    async fn manage(
        &self,
        method: Method,
        path: &[&str],
        body: Option<serde_json::Value>,
    ) -> Result<()> {
        let management = self.sight.management.as_deref().unwrap_or_default();
        http::manage(&self.client, management, method, path, body).await
    }

    async fn make_vhost(&self, name: &str) -> Result<()> {
        self.manage(Method::PUT, &["vhosts", name], Some(json!({})))
            .await?;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        let management = self.sight.management.as_deref().unwrap_or_default();
        let url: Url = management.parse()?;
        let path = ["permissions", name, url.username()];
        self.manage(Method::PUT, &path, Some(all)).await
    }

    /// Removes those of earlier runs; nobody uses them any more.
    async fn remove_vhosts(&self, but: Option<&str>) -> Result<()> {
        for name in self.before().vhosts {
            if but != Some(&name) {
                self.manage(Method::DELETE, &["vhosts", &name], None)
                    .await?;
                self.note(|noted| noted.vhosts.retain(|one| *one != name))?;
            }
        }
        Ok(())
    }

    /// The gateway finds new nodes by itself, a moment later.
    async fn through_the_gateway(&self) -> Result<()> {
        let (begun, url) = (Instant::now(), format!("{}/", self.sight.gateway));
        loop {
            let answer = self.client.get(&url).timeout(ANSWER_LIMIT).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if begun.elapsed() > ANSWER_LIMIT {
                bail!("the gateway finds no sender");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn put_back(&self) -> Result<()> {
        let before = self.before();
        self.project
            .remake(&before.counts, &before.settings)
            .await?;
        self.remove_vhosts(None).await?;
        fs::remove_file(self.notes.join(FILE)).context("cannot remove the note of what was before")
    }
}

const FILE: &str = "before.json";

#[async_trait]
impl Scenery for Compose {
    fn injector(&self, harm: Option<Arc<dyn Harm>>) -> Injector {
        let mut site = Faults::site(&self.project, &self.sight);
        if let Some(harm) = harm {
            site.harm = harm;
        }
        Injector::new(site, &self.notes).of(&self.elsewhere, &self.root)
    }

    async fn start(&self, _injector: &Injector) -> Result<&'static str> {
        // before the first node goes
        self.note(|_| {})?;
        Ok("the stack of Docker Compose is the experiments' until they end")
    }

    async fn set(&self, setup: &Setup, run: &RunId) -> Result<Sight> {
        let vhost = run.scene();
        // it is removed in the end
        if self.before().settings.get(VHOST) == Some(&Some(vhost.clone())) {
            let why = format!("the stack's own vhost is {vhost}; choose another name than {run}");
            return Err(Usage(why).into());
        }
        self.note(|noted| noted.vhosts.push(vhost.clone()))?;
        self.make_vhost(&vhost).await?;
        let before = self.before().settings.get(TOKEN).cloned().flatten();
        let token = before.filter(|token| !token.is_empty());
        let token = token.unwrap_or_else(|| Uuid::new_v4().to_string());
        let ours = [
            setup.without.to_string(),
            "true".to_owned(),
            vhost.clone(),
            token,
        ];
        let ours = OURS.map(str::to_owned).into_iter().zip(ours);
        let settings = setup.settings.clone().into_iter().chain(ours);
        let settings = settings.map(|(name, value)| (name, Some(value))).collect();
        self.project.remake(&setup.nodes, &settings).await?;
        let sight = self.project.sight().await?;
        let told = told::wait(&self.client, &sight.nodes).await?;
        if let Some(why) = told.differs(setup) {
            bail!(
                "the containers are not what was asked for ({why}); is the compose file of this version?"
            );
        }
        self.through_the_gateway().await?;
        self.remove_vhosts(Some(&vhost)).await?;
        Ok(sight)
    }

    async fn clear(&self) -> Result<()> {
        // the next run makes its own, and removes what this one had
        Ok(())
    }

    async fn close(&self, _injector: &Injector, tell: Tell<'_>) {
        if !self.notes.join(FILE).is_file() {
            return;
        }
        let begun = Instant::now();
        match self.put_back().await {
            Ok(()) => tell(&format!(
                "{:>7}  the stack is as it was before",
                say::seconds(begun.elapsed())
            )),
            Err(error) => tell(&format!(
                "the stack is not as it was before, the next experiments put it back: {error:#}"
            )),
        }
    }

    async fn abort(&self) {
        say::complain("the stack stays as it is; the next experiments put it back");
    }

    fn ready_limit(&self) -> Duration {
        Duration::from_secs(90)
    }

    fn left_over(&self) -> String {
        let heal = self.elsewhere.command(&self.root, "fault heal --all");
        format!("`{heal}` tries it again")
    }
}
