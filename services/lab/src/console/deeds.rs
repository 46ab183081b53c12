//! What can be done at the console: turn knobs, break and mend, offer a load, send messages.
//!
//! Each deed is one handler at two addresses: `/lab/..` for forms, which are sent back to the page, and `/lab/api/..` for
//! programs, which get JSON. Who may do it was decided before ([`super::guard`]). A deed that was begun is brought to its
//! end also when its client leaves.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, post};
use axum::{Json, Router};
use daemon::clock;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;
use web::Error;

use super::app::App;
use super::fields::{ARGS, Fields, Kind};
use super::knobs::{self, ALL};
use crate::faults::over_socket::Ask;
use crate::faults::{NO_TIME, Order, Which, find};
use crate::load::plan::SIZE_MAX;
use crate::load::{Plan, length};
use crate::say::Usage;

/// The most that a browser may ask for; the command has no such limits.
const RATE_MAX: f64 = 10_000.0;
const LENGTH_MAX: Duration = Duration::from_hours(1);
const BURST: u64 = 100;
const SEND_TRIES: u32 = 5;
const SEND_LIMIT: Duration = Duration::from_secs(20);
/// The work of a message that begins so fails at every attempt.
const POISON: &str = "poison: ";

fn all() -> [(&'static str, &'static str, MethodRouter<App>); 7] {
    [
        ("/lab/knobs", "/lab/api/knobs", post(turn)),
        ("/lab/faults", "/lab/api/faults", post(inject)),
        ("/lab/faults/heal", "/lab/api/faults/heal", post(heal_all)),
        (
            "/lab/faults/{id}/heal",
            "/lab/api/faults/{id}/heal",
            post(heal),
        ),
        ("/lab/load", "/lab/api/load", post(load)),
        ("/lab/load/stop", "/lab/api/load/stop", post(stop_load)),
        ("/lab/messages", "/lab/api/messages", post(send)),
    ]
}

/// All that is posted here.
pub fn paths() -> Vec<&'static str> {
    let both = all().into_iter().map(|(page, api, _)| [page, api]);
    both.flatten().collect()
}

/// For forms.
pub fn pages(app: App) -> Router {
    let add = |routes: Router<App>, (page, _, deed)| routes.route(page, deed);
    all().into_iter().fold(Router::new(), add).with_state(app)
}

/// For programs.
pub fn api(app: App) -> Router {
    let add = |routes: Router<App>, (_, api, deed)| routes.route(api, deed);
    all().into_iter().fold(Router::new(), add).with_state(app)
}

fn done(uri: &Uri, value: Value, back: &str) -> Response {
    if uri.path().starts_with("/lab/api/") {
        Json(value).into_response()
    } else {
        Redirect::to(back).into_response()
    }
}

/// What cannot be done as it was asked for, or could not be done.
fn wrong(error: anyhow::Error) -> Error {
    match error.downcast::<Usage>() {
        Ok(Usage(why)) => Error::unprocessable(why),
        Err(error) => {
            let said = format!("{error:#}");
            Error::new(StatusCode::BAD_GATEWAY, said).because(error)
        }
    }
}

fn usage(Usage(why): Usage) -> Error {
    Error::unprocessable(why)
}

async fn turn(State(app): State<App>, uri: Uri, fields: Fields) -> Result<Response, Error> {
    let numbers = knobs::NUMBERS.map(|(name, ..)| name);
    let others = ["target", "clear", "failure_action"];
    fields.only(&[&others[..], &numbers].concat())?;
    for name in numbers {
        fields.sent_as(name, Kind::Number)?;
    }
    fields.text("failure_action")?;
    let target = fields.text("target")?.unwrap_or(ALL).to_owned();
    let node = |name: &str| app.picture().nodes.iter().any(|node| node.name == name);
    if target != ALL && !node(&target) {
        return Err(Error::unprocessable(format!(
            "There is no node {target:?}."
        )));
    }
    let done_so = if fields.flag("clear")? {
        app.knobs.clear(&target).await
    } else {
        let change = knobs::change(&fields.texts()).map_err(usage)?;
        app.knobs.set(&target, change).await
    };
    done_so.map_err(|error| match error.downcast::<Usage>() {
        Ok(why) => usage(why),
        Err(error) => Error::away("Redis is away, and knobs are turned through it.").because(error),
    })?;
    let turned = app.knobs.read().await.unwrap_or_default();
    Ok(done(&uri, json!(turned), "/lab#knobs"))
}

