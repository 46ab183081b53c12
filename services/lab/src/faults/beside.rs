//! Injects and heals on a stack that no `lab up` runs: one of Docker Compose, or one that is seen from inside its network.
//!
//! Nobody but the command itself keeps the harm: what is active is on disk, in a folder for each stack, and the next command
//! heals it.

use std::path::Path;

use anyhow::Result;

use super::Injector;
use super::compose::Compose;
use super::inside::Inside;
use crate::run::sight::{Elsewhere, Sight};

/// For the stack that flags or the environment describe; none, if they mean the native one.
pub async fn injector(root: &Path, elsewhere: &Elsewhere) -> Result<Option<Injector>> {
    let site = match (elsewhere.project().await?, &elsewhere.gateway) {
        (Some(project), _) => {
            let sight = project.sight().await?;
            Compose::site(&project, &sight)
        }
        (None, Some(gateway)) => Inside::site(&Sight::given(gateway, elsewhere).await?),
        (None, None) => return Ok(None),
    };
    let injector = Injector::new(site, &elsewhere.notes(root));
    Ok(Some(injector.of(elsewhere, root)))
}
