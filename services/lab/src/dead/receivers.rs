//! The receivers' own API, asked through the gateway.

use std::time::Duration;

use axum::http::StatusCode;
use messaging::receive::redrive::{Redrive, Selection};
use receiver::redrives::{NONE_FITS, UNKNOWN};
use reqwest::{Client, Method};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use uuid::Uuid;
use web::Error;

/// Above what the gateway waits for a receiver.
const LIMIT: Duration = Duration::from_secs(45);

/// An order as the receivers tell it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Told {
    #[serde(flatten)]
    pub(crate) redrive: Redrive,
    /// What it would do, in a sentence.
    pub(crate) plan: String,
    /// Dead letters that are not decided yet.
    pub(crate) left: i64,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("no receiver takes orders here: the lab has no REDRIVE_TOKEN")]
    NoToken,
    /// Their own word.
    #[error("{detail}")]
    Said {
        status: u16,
        /// The name of the problem, where it has one.
        code: Option<String>,
        detail: String,
    },
    #[error("the receivers cannot be asked: {0}")]
    Away(#[from] reqwest::Error),
}

impl Refused {
    /// Whether the same may be answered a little later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::NoToken => false,
            Self::Said { status, .. } => *status >= 500,
            Self::Away(_) => true,
        }
    }

    fn is_called(&self, name: &str) -> bool {
        matches!(self, Self::Said { code: Some(code), .. } if code == name)
    }

    /// Whether there would have been nothing to do.
    pub(crate) fn none_fits(&self) -> bool {
        self.is_called(NONE_FITS)
    }

    /// Whether they know of no such redrive. A 404 alone may be that of a gateway.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_called(UNKNOWN)
    }

    /// Whether what was asked cannot be done as it was asked for.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            Self::NoToken => true,
            Self::Said { status, .. } => (400..500).contains(status),
            Self::Away(_) => false,
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let said = format!("{refused}");
        match refused {
            Refused::NoToken => Self::forbidden(said),
            Refused::Said { status, .. } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                Self::new(status, said)
            }
            Refused::Away(cause) => Self::away("The receivers do not answer.").because(cause),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Receivers {
    client: Client,
    base: String,
    token: Option<String>,
}

impl Receivers {
    pub(crate) fn new(gateway: &str, token: Option<String>) -> Self {
        Self {
            client: Client::new(),
            base: format!("{}/received/api", gateway.trim_end_matches('/')),
            token,
        }
    }

    /// Whether orders can be given at all.
    pub(crate) fn can_be_asked(&self) -> bool {
        self.token.is_some()
    }

    /// `id` is made by who asks: a request that is repeated is one order.
    pub(crate) async fn plan(
        &self,
        id: Uuid,
        selection: &Selection,
        per_second: u32,
        who: &str,
        dry_run: bool,
    ) -> Result<Told, Refused> {
        let order = json!({"id": id, "selection": selection, "per_second": per_second, "who": who, "dry_run": dry_run});
        self.ask(Method::POST, "redrives", Some(order)).await
    }

    pub(crate) async fn start(&self, id: Uuid) -> Result<Told, Refused> {
        self.ask(Method::POST, &format!("redrives/{id}/start"), None)
            .await
    }

    pub(crate) async fn cancel(&self, id: Uuid) -> Result<Told, Refused> {
        self.ask(Method::POST, &format!("redrives/{id}/cancel"), None)
            .await
    }

    pub(crate) async fn get(&self, id: Uuid) -> Result<Told, Refused> {
        self.ask(Method::GET, &format!("redrives/{id}"), None).await
    }

    /// `confirm` is what a person typed.
    pub(crate) async fn discard(
        &self,
        selection: &Selection,
        confirm: &str,
        who: &str,
    ) -> Result<i64, Refused> {
        let order = json!({"selection": selection, "confirm": confirm, "who": who});
        let done: Value = self
            .ask(Method::POST, "dead-letters/discard", Some(order))
            .await?;
        Ok(done["discarded"].as_i64().unwrap_or_default())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, Refused> {
        let token = self.token.as_ref().ok_or(Refused::NoToken)?;
        let mut request = self
            .client
            .request(method, format!("{}/{path}", self.base))
            .header(receiver::redrives::TOKEN, token)
            .timeout(LIMIT);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let away = |error: reqwest::Error| Refused::Away(error.without_url());
        let answer = request.send().await.map_err(away)?;
        let status = answer.status();
        if status.is_success() {
            return answer.json().await.map_err(away);
        }
        let problem: Value = answer.json().await.unwrap_or_default();
        let said = problem["detail"].as_str().map(str::to_owned);
        let code = problem["type"].as_str();
        let code = code.and_then(|code| code.strip_prefix("urn:unacked:problem:"));
        Err(Refused::Said {
            status: status.as_u16(),
            code: code.map(str::to_owned),
            detail: said.unwrap_or_else(|| format!("the receivers said {status}")),
        })
    }
}
