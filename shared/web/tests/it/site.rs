//! A site with a few small pages, asked without a network.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::Path,
    http::{Request, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use daemon::{
    node::NodeArgs,
    parts::Parts,
    redis::{
        RedisArgs,
        fred::{
            clients::Pool,
            interfaces::{ClientLike, SortedSetsInterface},
        },
    },
};
use serde_json::{Value, json};
use testkit::{Servers, wait_until};
use tower::ServiceExt;
use web::{
    About, Site,
    form::FormBody,
    json::JsonBody,
    session::{SessionArgs, Sessions, Visit},
};

pub(crate) struct TestSite {
    pub(crate) router: Router,
    pub(crate) pool: Pool,
    pub(crate) prefix: String,
    pub(crate) sessions: Sessions,
}

impl TestSite {
    /// On the shared Redis.
    pub(crate) async fn new() -> Self {
        let site = Self::on(&Servers::shared().at.redis.url, 1800);
        site.connected().await;
        site
    }

    /// On any Redis, be it there or not.
    pub(crate) fn on(redis_url: &str, ttl: u32) -> Self {
        Self::with(redis_url, ttl, || {})
    }

    /// `on_the_way` happens in `POST /away`, between reading the session and saving it.
    pub(crate) fn with(
        redis_url: &str,
        ttl: u32,
        on_the_way: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let prefix = testkit::redis_prefix();
        let args = RedisArgs {
            redis_url: redis_url.to_owned(),
            redis_prefix: prefix.clone(),
        };
        let pool = daemon::redis::connect(&args).unwrap();
        let parts = Parts::new();
        let args = SessionArgs {
            session_ttl_secs: ttl,
            session_secure: false,
        };
        let sessions = Sessions::new(pool.clone(), parts.part("redis"), &args).with_prefix(&prefix);
        let node = Arc::new(NodeArgs::default().node("sender").unwrap());
        let site = Site::from(About {
            node,
            parts,
            sessions: sessions.clone(),
            meanings: &[],
            guarantees_off: Vec::new(),
        });
        Self {
            router: web::wrap(routes(Arc::new(on_the_way)), Router::new(), site),
            pool,
            prefix,
            sessions,
        }
    }

    pub(crate) async fn connected(&self) {
        wait_until(
            "a connection to Redis",
            Duration::from_secs(10),
            async || self.pool.clients().iter().all(ClientLike::is_connected),
        )
        .await;
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, cookie: Option<&str>) -> Response {
        let mut request = Request::get(path);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, format!("unacked_session={cookie}"));
        }
        self.ask(request.body(Body::empty()).unwrap()).await
    }

    /// How many sessions the index has.
    pub(crate) async fn indexed(&self) -> i64 {
        self.pool
            .zcard(format!("{}sessions", self.prefix))
            .await
            .unwrap()
    }
}

/// The id that an answer sets, if it sets one.
pub(crate) fn cookie(response: &Response) -> Option<String> {
    let value = response
        .headers()
        .get(header::SET_COOKIE)?
        .to_str()
        .unwrap();
    let value = value.strip_prefix("unacked_session=")?;
    Some(value.split(';').next().unwrap_or_default().to_owned())
}

pub(crate) async fn text(response: Response) -> String {
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

pub(crate) async fn value(response: Response) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

fn routes(on_the_way: Arc<dyn Fn() + Send + Sync>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/look", get(look))
        .route("/count/{number}", post(count))
        .route("/reset", post(reset))
        .route("/proves/{csrf}", get(proves))
        .route("/flash", post(flash))
        .route(
            "/away",
            post(async move |mut visit: Visit| {
                visit.flash(&"never saved").await;
                on_the_way();
                "accepted"
            }),
        )
        .route("/form", post(form))
        .route("/api/echo", post(echo))
        .route("/panic", get(panics))
        .route("/bare", get(async || StatusCode::IM_A_TEAPOT))
}

async fn figures(visit: &Visit) -> Json<Value> {
    let figures = visit.figures().await;
    Json(json!({
        "known": visit.is_known(),
        "csrf": visit.csrf(),
        "sent": figures.map(|figures| figures.sent),
        "active": figures.map(|figures| figures.active),
    }))
}

async fn page(mut visit: Visit) -> Json<Value> {
    visit.start().await;
    figures(&visit).await
}

async fn look(visit: Visit) -> Json<Value> {
    figures(&visit).await
}

async fn count(Path(number): Path<i64>, visit: Visit) -> &'static str {
    visit.count_sent(number).await;
    "counted"
}

async fn reset(mut visit: Visit) -> Result<&'static str, web::Error> {
    visit.reset().await.map(|()| "reset")
}

async fn proves(Path(csrf): Path<String>, visit: Visit) -> Json<bool> {
    Json(visit.proves(&csrf))
}

async fn flash(mut visit: Visit) -> Json<Value> {
    let before = visit.take_flash::<String>().await;
    visit.flash(&"said once").await;
    Json(json!(before))
}

async fn form(body: FormBody) -> Result<String, web::Error> {
    Ok(body.fields(&["message"])?.need("message")?.to_owned())
}

async fn echo(body: JsonBody) -> Result<Json<Value>, web::Error> {
    body.read().map(Json)
}

async fn panics() -> &'static str {
    panic!("on purpose")
}
