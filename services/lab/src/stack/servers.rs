//! PostgreSQL, Redis and RabbitMQ, each either started by us or given by a URL.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::dir::LabDir;
use super::install::{self, EPMD, INITDB, Needed, PSQL, RABBITMQ, REDIS};
use super::postgres::{self, Durability, Postgres};
use super::rabbitmq::{self, RabbitMq};
use super::redis::{self, Redis};
use super::supervisor::{Condition, Doing, News, Unit};
use crate::say::Steps;

/// Servers that run already and are to be used instead of private ones.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Servers of your own, used instead of private ones")]
pub struct Given {
    /// URL of a PostgreSQL database, as a superuser: roles and schemas are made in it
    #[arg(
        long,
        env = "LAB_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
    /// URL of a Redis server
    #[arg(
        long,
        env = "LAB_REDIS_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub redis_url: Option<String>,
    /// URL of a RabbitMQ vhost
    #[arg(long, env = "LAB_AMQP_URL", hide_env_values = true, value_name = "URL")]
    pub amqp_url: Option<String>,
    /// URL of the management API of that RabbitMQ, with user and password
    #[arg(
        long,
        env = "LAB_MANAGEMENT_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub management_url: Option<String>,
}

impl Given {
    /// The programs that are needed for the rest.
    pub fn needed(&self) -> Vec<Needed> {
        let mut needed = vec![PSQL];
        if self.database_url.is_none() {
            needed.push(INITDB);
        }
        if self.redis_url.is_none() {
            needed.push(REDIS);
        }
        if self.amqp_url.is_none() {
            needed.extend([RABBITMQ, EPMD]);
        }
        needed
    }
}

/// How the three are reached, with their passwords.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub database: String,
    pub redis: String,
    pub amqp: String,
    pub management: Option<String>,
}

impl Addresses {
    /// The URL that services use.
    pub fn url(&self, which: Which) -> &str {
        match which {
            Which::Postgres => &self.database,
            Which::Redis => &self.redis,
            Which::RabbitMq => &self.amqp,
        }
    }
}

/// One of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    Postgres,
    Redis,
    RabbitMq,
}

impl Which {
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Redis, Self::RabbitMq];

    pub fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
            Self::RabbitMq => "RabbitMQ",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "postgres" => Some(Self::Postgres),
            "redis" => Some(Self::Redis),
            "rabbitmq" => Some(Self::RabbitMq),
            _ => None,
        }
    }
}

/// The three servers of one stack.
#[derive(Debug)]
pub struct Servers {
    pub addresses: Addresses,
    postgres: Option<Unit>,
    redis: Option<Unit>,
    rabbitmq: Option<Unit>,
    broker: Option<RabbitMq>,
    mapper: Option<Unit>,
}

impl Servers {
    /// Writes settings and makes data folders; nothing runs yet. With `restart` they are started again when they die.
    pub async fn prepare(
        dir: &LabDir,
        given: &Given,
        durability: Durability,
        restart: bool,
        news: &News,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self> {
        let (database, postgres) = if let Some(url) = &given.database_url {
            (url.clone(), None)
        } else {
            let server = Postgres::prepare(dir, &install::path(&INITDB)?, durability).await?;
            (server.url(), Some(Unit::new(server, restart, news, tasks)))
        };
        let (redis_url, redis) = if let Some(url) = &given.redis_url {
            (url.clone(), None)
        } else {
            let server = Redis::prepare(dir, install::path(&REDIS)?)?;
            (server.url(), Some(Unit::new(server, restart, news, tasks)))
        };
        let (amqp, management, broker, rabbitmq, mapper) = if let Some(url) = &given.amqp_url {
            (url.clone(), given.management_url.clone(), None, None, None)
        } else {
            let (server, mapper) =
                RabbitMq::prepare(dir, install::path(&RABBITMQ)?, install::path(&EPMD)?)?;
            let (amqp, management) = (server.amqp(), server.management());
            let mapper = Unit::new(mapper, true, news, tasks);
            (
                amqp,
                Some(management),
                Some(server.clone()),
                Some(Unit::new(server, restart, news, tasks)),
                Some(mapper),
            )
        };
        let addresses = Addresses {
            database,
            redis: redis_url,
            amqp,
            management,
        };
        Ok(Self {
            addresses,
            postgres,
            redis,
            rabbitmq,
            broker,
            mapper,
        })
    }

    /// Starts what is ours, all at once, and prepares the database.
    pub async fn start(&self, dir: &LabDir, steps: &Steps<'_>) -> Result<()> {
        let psql = install::path(&PSQL)?;
        let database = async {
            self.start_one(Which::Postgres, steps).await?;
            let begun = Instant::now();
            let url = &self.addresses.database;
            postgres::prepare_database(url, &psql, dir.secrets()).await?;
            steps.done(begun, "database prepared");
            Ok(())
        };
        let broker = async {
            if let Some(mapper) = &self.mapper {
                mapper.start().await?;
            }
            self.start_one(Which::RabbitMq, steps).await
        };
        futures::future::try_join3(database, self.start_one(Which::Redis, steps), broker).await?;
        Ok(())
    }

    async fn start_one(&self, which: Which, steps: &Steps<'_>) -> Result<()> {
        let begun = Instant::now();
        match self.unit(which) {
            None => steps.note(format!("{} is the one given", which.title())),
            Some(unit) => {
                unit.start()
                    .await
                    .with_context(|| format!("cannot start {}", which.title()))?;
                steps.done(begun, format!("{} started", which.title()));
            }
        }
        Ok(())
    }

    /// One server, unless it was given.
    pub fn unit(&self, which: Which) -> Option<&Unit> {
        match which {
            Which::Postgres => self.postgres.as_ref(),
            Which::Redis => self.redis.as_ref(),
            Which::RabbitMq => self.rabbitmq.as_ref(),
        }
    }

    /// The broker, unless it was given.
    pub fn broker(&self) -> Option<&RabbitMq> {
        self.broker.as_ref()
    }

    /// What a server is doing now; one that is said to be ready, or was given, is asked.
    pub async fn look(&self, which: Which) -> Condition {
        if let Some(unit) = self.unit(which) {
            return unit.look().await;
        }
        let given = Condition {
            doing: Doing::Ready,
            pid: None,
            restarts: 0,
            missing: None,
        };
        let at = &self.addresses;
        match which {
            Which::Postgres => given.after(postgres::answers(&at.database)).await,
            Which::Redis => given.after(redis::answers(&at.redis)).await,
            Which::RabbitMq => given.after(rabbitmq::answers(&at.amqp)).await,
        }
    }

    /// Stops what is ours, all at once; the port mapper last.
    pub async fn stop(&self, steps: &Steps<'_>) {
        let stops = Which::ALL.map(|which| async move {
            if let Some(unit) = self.unit(which)
                && unit.condition().doing != Doing::Stopped
            {
                let begun = Instant::now();
                drop(unit.stop().await);
                steps.done(begun, format!("{} stopped", which.title()));
            }
        });
        futures::future::join_all(stops).await;
        if let Some(mapper) = &self.mapper {
            drop(mapper.stop().await);
        }
    }
}
