//! A gateway that answers as a script says, and keeps what it was sent.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use lab::run::RunId;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What the gateway does with one try.
#[derive(Debug, Clone, Copy)]
pub(super) enum Do {
    Answer(u16),
    /// 503 with a problem's code.
    Away(&'static str),
    /// The same, as the second of two nodes that were asked.
    AwayAfterAnother(&'static str),
    /// The connection is closed without a word.
    Drop,
    /// When the gate is opened.
    Wait,
}

/// Of a number: what to do at each try; the last stands for all that follow.
pub(super) type Script = fn(u64) -> &'static [Do];

#[derive(Debug)]
pub(super) struct Try {
    pub(super) run: String,
    pub(super) body: String,
}

pub(super) struct Gateway {
    script: Script,
    pub(super) gate: Semaphore,
    pub(super) tries: Mutex<HashMap<String, Vec<Try>>>,
}

impl Gateway {
    pub(super) async fn start(script: Script) -> (Arc<Self>, String) {
        let gateway = Arc::new(Self {
            script,
            gate: Semaphore::new(0),
            tries: Mutex::default(),
        });
        let router = Router::new()
            .route("/api/messages", post(answer))
            .with_state(Arc::clone(&gateway));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        (gateway, url)
    }
}

async fn answer(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: String) -> Response {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (key, run) = (header("idempotency-key"), header("x-run"));
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    let number = run.parse::<RunId>().unwrap().number_of(&key).unwrap();
    let nth = {
        let mut tries = gateway.tries.lock().unwrap();
        let tries = tries.entry(key).or_default();
        tries.push(Try { run, body });
        tries.len() - 1
    };
    let script = (gateway.script)(number);
    match script[nth.min(script.len() - 1)] {
        Do::Answer(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Do::Away(code) => away(code, "503"),
        Do::AwayAfterAnother(code) => away(code, "503, 503"),
        // ends the connection's task, and says nothing about it
        Do::Drop => resume_unwind(Box::new(())),
        Do::Wait => {
            gateway.gate.acquire().await.unwrap().forget();
            StatusCode::ACCEPTED.into_response()
        }
    }
}

fn away(code: &str, asked: &'static str) -> Response {
    let problem = json!({"type": format!("urn:unacked:problem:{code}"), "status": 503});
    let head = [("x-upstream-status", asked)];
    (StatusCode::SERVICE_UNAVAILABLE, head, problem.to_string()).into_response()
}
