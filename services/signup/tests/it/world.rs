//! What each test has to itself: a database, a vhost, a mail server, and nodes to start and kill.

use std::{net::SocketAddr, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, SET_COOKIE},
    redirect,
};
use serde_json::{Value, json};
use signup::catcher::{Catcher, Caught};
use testkit::{Broker, Database, Process, Program, Servers, wait_until};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub(crate) const LIMIT: Duration = Duration::from_mins(1);
pub(crate) const KEY: &str = "a key of these tests, which has 32 bytes and more";
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A database, a vhost and a mail server that nobody else uses.
pub(crate) struct World {
    pub(crate) servers: Servers,
    pub(crate) database: Database,
    pub(crate) broker: Broker,
    pub(crate) mail: MailServer,
}

impl World {
    pub(crate) async fn new() -> Self {
        let servers = Servers::shared();
        Self {
            database: Database::fresh(&servers).await,
            broker: Broker::vhost(&servers).await,
            mail: MailServer::start().await,
            servers,
        }
    }

    fn node(&self, role: &str, name: &str) -> Program {
        Program::new(name, env!("CARGO_BIN_EXE_signup"))
            .arg(role)
            .env("DATABASE_URL", &self.database.signup_url)
            .env("AMQP_URL", &self.broker.amqp_url)
            .env("REDIS_URL", &self.servers.at.redis.url)
            .env("HEARTBEAT_SECS", 2)
    }

    /// A node of the API, not started.
    pub(crate) fn api(&self, name: &str) -> Program {
        self.node("api", name).env("SIGNUP_KEY", KEY)
    }

    /// A node that sends the mails, on a ladder of short rungs, not started.
    pub(crate) fn welcome(&self, name: &str) -> Program {
        self.node("welcome", name)
            .env("SMTP_URL", format!("smtp://{}", self.mail.address))
            .env("RETRY_LADDER_MS", "100,300")
    }

    /// Waits until all of these are ready.
    pub(crate) async fn ready(&self, nodes: &[&Process]) {
        for node in nodes {
            let ready = async || node.ready().await.is_ok_and(|(ready, _)| ready);
            wait_until("the node to be ready", LIMIT, ready).await;
        }
    }

    /// One number out of the database.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("select ({sql})::bigint"));
        let counted = sqlx::query_scalar(sql).fetch_one(&self.database.admin);
        counted.await.unwrap()
    }
}

/// A mail catcher on a port that stays the same, also while it is down.
pub(crate) struct MailServer {
    pub(crate) address: SocketAddr,
    pub(crate) catcher: Catcher,
    stop: CancellationToken,
}

impl MailServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut server = Self {
            address: listener.local_addr().unwrap(),
            catcher: Catcher::default(),
            stop: CancellationToken::new(),
        };
        server.serve(listener);
        server
    }

    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    fn serve(&mut self, listener: TcpListener) {
        self.stop = CancellationToken::new();
        tokio::spawn(self.catcher.clone().run(listener, self.stop.clone()));
    }

    /// Nobody listens any more.
    pub(crate) async fn down(&mut self) {
        self.stop.cancel();
        let gone = async || TcpStream::connect(self.address).await.is_err();
        wait_until("the mail server to be down", LIMIT, gone).await;
    }

    pub(crate) fn up(&mut self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.serve(socket.listen(64).unwrap());
    }

    /// Waits until so many mails were taken.
    pub(crate) async fn caught(&self, count: usize) -> Vec<Caught> {
        wait_until("mails to be taken", LIMIT, async || {
            let caught = self.catcher.caught();
            if caught.len() >= count {
                Ok(caught)
            } else {
                Err(format!("{} mails", caught.len()))
            }
        })
        .await
    }
}

/// Follows no redirects, and keeps no cookies.
pub(crate) fn client() -> Client {
    let builder = Client::builder().redirect(redirect::Policy::none());
    builder.timeout(Duration::from_secs(30)).build().unwrap()
}

/// A sign-up as a program sends it.
pub(crate) fn person(email: &str) -> Value {
    json!({"firstName": "Ada", "lastName": "Lovelace", "email": email, "password": PASSWORD})
}

/// Sends JSON.
pub(crate) async fn post(node: &Process, path: &str, body: &Value) -> Response {
    let request = client().post(format!("{}{path}", node.url())).json(body);
    request.send().await.unwrap()
}

/// Sends a form, as a browser does.
pub(crate) async fn submit(node: &Process, path: &str, fields: &[(&str, &str)]) -> Response {
    let request = client().post(format!("{}{path}", node.url())).form(fields);
    request.header(ACCEPT, "text/html").send().await.unwrap()
}

/// Creates an account; gives the answer.
pub(crate) async fn create(node: &Process, email: &str) -> Value {
    let answer = post(node, "/createUser", &person(email)).await;
    assert_eq!(
        answer.status(),
        StatusCode::CREATED,
        "{:?}",
        answer.text().await
    );
    answer.json().await.unwrap()
}

/// The account of a token, as a program asks for it.
pub(crate) async fn account(node: &Process, token: &str) -> Response {
    let request = client().get(node.url()).header(ACCEPT, "application/json");
    let request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    request.send().await.unwrap()
}

/// Waits until the account says this of its mail.
pub(crate) async fn mail_is(node: &Process, token: &str, state: &str) -> Value {
    wait_until("the account to say it of its mail", LIMIT, async || {
        let told: Value = account(node, token).await.json().await.unwrap();
        if told["mail"] == state {
            Ok(told)
        } else {
            Err(told)
        }
    })
    .await
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

/// Status and problem.
pub(crate) async fn problem(answer: Response) -> (StatusCode, Value) {
    let status = answer.status();
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    (status, answer.json().await.unwrap())
}

/// The cookie that was set, with all it says of itself.
pub(crate) fn cookie(answer: &Response) -> String {
    answer.headers()[SET_COOKIE].to_str().unwrap().to_owned()
}
