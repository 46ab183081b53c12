//! What can be done at the console: turn knobs, break and mend, offer a load, send messages.
//!
//! Each deed is one handler at two addresses: `/lab/..` for forms, which are sent back to the page, and `/lab/api/..` for
//! programs, which get JSON. Who may do it was decided before ([`super::guard`]). A deed that was begun is brought to its
//! end also when its client leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{FromRequest, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, post};
use axum::{Form, Json, Router};
use reqwest::Client;
use serde_json::{Map, Value, json};
use tokio::time::sleep;
use uuid::Uuid;
use web::Error;

use super::app::App;
use super::knobs::{self, ALL};
use crate::faults::over_socket::Ask;
use crate::faults::{Order, Which, find};
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

/// What was sent: fields of a form, or of a JSON object; `{"args": {"x": 1}}` is the field `args.x`.
struct Fields(BTreeMap<String, String>);

impl FromRequest<App> for Fields {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        let media = request.headers().get(CONTENT_TYPE).cloned();
        let is = |wanted: &str| {
            let media = media.as_ref().and_then(|media| media.to_str().ok());
            media.is_some_and(|media| media.starts_with(wanted))
        };
        let mut fields = BTreeMap::new();
        if is("application/json") {
            let body = Json::<Map<String, Value>>::from_request(request, app).await;
            let Json(object) = body.map_err(|error| Error::bad_request(error.body_text()))?;
            flatten(&mut fields, "", object);
        } else if is("application/x-www-form-urlencoded") {
            let body = Form::<Vec<(String, String)>>::from_request(request, app).await;
            let Form(pairs) = body.map_err(|error| Error::bad_request(error.body_text()))?;
            for (name, value) in pairs {
                if fields.insert(name, value.trim().to_owned()).is_some() {
                    return Err(Error::bad_request("A field is there more than once."));
                }
            }
        } else {
            return Err(Error::unsupported("A form or JSON is needed."));
        }
        Ok(Self(fields))
    }
}

fn flatten(fields: &mut BTreeMap<String, String>, before: &str, object: Map<String, Value>) {
    for (name, value) in object {
        let name = format!("{before}{name}");
        match value {
            Value::Null => {}
            Value::Object(inner) => flatten(fields, &format!("{name}."), inner),
            Value::String(text) => drop(fields.insert(name, text)),
            other => drop(fields.insert(name, other.to_string())),
        }
    }
}

impl Fields {
    /// A field that says something.
    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    fn number<N: std::str::FromStr>(&self, name: &str, usual: N) -> Result<N, Error> {
        let Some(text) = self.get(name) else {
            return Ok(usual);
        };
        let wrong = |_| {
            Error::unprocessable(format!(
                "{name} is {text:?}, no number that can be used here."
            ))
        };
        text.parse().map_err(wrong)
    }

    fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "on" | "1" | "yes"))
    }
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
    let target = fields.get("target").unwrap_or(ALL).to_owned();
    let node = |name: &str| app.picture().nodes.iter().any(|node| node.name == name);
    if target != ALL && !node(&target) {
        return Err(Error::unprocessable(format!(
            "There is no node {target:?}."
        )));
    }
    let done_so = if fields.is("clear") {
        app.knobs.clear(&target).await
    } else {
        let change = knobs::change(&fields.0).map_err(usage)?;
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
    let fault = fields.get("fault").unwrap_or_default();
    let entry = find(fault).map_err(usage)?;
    let faults = app.ground.faults().await;
    let why = faults
        .iter()
        .find(|(one, _)| one.name == entry.name)
        .and_then(|(_, why)| *why);
    if let Some(why) = why {
        return Err(Error::unprocessable(format!("{fault}: {why}.")));
    }
    let mut order =
        Order::new(fault).on(Which::from(fields.get("on").unwrap_or_default().to_owned()));
    order.seed = fields.number("seed", rand::random())?;
    for (name, value) in &fields.0 {
        if let Some(name) = name.strip_prefix("args.")
            && !value.is_empty()
        {
            order = order.with(name, value);
        }
    }
    let order = entry.check(&order).map_err(usage)?;
    let time = fields
        .get("for")
        .map(length::parse)
        .transpose()
        .map_err(usage)?;
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
        self.life.spawn_once("heal in time", async move {
            let stopping = app.stopping.clone();
            if stopping.run_until_cancelled(sleep(time)).await.is_some() {
                let active = app.ground.notes().all().unwrap_or_default();
                if active.iter().any(|one| one.id == id)
                    && let Err(error) = app.ground.fault(Ask::Heal { id: Some(id) }).await
                {
                    tracing::error!("a fault was not healed in time: {error:#}");
                }
            }
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

async fn load(State(app): State<App>, uri: Uri, fields: Fields) -> Result<Response, Error> {
    let rate: f64 = fields.number("rate", 20.0)?;
    if !(rate > 0.0 && rate <= RATE_MAX) {
        return Err(Error::unprocessable(format!(
            "rate is above 0 and at most {RATE_MAX} a second."
        )));
    }
    let time = fields.get("for").unwrap_or("60s");
    let time = length::parse(time).map_err(usage)?;
    if time > LENGTH_MAX {
        return Err(Error::unprocessable("for is an hour at most."));
    }
    let plan = Plan {
        rate: rate.to_string().parse().map_err(usage)?,
        length: Some(time),
        size: fields.number("size", 100)?,
        poison: fields.number("poison", 0)?,
        seed: fields.number("seed", rand::random_range(1..1_000_000))?,
        ..Plan::default()
    };
    plan.schedule().map_err(usage)?;
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
    let count: u64 = fields.number("count", 1)?;
    if count != 1 && count != BURST {
        return Err(Error::unprocessable(format!("count is 1 or {BURST}.")));
    }
    let mark = if fields.is("poison") { POISON } else { "" };
    let said = fields.get("text").unwrap_or("from the console");
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

    #[test]
    fn fields_of_json_are_those_of_a_form() {
        let mut fields = BTreeMap::new();
        let object =
            json!({"fault": "x", "args": {"latency": "1s", "n": 3}, "twin": true, "for": null});
        let Value::Object(object) = object else {
            panic!("no object");
        };
        flatten(&mut fields, "", object);
        let pairs: Vec<(&str, &str)> = fields.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(
            pairs,
            [
                ("args.latency", "1s"),
                ("args.n", "3"),
                ("fault", "x"),
                ("twin", "true")
            ]
        );
        let fields = Fields(fields);
        assert!(fields.is("twin") && !fields.is("fault"));
        assert!(fields.number::<u64>("fault", 1).is_err());
    }
}
