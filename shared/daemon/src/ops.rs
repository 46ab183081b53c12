//! The second port, for those who run the process: health, metrics and, when the lab is on, fail
//! points and knobs. The gateway never routes to it.
//!
//! `/health/live` says that the process can answer at all; it asks nothing of anybody, so that
//! nobody restarts a node because its database is away. `/health/ready` is 503 while a part that
//! the service cannot do without is unusable.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use chaos::{
    FailPointStatus, FailPoints, Knobs, WrongFailPoint,
    knobs::{Change, Settings},
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

use crate::{node::Node, parts::Parts, settings::AllSettings};

/// What the second port shows.
#[derive(Clone)]
pub struct OpsState {
    /// Who we are.
    pub node: Arc<Node>,
    /// How the parts are.
    pub parts: Parts,
    /// What the service says of itself.
    pub told: Told,
    /// The numbers, see [`crate::metrics_handle`].
    pub metrics: PrometheusHandle,
    /// The fail points.
    pub fail_points: FailPoints,
    /// Whether `/ops` exists.
    pub lab_ops: bool,
}

/// Says something as JSON, as it is when asked.
pub type Tell = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What a service says of itself on its second port.
#[derive(Clone, Default)]
pub struct Told {
    /// The parts that it cannot do without.
    pub ready_needs: &'static [&'static str],
    /// Names of the guarantees that are off.
    pub without: Vec<&'static str>,
    /// The knobs of its work, if it has some.
    pub knobs: Option<Knobs>,
    /// What it has taken of the knobs that all nodes share.
    pub shared_knobs: Option<Tell>,
    /// The settings that it was started with.
    pub settings: AllSettings,
}

/// The routes of the second port.
pub fn router(state: OpsState) -> Router {
    let mut router = Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics));
    if state.lab_ops {
        router = router
            .route("/ops/settings", get(settings))
            .route("/ops/fail-points", get(fail_points).put(put_fail_points));
        if let Some(knobs) = state.told.knobs.clone() {
            let routes = get(get_knobs).put(put_knobs);
            router = router.route("/ops/knobs", routes.with_state(knobs));
        }
        if let Some(tell) = state.told.shared_knobs.clone() {
            let shared = get(|| async move { Json(tell()) });
            router = router.route("/ops/knobs/shared", shared);
        }
    }
    router.with_state(state)
}

async fn settings(State(ops): State<OpsState>) -> Json<BTreeMap<String, String>> {
    Json(ops.told.settings.0)
}

async fn live(State(ops): State<OpsState>) -> Json<serde_json::Value> {
    Json(json!({
        "live": true,
        "node": ops.node.name,
        "service": ops.node.service,
        "since": ops.node.started_at,
    }))
}

async fn ready(State(ops): State<OpsState>) -> Response {
    let ready = ops.parts.usable(ops.told.ready_needs);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "ready": ready,
        "node": ops.node.name,
        "service": ops.node.service,
        "parts": ops.parts.states(),
        "without": ops.told.without,
    });
    (status, Json(body)).into_response()
}

async fn metrics(State(ops): State<OpsState>) -> Response {
    let format = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (format, ops.metrics.render()).into_response()
}

async fn fail_points(State(ops): State<OpsState>) -> Json<Vec<FailPointStatus>> {
    Json(ops.fail_points.status())
}