async fn inject(State(app): State<App>, uri: Uri, fields: Fields) -> Result<Response, Error> {
    fields.only(&["fault", "on", "for", "seed", ARGS])?;
    let fault = fields.text("fault")?.unwrap_or_default();
    let entry = find(fault).map_err(usage)?;
    let faults = app.ground.faults().await;
    let why = faults
        .iter()
        .find(|(one, _)| one.name == entry.name)
        .and_then(|(_, why)| *why);
    if let Some(why) = why {
        return Err(Error::unprocessable(format!("{fault}: {why}.")));
    }
    let on = fields.text("on")?.unwrap_or_default();
    let mut order = Order::new(fault).on(Which::from(on.to_owned()));
    order.seed = fields.number("seed")?.unwrap_or_else(rand::random);
    for (name, value) in fields.args()? {
        order = order.with(name, value);
    }
    let order = entry.check(&order).map_err(usage)?;
    let time = fields.text("for")?.map(length::parse);
    let time = time.transpose().map_err(usage)?;
    if time.is_some_and(|time| time.is_zero()) {
        return Err(Error::unprocessable(format!("for is 0s: {NO_TIME}.")));
    }
    if time.is_some_and(|time| time > LENGTH_MAX) {
        return Err(Error::unprocessable(
            "for is an hour at most; a fault without it stays until it is healed.",
        ));
    }
    // the answer comes with the evidence; what ends it later needs nobody who waits
    let asked = app
        .ground
        .fault(Ask::Inject { order, time: None })
        .await
        .map_err(wrong)?;
    if let (Some(time), Some(id)) = (time, asked["id"].as_str()) {
        app.heal_in(time, id.to_owned());
    }
    Ok(done(&uri, asked, "/lab#faults"))
}

impl App {
    /// Heals it after a time. A console that dies before that leaves it to be healed by hand: it is on every page.
    fn heal_in(&self, time: Duration, id: String) {
        let app = self.clone();
        let after = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let at = clock::now().timestamp_millis().saturating_add(after);
        self.healing.plan(id.clone(), at);
        self.life.spawn_once("heal in time", async move {
            let stopping = app.stopping.clone();
            if stopping.run_until_cancelled(sleep(time)).await.is_some() {
                let active = app.ground.notes().all().unwrap_or_default();
                if active.iter().any(|one| one.id == id) {
                    let ask = Ask::Heal {
                        id: Some(id.clone()),
                    };
                    if let Err(error) = app.ground.fault(ask).await {
                        tracing::error!("a fault was not healed in time: {error:#}");
                    }
                }
            }
            app.healing.forget(&id);
            Ok(())
        });
    }
}

async fn heal(State(app): State<App>, uri: Uri, Path(id): Path<String>) -> Result<Response, Error> {
    let healed = app
        .ground
        .fault(Ask::Heal { id: Some(id) })
        .await
        .map_err(wrong)?;
    Ok(done(&uri, healed, "/lab#faults"))
}

async fn heal_all(State(app): State<App>, uri: Uri) -> Result<Response, Error> {
    let healed = app
        .ground
        .fault(Ask::Heal { id: None })
        .await
        .map_err(wrong)?;
    Ok(done(&uri, healed, "/lab#faults"))
}

/// The load that is asked for. Its rate must be said; the rest has what is usual here.
fn wanted(fields: &Fields) -> Result<Plan, Error> {
    fields.only(&["rate", "for", "size", "poison", "seed"])?;
    let refuse = |name, why: String| {
        let name = fields.called(name);
        Err(Error::unprocessable(format!("{name} {why}.")))
    };
    let Some(rate) = fields.number::<f64>("rate")? else {
        return refuse(
            "rate",
            "is needed: how many a second, such as 20".to_owned(),
        );
    };
    if !(rate > 0.0 && rate <= RATE_MAX) {
        let why = format!("is above 0 and at most {RATE_MAX} a second");
        return refuse("rate", why);
    }
    let time = fields.text("for")?.unwrap_or("60s");
    let time = length::parse(time).map_err(usage)?;
    if time.is_zero() {
        return refuse("for", "is 0s: a load takes some time".to_owned());
    }
    if time > LENGTH_MAX {
        return refuse("for", "is an hour at most".to_owned());
    }
    let size: usize = fields.number("size")?.unwrap_or(100);
    if !(1..=SIZE_MAX).contains(&size) {
        return refuse("size", format!("is {size}; right is 1 to {SIZE_MAX}"));
    }
    let seed = fields.number("seed")?;
    let plan = Plan {
        rate: rate.to_string().parse().map_err(usage)?,
        length: Some(time),
        size,
        seed: seed.unwrap_or_else(|| rand::random_range(1..1_000_000)),
        ..Plan::default()
    };
    let count = plan.schedule().map_err(usage)?.count();
    let poison: u64 = fields.number("poison")?.unwrap_or(0);
    if poison > count {
        let why = format!("is {poison}, and there are {count} messages only");
        return refuse("poison", why);
    }
    Ok(Plan { poison, ..plan })
}

