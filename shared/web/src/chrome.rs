//! The frame of every page: brand, tabs, the node that answers, and what is not as it should be.

use chrono::{DateTime, TimeDelta, Utc};
use daemon::{
    clock,
    parts::{Kind, State},
};

use crate::{
    show::{NodeName, When},
    site::Site,
    static_files,
};

/// A part that is still starting is worth a banner only after this long.
const START_LIMIT: TimeDelta = TimeDelta::seconds(3);

/// The tab that a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    /// The sender's page.
    Send,
    /// The receiver's page.
    Results,
    /// The lab's console.
    Lab,
    /// Its search, and what is known of one message.
    Messages,
    /// Its dead letters.
    Dead,
    /// Its experiments.
    Experiments,
    /// None of them.
    Other,
}

impl Tab {
    /// The tab of a path; for error pages.
    pub fn of(path: &str) -> Self {
        let mut steps = path.split('/').skip(1);
        match (steps.next().unwrap_or_default(), steps.next()) {
            ("" | "reset-session", _) => Self::Send,
            ("received", _) => Self::Results,
            ("lab", Some("messages")) => Self::Messages,
            ("lab", Some("dead")) => Self::Dead,
            ("lab", Some("experiments")) => Self::Experiments,
            ("lab", _) => Self::Lab,
            _ => Self::Other,
        }
    }
}

/// What `base.html` shows.
#[derive(Debug)]
pub struct Chrome {
    /// Of the window.
    pub title: String,
    /// The tab that is marked.
    pub tab: Tab,
    /// Instead of the tabs of all services, the first page of the only one that is behind this port.
    pub alone: Option<&'static str>,
    /// Behind the tabs that are always there: name and address of one for this service alone, the marked one.
    pub own_tab: Option<(&'static str, String)>,
    /// Who answers.
    pub node: NodeName,
    /// What is not as it should be.
    pub banners: Vec<Banner>,
    /// When the page was made.
    pub now: DateTime<Utc>,
    /// Addresses of the style sheets and scripts, with their content's hash.
    pub files: &'static static_files::Urls,
}

/// One thing that is not as it should be.
#[derive(Debug)]
pub struct Banner {
    /// Of the part, or of what else is the matter.
    pub name: &'static str,
    /// Red rather than amber.
    pub bad: bool,
    /// What is the matter.
    pub what: String,
    /// Since when.
    pub since: Option<When>,
    /// What it means for the reader.
    pub meaning: String,
    /// The technical reason.
    pub why: Option<String>,
}

impl Chrome {
    /// The frame of a page of this site.
    pub fn new(site: &Site, tab: Tab, title: impl Into<String>) -> Self {
        let now = clock::now();
        let states = site.parts.states();
        let off = site.guarantees_off.iter().map(guarantee_off);
        let away = states
            .iter()
            .filter_map(|(name, state)| banner(site, name, state, now));
        // What was done on purpose first: it may be the reason for the rest.
        let banners = off.chain(away);
        Self {
            title: title.into(),
            tab,
            alone: site.alone(),
            own_tab: site.own_tab(),
            node: NodeName::new(&site.node.name),
            banners: banners.collect(),
            now,
            files: static_files::urls(),
        }
    }

    /// A moment, as this page shows it.
    pub fn when(&self, moment: DateTime<Utc>) -> When {
        When::new(moment, self.now)
    }

    /// Says more precisely what it means that a part is away. Nothing changes when it is not.
    pub fn explain(&mut self, part: &str, meaning: impl Into<String>) {
        if let Some(banner) = self.banners.iter_mut().find(|banner| banner.name == part) {
            banner.meaning = meaning.into();
        }
    }

    /// Says something that is not the state of a part.
    pub fn warn(&mut self, what: impl Into<String>, meaning: impl Into<String>) {
        self.banners.push(Banner {
            name: "",
            bad: false,
            what: what.into(),
            since: None,
            meaning: meaning.into(),
            why: None,
        });
    }
}

fn guarantee_off((name, warning): &(&'static str, &'static str)) -> Banner {
    Banner {
        name: "",
        bad: true,
        what: format!("Guarantee off: {name}"),
        since: None,
        meaning: (*warning).to_owned(),
        why: None,
    }
}

fn banner(site: &Site, name: &'static str, state: &State, now: DateTime<Utc>) -> Option<Banner> {
    let (what, bad) = match state.kind {
        Kind::Up => return None,
        Kind::Starting if now - state.since < START_LIMIT => return None,
        Kind::Starting => ("is not ready yet", false),
        Kind::Blocked => ("holds back", false),
        Kind::Away => ("is away", name == "postgres"),
    };
    let meaning = site.meanings.iter().find(|(part, _)| *part == name);
    Some(Banner {
        name,
        bad,
        what: format!("{} {what}", spoken(name)),
        // What has not begun has been so from the start.
        since: (state.kind != Kind::Starting).then(|| When::new(state.since, now)),
        meaning: meaning
            .map(|(_, meaning)| (*meaning).to_owned())
            .unwrap_or_default(),
        why: state.why.clone(),
    })
}

fn spoken(part: &str) -> &str {
    match part {
        "postgres" => "PostgreSQL",
        "rabbitmq" => "RabbitMQ",
        "redis" => "Redis",
        other => other,
    }
}