/// The body is a list as `FAIL_POINTS` takes it. It replaces the one before; an empty body disarms
/// everything.
async fn put_fail_points(
    State(ops): State<OpsState>,
    wanted: String,
) -> Result<Json<Vec<FailPointStatus>>, (StatusCode, String)> {
    let refused = |error: WrongFailPoint| (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n"));
    ops.fail_points.replace(&wanted).map_err(refused)?;
    tracing::warn!(fail_points = wanted, "fail points were set");
    Ok(Json(ops.fail_points.status()))
}

async fn get_knobs(State(knobs): State<Knobs>) -> Json<Settings> {
    Json(knobs.now())
}

/// The body is JSON and names what it changes.
async fn put_knobs(
    State(knobs): State<Knobs>,
    wanted: String,
) -> Result<Json<Settings>, (StatusCode, String)> {
    let refused = |why: String| (StatusCode::UNPROCESSABLE_ENTITY, format!("{why}\n"));
    // An array would do for a structure too, as long as its fields are in order.
    if !wanted.trim_start().starts_with('{') {
        return Err(refused("right is a JSON object".to_owned()));
    }
    let change: Change = serde_json::from_str(&wanted).map_err(|e| refused(e.to_string()))?;
    let settings = knobs.change(&change).map_err(|e| refused(e.to_string()))?;
    tracing::warn!(knobs = wanted, "knobs were turned");
    Ok(Json(settings))
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::{metrics_handle, node::NodeArgs};

    fn state(lab_ops: bool) -> OpsState {
        OpsState {
            node: Arc::new(NodeArgs::default().node("sender").unwrap()),
            parts: Parts::new(),
            told: Told {
                ready_needs: &["postgres"],
                settings: AllSettings(BTreeMap::from([("PREFETCH".to_owned(), "3".to_owned())])),
                ..Told::default()
            },
            metrics: metrics_handle(),
            fail_points: FailPoints::default(),
            lab_ops,
        }
    }

    async fn ask(state: &OpsState, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let answer = router(state.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_node_is_ready_when_what_it_needs_is_up_whatever_else_is_away() {
        let state = state(false);
        assert_eq!(ask(&state, "GET", "/health/ready", "").await.0, 503);
        state.parts.part("postgres").up();
        state.parts.part("rabbitmq").away("connection refused");
        let (status, body) = ask(&state, "GET", "/health/ready", "").await;
        assert_eq!(status, 200);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ready"], true);
        assert_eq!(body["service"], "sender");
        assert_eq!(body["parts"]["rabbitmq"]["state"], "away");
        assert_eq!(body["parts"]["rabbitmq"]["why"], "connection refused");
        assert!(body["parts"]["postgres"]["since"].is_string());
    }

    #[tokio::test]
    async fn a_node_lives_though_everything_is_away() {
        assert_eq!(ask(&state(false), "GET", "/health/live", "").await.0, 200);
    }

    #[tokio::test]
    async fn without_the_lab_there_are_no_ops() {
        assert_eq!(
            ask(&state(false), "GET", "/ops/fail-points", "").await.0,
            404
        );
        assert_eq!(ask(&state(false), "GET", "/ops/settings", "").await.0, 404);
    }

    #[tokio::test]
    async fn the_settings_are_told() {
        let told = ask(&state(true), "GET", "/ops/settings", "").await;
        assert_eq!(told, (StatusCode::OK, r#"{"PREFETCH":"3"}"#.to_owned()));
    }

    #[tokio::test]
    async fn fail_points_are_set_and_disarmed_from_outside() {
        let state = state(true);
        let (status, _) = ask(&state, "PUT", "/ops/fail-points", "settle.before_ack=park").await;
        assert_eq!(status, 200);
        let (_, body) = ask(&state, "GET", "/ops/fail-points", "").await;
        assert!(body.contains(r#""armed":"park""#), "{body}");
        let (_, body) = ask(&state, "PUT", "/ops/fail-points", "").await;
        assert!(!body.contains(r#""armed":""#), "{body}");
        assert_eq!(
            ask(&state, "PUT", "/ops/fail-points", "x=crash").await.0,
            422
        );
    }

    #[tokio::test]
    async fn guarantees_that_are_off_are_told_with_the_health() {
        let mut state = state(false);
        let without = async |state: &OpsState| -> Value {
            let (_, body) = ask(state, "GET", "/health/ready", "").await;
            serde_json::from_str::<Value>(&body).unwrap()["without"].clone()
        };
        assert_eq!(without(&state).await, json!([]));
        state.told.without = vec!["inbox"];
        assert_eq!(without(&state).await, json!(["inbox"]));
    }

    #[tokio::test]
    async fn knobs_are_turned_from_outside_one_at_a_time_and_nonsense_turns_none() {
        let mut state = state(true);
        assert_eq!(ask(&state, "GET", "/ops/knobs", "").await.0, 404);
        let settings = Settings {
            delay_min_ms: 0,
            delay_max_ms: 100,
            fail_one_in: 0,
            failure_action: chaos::knobs::FailureAction::Nack,
            prefetch: 16,
        };
        state.told.knobs = Some(Knobs::new(settings).unwrap());
        let turn = r#"{"failure_action": "drop", "delay_min_ms": 7}"#;
        assert_eq!(ask(&state, "PUT", "/ops/knobs", turn).await.0, 200);
        let expected = r#"{"delay_min_ms":7,"delay_max_ms":100,"fail_one_in":0,"failure_action":"drop","prefetch":16}"#;
        let now = ask(&state, "GET", "/ops/knobs", "").await;
        assert_eq!(now, (StatusCode::OK, expected.to_owned()));
        for (nonsense, said) in [
            ("", "right is a JSON object"),
            ("[1, 2]", "right is a JSON object"),
            ("{", "EOF while parsing"),
            (r#"{"speed": 3}"#, "unknown field `speed`"),
            (r#"{"fail_one_in": null}"#, "invalid type: null"),
            (r#"{"fail_one_in": -1}"#, "invalid value"),
            (r#"{"failure_action": "explode"}"#, "unknown variant"),
            (r#"{"delay_min_ms": 101}"#, "more than delay_max_ms"),
            (r#"{"prefetch": 0}"#, "right is 1 to 2000"),
            (r#"{"fail_one_in": 1} x"#, "trailing characters"),
        ] {
            let (status, why) = ask(&state, "PUT", "/ops/knobs", nonsense).await;
            assert_eq!(status, 422, "{nonsense}");
            assert!(why.contains(said), "{nonsense}: {why}");
        }
        assert_eq!(ask(&state, "GET", "/ops/knobs", "").await, now);
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        state(false).parts.part("ops_test").up();
        let (status, body) = ask(&state(false), "GET", "/metrics", "").await;
        assert_eq!(status, 200);
        assert!(body.contains(r#"part_up{part="ops_test"}"#), "{body}");
    }
}
