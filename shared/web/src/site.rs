//! What a page can know about the process that serves it.

use std::{convert::Infallible, ops::Deref, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts as RequestParts};
use daemon::{node::Node, parts::Parts};

use crate::{error::Error, session::Sessions};

/// What the pages of one process know about it. An extractor in every handler under [`crate::wrap`]. Clones share it.
#[derive(Clone)]
pub struct Site(Arc<About>);

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
        Self(Arc::new(about))
    }
}

impl Deref for Site {
    type Target = About;

    fn deref(&self) -> &About {
        &self.0
    }
}

impl Site {
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