async fn load(State(app): State<App>, uri: Uri, fields: Fields) -> Result<Response, Error> {
    let plan = wanted(&fields)?;
    let load = app
        .loads
        .start(&app.ground, &app.root, plan)
        .await
        .map_err(wrong)?;
    Ok(done(&uri, json!(load), "/lab#load"))
}

async fn stop_load(State(app): State<App>, uri: Uri) -> Result<Response, Error> {
    let load = app.loads.stop().await.map_err(wrong)?;
    Ok(done(&uri, json!({ "stopped": load }), "/lab#load"))
}

/// One message, or a burst of 100; of poison, if wanted.
async fn send(State(app): State<App>, uri: Uri, fields: Fields) -> Result<Response, Error> {
    fields.only(&["count", "poison", "text"])?;
    let count: u64 = fields.number("count")?.unwrap_or(1);
    if count != 1 && count != BURST {
        return Err(Error::unprocessable(format!("count is 1 or {BURST}.")));
    }
    let mark = if fields.flag("poison")? { POISON } else { "" };
    let said = fields.text("text")?.unwrap_or("from the console");
    let text = |n: u64| {
        let place = if count == 1 {
            String::new()
        } else {
            format!(" ({n} of {count})")
        };
        json!({ "message": format!("{mark}{said}{place}") })
    };
    let messages: Vec<Value> = (1..=count).map(text).collect();
    let body = if count == 1 {
        messages.into_iter().next().unwrap_or_default()
    } else {
        messages.into()
    };
    let gateway = app.ground.sight().await.map_err(wrong)?.gateway;
    let answer = offer(&format!("{gateway}/api/messages"), &body).await?;
    Ok(done(&uri, answer, "/lab#load"))
}

/// Always with the same key, so that it counts once however often it is tried.
async fn offer(url: &str, body: &Value) -> Result<Value, Error> {
    let (client, key) = (Client::new(), Uuid::new_v4().to_string());
    let mut said = String::new();
    for attempt in 1..=SEND_TRIES {
        let request = client.post(url).header("idempotency-key", &key).json(body);
        match request.timeout(SEND_LIMIT).send().await {
            Ok(answer) if answer.status().is_success() => {
                return Ok(answer.json().await.unwrap_or_default());
            }
            Ok(answer) if answer.status().is_client_error() => {
                let problem: Value = answer.json().await.unwrap_or_default();
                let why = problem["detail"]
                    .as_str()
                    .unwrap_or("The sender refused it.");
                return Err(Error::unprocessable(why.to_owned()));
            }
            Ok(answer) => said = format!("it says {}", answer.status()),
            Err(error) => said = error.without_url().to_string(),
        }
        sleep(Duration::from_millis(200) * attempt).await;
    }
    let detail = format!("No sender said yes, so whether it was accepted is not known: {said}.");
    Err(Error::away(detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(form: &[(&str, &str)]) -> String {
        wanted(&Fields::form(form)).unwrap_err().detail().to_owned()
    }

    #[test]
    fn a_load_that_cannot_be_offered_is_refused_by_the_words_of_its_form() {
        let plan = wanted(&Fields::form(&[("rate", "5"), ("poison", "300")])).unwrap();
        assert_eq!((plan.size, plan.poison), (100, 300));
        assert_eq!(plan.schedule().unwrap().count(), 300);
        for (wrong, why) in [
            (&[("rate", "0")][..], "\"per second\" is above 0"),
            (&[], "\"per second\" is needed"),
            (&[("rate", "many")], "\"per second\" is \"many\""),
            (&[("rate", "5"), ("for", "0s")], "\"for\" is 0s"),
            (&[("rate", "5"), ("for", "2h")], "\"for\" is an hour"),
            (&[("rate", "5"), ("size", "0")], "\"bytes each\" is 0;"),
            (&[("rate", "5"), ("poison", "301")], "\"of them poison\" is"),
            (&[("rates", "5")], "no field \"rates\""),
        ] {
            let said = refused(wrong);
            assert!(said.contains(why) && !said.contains("--"), "{said}");
        }
    }
}
