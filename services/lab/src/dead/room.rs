//! Dead letters in the console: what pages and the API have in common.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::http::StatusCode;
use messaging::receive::redrive::{Redrive, Selection, State};
use uuid::Uuid;
use web::Error;

use super::audits::{Audits, OfRun};
use super::fields::Fields;
use super::receivers::{Refused, Told};
use super::{Dead, api, pages, read};
use crate::console::access::Visitor;
use crate::service::api::conflict;

/// Dead letters on one page.
pub(super) const SHOWN: i64 = 100;
/// Messages a second, where nobody says.
pub(super) const PER_SECOND: u32 = 100;

/// What the routes stand on.
#[derive(Clone)]
pub struct Room {
    pub(super) dead: Dead,
    audits: Audits,
    /// How many somebody has discarded and was not told of yet, by the word of their session.
    discarded: Arc<Mutex<HashMap<String, i64>>>,
}

/// Notes that wait for their visitors; who never looks again is forgotten.
const NOTES: usize = 1_000;
/// Runs of an order that its page and its JSON tell of.
const RUNS: usize = 100;

/// What the list shows.
pub(super) struct Listed {
    pub(super) filter: Selection,
    /// Only dead letters below this number.
    pub(super) below: Option<i64>,
    pub(super) groups: Vec<read::Group>,
    pub(super) letters: Vec<read::Letter>,
    pub(super) orders: Vec<Redrive>,
}

/// One order, and what became of what it is about.
pub(super) struct Ordered {
    pub(super) order: Redrive,
    pub(super) outcome: read::Outcome,
    pub(super) runs: Vec<OfRun>,
    /// So many more are not looked at here; the command does.
    pub(super) more_runs: usize,
}

impl Ordered {
    /// Whether it will look different in a moment: it goes on, what it sent back is on its way, or it is being audited.
    pub(super) fn moves(&self) -> bool {
        self.order.state == State::Running
            || self.outcome.on_their_way > 0
            || self.runs.iter().any(|run| run.going.is_some())
    }
}

impl Room {
    /// Who looks and is asked, and who audits.
    pub fn new(dead: Dead, audits: Audits) -> Self {
        Self {
            dead,
            audits,
            discarded: Arc::default(),
        }
    }

    fn to_be_told(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.discarded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// So many were discarded by this visitor, whose next look at the list says so.
    pub(super) fn note(&self, visitor: &Visitor, discarded: i64) {
        let mut all = self.to_be_told();
        if all.len() >= NOTES {
            all.clear();
        }
        all.insert(visitor.csrf.clone(), discarded);
    }

    /// What was noted for this visitor, once.
    pub(super) fn noted(&self, visitor: &Visitor) -> Option<i64> {
        self.to_be_told().remove(&visitor.csrf)
    }

    /// For people.
    pub fn pages(&self) -> Router {
        pages::routes(self.clone())
    }

    /// The same for programs.
    pub fn api(&self) -> Router {
        api::routes(self.clone())
    }

    /// What fits the filter of a query, or of a form.
    pub(super) async fn list(&self, asked: &Fields) -> Result<Listed, Error> {
        let filter = asked.filter()?;
        let below = asked.get("below").and_then(|below| below.parse().ok());
        let (groups, letters, orders) = futures::try_join!(
            read::groups(&self.dead.ledger, &filter),
            read::letters(&self.dead.ledger, &filter, below.unwrap_or(i64::MAX), SHOWN),
            read::orders(&self.dead.ledger),
        )?;
        Ok(Listed {
            filter,
            below,
            groups,
            letters,
            orders,
        })
    }

    /// An order of this name.
    pub(super) async fn order(&self, id: Uuid) -> Result<Ordered, Error> {
        let (order, outcome, runs) = futures::try_join!(
            read::order(&self.dead.ledger, id),
            read::outcome(&self.dead.ledger, id),
            read::runs(&self.dead.ledger, id),
        )?;
        let order = order.ok_or_else(|| unknown(id))?;
        let more_runs = runs.len().saturating_sub(RUNS);
        let runs = runs.into_iter().take(RUNS).collect();
        let runs = self.audits.of(runs, order.ended_at).await?;
        Ok(Ordered {
            order,
            outcome,
            runs,
            more_runs,
        })
    }

    /// Has receivers begin an order.
    pub(super) async fn start(&self, id: Uuid) -> Result<Told, Error> {
        let told = self.dead.receivers.start(id).await;
        told.map_err(|refused| not_done(id, refused))
    }

    /// Has receivers end it.
    pub(super) async fn cancel(&self, id: Uuid) -> Result<Told, Error> {
        let told = self.dead.receivers.cancel(id).await;
        told.map_err(|refused| not_done(id, refused))
    }

    /// Has the runs of an order audited, which must be over; says which.
    pub(super) async fn audit(&self, id: Uuid) -> Result<Vec<String>, Error> {
        let seen = self.order(id).await?;
        if matches!(seen.order.state, State::Planned | State::Running) {
            let detail =
                "The redrive is not over: what it will still send back cannot be judged yet.";
            return Err(conflict(detail));
        }
        let runs: Vec<&OfRun> = seen.runs.iter().filter(|run| run.on_record).collect();
        if runs.is_empty() {
            let detail = "None of its messages is of a run that is on record here, and nothing else can be judged.";
            return Err(Error::unprocessable(detail));
        }
        for run in &runs {
            self.audits.begin(&run.run);
        }
        Ok(runs.iter().map(|run| run.run.clone()).collect())
    }
}

fn unknown(id: Uuid) -> Error {
    let detail = format!("There is no redrive {id}.");
    listed(Error::new(StatusCode::NOT_FOUND, detail).coded("no_such_redrive"))
}

fn not_done(id: Uuid, refused: Refused) -> Error {
    match refused {
        refused if refused.is_unknown() => unknown(id),
        Refused::Said { status: 409, .. } => listed(refused.into()),
        refused => refused.into(),
    }
}

/// With the way to what is parked and to the redrives that there are.
fn listed(error: Error) -> Error {
    let list = ("/lab/dead".to_owned(), "Dead letters and redrives");
    error.advised(list, "GET /lab/api/dead lists the last ones.".to_owned())
}
