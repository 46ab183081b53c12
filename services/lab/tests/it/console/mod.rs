//! The console of a stack of the test's own, as a browser and as a program reach it: through the gateway.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use testkit::wait_until;

use crate::up::{LIMIT, Stack, signal};

mod dead;
mod experiments;
mod guard;
mod shows;
mod stopping;

const SOON: Duration = Duration::from_secs(30);

/// A browser of somebody who signed in, or did not.
struct Browser {
    client: Client,
    gateway: String,
    cookie: String,
    csrf: String,
}

impl Browser {
    fn new(stack: &Stack) -> Self {
        let client = Client::builder().redirect(Policy::none());
        Self {
            client: client.build().unwrap(),
            gateway: stack.gateway.clone(),
            cookie: String::new(),
            csrf: String::new(),
        }
    }

    async fn signed_in(stack: &Stack) -> Self {
        let mut browser = Self::new(stack);
        let answer = browser.show(&token(stack)).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[LOCATION]),
            (303, &"/lab".parse().unwrap())
        );
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap().to_owned();
        for flag in ["; HttpOnly", "; SameSite=Strict", "; Path=/lab"] {
            assert!(cookie.contains(flag), "{cookie}");
        }
        browser.cookie = cookie.split(';').next().unwrap().to_owned();
        let page = browser.get("/lab").await.text().await.unwrap();
        let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap();
        csrf.split('"')
            .next()
            .unwrap()
            .clone_into(&mut browser.csrf);
        assert_eq!(browser.csrf.len(), 64, "{page}");
        browser
    }

    async fn show(&self, token: &str) -> Response {
        let form = [("token", token)];
        self.ask(Method::POST, "/lab/sign-in")
            .form(&form)
            .send()
            .await
            .unwrap()
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("{}{path}", self.gateway));
        if self.cookie.is_empty() {
            request
        } else {
            request.header(COOKIE, &self.cookie)
        }
    }

    async fn get(&self, path: &str) -> Response {
        let answer = self.ask(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer
    }

    async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    /// A form as a person sends it; where its answer leads.
    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let fields = [fields, &[("csrf", &*self.csrf)]].concat();
        let sent = self.ask(Method::POST, path).form(&fields).send().await;
        let answer = sent.unwrap();
        let (status, place) = (answer.status(), answer.headers().get(LOCATION).cloned());
        assert_eq!(status, 303, "{path}: {}", answer.text().await.unwrap());
        place.unwrap().to_str().unwrap().to_owned()
    }

    /// The text of a page.
    async fn page(&self, path: &str) -> String {
        self.get(path).await.text().await.unwrap()
    }

    /// A deed as a program does it.
    async fn deed(&self, path: &str, body: &Value) -> Value {
        let request = self
            .ask(Method::POST, path)
            .header("x-csrf-token", &self.csrf);
        let answer = request.json(body).send().await.unwrap();
        let (status, said) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {said}");
        serde_json::from_str(&said).unwrap()
    }

    /// Waits until the state is so.
    async fn sees(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, SOON, async || {
            let state = self.json("/lab/api/state").await;
            if is(&state) {
                Ok(state)
            } else {
                Err(state.to_string())
            }
        })
        .await
    }
}

fn token(stack: &Stack) -> String {
    let secrets = fs::read(stack.folder.join("secrets.json")).unwrap();
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    secrets["console"].as_str().unwrap().to_owned()
}

fn actions(stack: &Stack) -> Vec<Value> {
    let log = fs::read_to_string(stack.folder.join("actions.log")).unwrap_or_default();
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn up(receivers: u8) -> Stack {
    let quick = [("WORK_DELAY_MAX_MS", "5"), ("WORK_FAIL_ONE_IN", "0")];
    let stack = Stack::up(1, receivers, &quick).await;
    stack.says("/lab  (to break something, sign in with ").await;
    console(&stack, None).await;
    stack
}

/// Its process, once it answers and is another one than before.
async fn console(stack: &Stack, before: Option<&Value>) -> Value {
    wait_until("the console to answer", LIMIT, async || {
        let status = stack.status().await?;
        let console = &status["console"];
        let other = before.is_none_or(|before| console["pid"] != *before);
        if console["state"] == "ready" && other {
            Ok(console["pid"].clone())
        } else {
            Err(console.to_string())
        }
    })
    .await
}

/// Turns knobs of all nodes, and waits until each receiver says that they are so.
async fn turn(stack: &Stack, browser: &Browser, change: Value, wanted: &[(&str, u64)]) {
    browser.deed("/lab/api/knobs", &change).await;
    let status = stack.status().await.unwrap();
    let nodes = status["nodes"].as_array().unwrap().iter();
    for receiver in nodes.filter(|node| node["service"] == "receiver") {
        let url = format!("{}/ops/knobs", receiver["ops"].as_str().unwrap());
        wait_until("a receiver to be turned", SOON, async || {
            let told = browser.client.get(&url).send().await.unwrap();
            let knobs: Value = told.json().await.unwrap();
            if wanted.iter().all(|(name, value)| knobs[name] == *value) {
                Ok(())
            } else {
                Err(knobs.to_string())
            }
        })
        .await;
    }
}

async fn down(mut stack: Stack) {
    signal(&stack.up.id().unwrap().into(), Signal::SIGTERM);
    tokio::time::timeout(LIMIT, stack.up.wait())
        .await
        .unwrap()
        .unwrap();
    stack.reset().await;
}
