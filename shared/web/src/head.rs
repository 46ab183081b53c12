//! The figures at the top of every service's page: this node, what it has done, and sessions.

use askama::{Template, filters::HtmlSafe};
use chrono::{DateTime, Utc};

use crate::{
    chrome::Chrome,
    session::Figures,
    show::{NodeName, When, number},
    site::Site,
};

/// The same on every service's page but for the deed.
#[derive(Debug, Template)]
#[template(path = "head.html")]
pub struct Head {
    node: NodeName,
    deed: &'static str,
    count: String,
    started: When,
    last: Option<When>,
    figures: Option<Figures>,
}

impl Head {
    /// `deed` is what this service does to messages, such as "Accepted"; to so many since its start,
    /// the last at that time. Figures are absent while sessions are.
    pub fn new(
        site: &Site,
        chrome: &Chrome,
        deed: &'static str,
        (count, last): (u64, Option<DateTime<Utc>>),
        figures: Option<Figures>,
    ) -> Self {
        Self {
            node: chrome.node.clone(),
            deed,
            count: number(i64::try_from(count).unwrap_or(i64::MAX)),
            started: chrome.when(site.node.started_at),
            last: last.map(|last| chrome.when(last)),
            figures,
        }
    }
}

// Safe inside other templates: it is made of escaped parts.
impl HtmlSafe for Head {}
