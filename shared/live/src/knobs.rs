//! Knobs for all nodes at once: a hash in Redis, which each node reads at its start, when it is woken,
//! and twice a second in any case.
//!
//! The hash `{prefix}knobs` has a field `all` and one for each node that is told something of its own;
//! their values are changes as the ops port takes them. A node's knobs are its settings, changed by
//! `all`, and then by its own. When Redis loses the hash they are its settings again; while Redis is
//! away they stay. What is turned on the ops port holds until the hash changes.

use std::{collections::BTreeMap, fmt, time::Duration};

use chaos::{
    Knobs,
    knobs::{Change, Settings},
};
use daemon::redis::fred::{
    clients::Pool,
    error::Error,
    interfaces::{HashesInterface, PubsubInterface},
};
use serde::Serialize;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::listener::Listener;

const ALL: &str = "all";
const POLL: Duration = Duration::from_millis(500);

/// The hash, and the channel on which its changes are told.
pub(crate) fn key(prefix: &str) -> String {
    format!("{prefix}knobs")
}

/// Whose knobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Those of every node that has some.
    All,
    /// Those of the node of this name.
    Node(String),
}

impl Target {
    fn field(&self) -> &str {
        match self {
            Self::All => ALL,
            Self::Node(name) => name,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field())
    }
}

/// What a node has taken from the hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// What all were told.
    pub all: Option<Change>,
    /// What this node was told.
    pub own: Option<Change>,
    /// What of it does not fit, and was left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

/// Keeps a node's knobs as the hash says.
pub struct KnobReader {
    redis: Pool,
    key: String,
    node: String,
    knobs: Knobs,
    /// How they stand without a hash.
    settings: Settings,
    listener: Listener,
    applied: watch::Sender<Applied>,
}

impl KnobReader {
    /// A reader that is not running yet. The knobs stand as the settings say.
    pub fn new(redis: Pool, prefix: &str, node: &str, knobs: Knobs, listener: Listener) -> Self {
        Self {
            redis,
            key: key(prefix),
            node: node.to_owned(),
            settings: knobs.now(),
            knobs,
            listener,
            applied: watch::Sender::default(),
        }
    }

    /// What was taken from the hash, now and later.
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// Reads until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut woken = self.listener.knobs();
        let rounds = async {
            let mut before = [None, None];
            loop {
                // Bounded by the client's own limit. Without an answer all stays as it is.
                if let Ok(now) = self.read().await
                    && now != before
                {
                    self.apply(&now);
                    before = now;
                }
                let _ = timeout(POLL, woken.changed()).await;
            }
        };
        stop.run_until_cancelled(rounds).await;
    }

    async fn read(&self) -> Result<[Option<String>; 2], Error> {
        let fields = vec![ALL, &self.node];
        let values: Vec<Option<String>> = self.redis.hmget(&*self.key, fields).await?;
        let mut values = values.into_iter();
        Ok([values.next().flatten(), values.next().flatten()])
    }

    fn apply(&self, [all, own]: &[Option<String>; 2]) {
        let (settings, applied) = merged(self.settings, all.as_deref(), own.as_deref());
        for refused in &applied.refused {
            tracing::warn!(refused, "a knob that does not fit is left as it is");
        }
        match self.knobs.set(settings) {
            Ok(()) => tracing::info!(?settings, "knobs were turned for this node"),
            // Cannot be: they were checked one by one.
            Err(error) => tracing::error!(%error, "knobs were not turned"),
        }
        self.applied.send_replace(applied);
    }
}

/// The settings after both changes, where those can be read and fit.
fn merged(settings: Settings, all: Option<&str>, own: Option<&str>) -> (Settings, Applied) {
    let mut applied = Applied::default();
    let mut now = settings;
    for (name, text) in [("all", all), ("own", own)] {
        let Some(text) = text else { continue };
        let change = serde_json::from_str::<Change>(text).map_err(|error| error.to_string());
        let after = change.and_then(|change| {
            let after = now.after(&change).map_err(|error| error.to_string())?;
            Ok((change, after))
        });
        match after {
            Ok((change, after)) => {
                now = after;
                let place = if name == "all" {
                    &mut applied.all
                } else {
                    &mut applied.own
                };
                *place = Some(change);
            }
            Err(why) => applied.refused.push(format!("{name}: {why}")),
        }
    }
    (now, applied)
}

