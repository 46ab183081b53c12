//! What a page can know about the process that serves it.

use std::{convert::Infallible, ops::Deref, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts as RequestParts};
use daemon::{node::Node, parts::Parts};

use crate::{error::Error, session::Sessions, under::Under};

/// What the pages of one process know about it. An extractor in every handler under [`crate::wrap`]. Clones share it.
#[derive(Clone)]
pub struct Site {
    about: Arc<About>,
    own: Option<Own>,
    /// Where the request that it came with found it.
    under: Under,
}

/// Where a service is that has a port of its own, beside its path behind the common one.
#[derive(Clone, Copy)]
struct Own {
    name: &'static str,
    prefix: &'static str,
    home: &'static str,
}

/// What a [`Site`] knows.
pub struct About {
    /// Who answers.
    pub node: Arc<Node>,
    /// What it leans on.
    pub parts: Parts,
    /// The sessions that all services share.
    pub sessions: Sessions,
    /// What it means for the reader of this service's pages that a part is away: name, sentence.
    pub meanings: &'static [(&'static str, &'static str)],
    /// Guarantees that are switched off: name, what may happen.
    pub guarantees_off: Vec<(&'static str, &'static str)>,
}

impl From<About> for Site {
    fn from(about: About) -> Self {
        Self {
            about: Arc::new(about),
            own: None,
            under: Under::ROOT,
        }
    }
}

impl Deref for Site {
    type Target = About;

    fn deref(&self) -> &About {
        &self.about
    }
}

impl Site {
    /// Of a service with this name for people, that is under `prefix` behind the common port, and at the root of one of its own, where its first page is
    /// `home` and others' pages are not.
    #[must_use]
    pub fn at(mut self, name: &'static str, prefix: &'static str, home: &'static str) -> Self {
        self.own = Some(Own { name, prefix, home });
        self
    }

    /// For a request to this path.
    pub(crate) fn asked(&self, path: &str) -> Self {
        let mut site = self.clone();
        if let Some(Own { prefix, .. }) = self.own {
            site.under = Under::of(path, prefix);
        }
        site
    }

    /// Where the request found the service; links stay there.
    pub fn under(&self) -> Under {
        self.under
    }

    /// The first page of the service's own port, if that is where the request came in: the pages of others are not there.
    pub(crate) fn alone(&self) -> Option<&'static str> {
        let own = self.own.filter(|_| self.under == Under::ROOT);
        own.map(|own| own.home)
    }

    /// The service's own tab among those of all: its name, and its first page.
    pub(crate) fn own_tab(&self) -> Option<(&'static str, String)> {
        let own = self.own.filter(|_| self.under != Under::ROOT)?;
        let home = if own.home == "/" { "" } else { own.home };
        Some((own.name, self.under.page(home)))
    }

    /// Says at once that the database is away, where that is known, instead of waiting for it.
    pub fn need_database(&self) -> Result<(), Error> {
        if self.parts.usable(&["postgres"]) {
            Ok(())
        } else {
            Err(Error::database_away())
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Site {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut RequestParts, _: &S) -> Result<Self, Infallible> {
        let site = parts.extensions.get::<Self>();
        Ok(site
            .cloned()
            .expect("`wrap` puts the site into every request"))
    }
}