/// Turns knobs for others.
#[derive(Clone)]
pub struct KnobWriter {
    redis: Pool,
    key: String,
}

/// Why knobs could not be turned.
#[derive(Debug, thiserror::Error)]
pub enum KnobError {
    /// Redis did not answer as it should.
    #[error("Redis is away: {0}")]
    Redis(String),
    /// A node cannot be called that.
    #[error("no node can be called {0:?}")]
    Name(String),
}

impl From<Error> for KnobError {
    fn from(error: Error) -> Self {
        Self::Redis(daemon::redis::why(&error))
    }
}

impl KnobWriter {
    /// A writer of the hash with this prefix.
    pub fn new(redis: Pool, prefix: &str) -> Self {
        Self {
            redis,
            key: key(prefix),
        }
    }

    /// Changes what the change names, for this target; all else that it was told stays. Gives what
    /// it is told now. Nodes check whether it fits their settings.
    ///
    /// # Errors
    /// Redis is away, or a node is called as none can be.
    pub async fn set(&self, target: &Target, change: Change) -> Result<Change, KnobError> {
        if let Target::Node(name) = target
            && (name == ALL || name.is_empty())
        {
            return Err(KnobError::Name(name.clone()));
        }
        let before: Option<String> = self.redis.hget(&*self.key, target.field()).await?;
        let before = before.and_then(|text| serde_json::from_str(&text).ok());
        let now = Change::then(before.unwrap_or_default(), change);
        let text = serde_json::to_string(&now).map_err(|e| KnobError::Redis(e.to_string()))?;
        let field = (target.field().to_owned(), text);
        let _: i64 = self.redis.hset(&*self.key, field).await?;
        self.wake().await;
        Ok(now)
    }

    /// Forgets what this target was told.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn clear(&self, target: &Target) -> Result<(), KnobError> {
        let _: i64 = self.redis.hdel(&*self.key, target.field()).await?;
        self.wake().await;
        Ok(())
    }

    /// What everybody is told, by `all` and the names of nodes; what cannot be read is left out.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn read(&self) -> Result<BTreeMap<String, Change>, KnobError> {
        let fields: BTreeMap<String, String> = self.redis.hgetall(&*self.key).await?;
        let read = |(name, text): (String, String)| Some((name, serde_json::from_str(&text).ok()?));
        Ok(fields.into_iter().filter_map(read).collect())
    }

    /// Nobody need hear it: nodes look by themselves soon.
    async fn wake(&self) {
        let client = self.redis.next_connected();
        let _ = client.publish::<i64, _, _>(&*self.key, "").await;
    }
}

#[cfg(test)]
mod tests {
    use chaos::knobs::FailureAction;

    use super::*;

    const SETTINGS: Settings = Settings {
        delay_min_ms: 10,
        delay_max_ms: 20,
        fail_one_in: 5,
        failure_action: FailureAction::Nack,
        prefetch: 16,
    };

    #[test]
    fn a_nodes_own_knobs_come_after_those_for_all() {
        let all = r#"{"fail_one_in": 2, "prefetch": 4}"#;
        let own = r#"{"prefetch": 1}"#;
        let (now, applied) = merged(SETTINGS, Some(all), Some(own));
        assert_eq!(
            (now.fail_one_in, now.prefetch, now.delay_min_ms),
            (2, 1, 10)
        );
        assert_eq!(applied.own.unwrap().prefetch, Some(1));
        assert!(applied.refused.is_empty());
    }

    #[test]
    fn without_a_hash_they_are_the_settings() {
        assert_eq!(merged(SETTINGS, None, None), (SETTINGS, Applied::default()));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_told() {
        let (now, applied) = merged(SETTINGS, Some(r#"{"delay_min_ms": 21}"#), Some("{"));
        assert_eq!(now, SETTINGS);
        assert_eq!(applied.refused.len(), 2);
        assert!(applied.refused[0].starts_with("all: delay_min_ms is 21"));
    }
}
