//! A database of one test, copied from the template: roles and schemas are there, tables are not,
//! for services make their own.

use std::time::Duration;

use anyhow::Context;
use reqwest::Url;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::time::{Instant, sleep};

use crate::{Servers, cleanup};

const TEMPLATE: &str = "unacked";
const CREATE_LIMIT: Duration = Duration::from_secs(20);

/// A fresh database. Dropped, with whoever is still connected, at the end.
pub struct Database {
    /// Its name.
    pub name: String,
    /// For the role `sender`.
    pub sender_url: String,
    /// For the role `receiver`.
    pub receiver_url: String,
    /// For the role `notes`.
    pub notes_url: String,
    /// For the role `leases`.
    pub leases_url: String,
    /// For the role `signup`.
    pub signup_url: String,
    /// For the role `auditor`, which may only read.
    pub auditor_url: String,
    /// For the role `lab`, which reads as the auditor does, and has a schema of its own.
    pub lab_url: String,
    /// As the superuser; the tests' own eyes. Name tables with their schema.
    pub admin: PgPool,
    maintenance: Url,
}

impl Database {
    /// Makes one.
    pub async fn fresh(servers: &Servers) -> Self {
        Self::try_fresh(servers).await.expect("a fresh database")
    }

    /// What `lab dead list` tells of another service than the main job.
    ///
    /// # Panics
    /// It fails.
    pub async fn dead_letters_of(&self, service: &str) -> String {
        let mut command = tokio::process::Command::new(crate::lab_binary());
        // Only looking asks no node.
        command.args([
            "dead",
            "list",
            "--of",
            service,
            "--gateway",
            "http://127.0.0.1:9",
        ]);
        command.env("LAB_AUDITOR_URL", &self.auditor_url);
        let output = command.output().await.expect("lab runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    async fn try_fresh(servers: &Servers) -> anyhow::Result<Self> {
        let postgres = &servers.at.postgres;
        let name = format!("test_{}", crate::name());
        let superuser = Url::parse(&postgres.url).context("the URL of Postgres")?;
        // Not the template: nobody may be connected to that while it is copied.
        let maintenance = with_path(&superuser, "postgres");
        create(&maintenance, &name).await?;
        let own = with_path(&superuser, &name);
        let role = |role: &str| -> anyhow::Result<String> {
            let mut url = own.clone();
            let password = postgres.passwords.get(role);
            let password = password.with_context(|| format!("there is no role {role}"))?;
            let set = url
                .set_username(role)
                .and_then(|()| url.set_password(Some(password)));
            set.map_err(|()| anyhow::anyhow!("the URL of Postgres takes no role"))?;
            Ok(url.into())
        };
        Ok(Self {
            sender_url: role("sender")?,
            receiver_url: role("receiver")?,
            notes_url: role("notes")?,
            leases_url: role("leases")?,
            signup_url: role("signup")?,
            auditor_url: role("auditor")?,
            lab_url: role("lab")?,
            admin: PgPoolOptions::new()
                .max_connections(4)
                .connect_lazy(own.as_str())?,
            name,
            maintenance,
        })
    }
}

fn with_path(url: &Url, database: &str) -> Url {
    let mut url = url.clone();
    url.set_path(database);
    url
}

/// Tries again while somebody is connected to the template: another test's copy, or the autovacuum.
async fn create(maintenance: &Url, name: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(maintenance.as_str()).await?;
    let statement = format!("create database {name} template {TEMPLATE}");
    let end = Instant::now() + CREATE_LIMIT;
    loop {
        match sqlx::raw_sql(AssertSqlSafe(statement.clone()))
            .execute(&mut connection)
            .await
        {
            Ok(_) => break,
            Err(error) if in_use(&error) && Instant::now() < end => {
                sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(anyhow::Error::new(error).context(statement)),
        }
    }
    let _ = connection.close().await;
    Ok(())
}

fn in_use(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() == Some("55006"))
}

impl Drop for Database {
    fn drop(&mut self) {
        let maintenance = self.maintenance.clone();
        let statement = format!("drop database if exists {} with (force)", self.name);
        cleanup::run(async move {
            let mut connection = PgConnection::connect(maintenance.as_str()).await?;
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut connection)
                .await?;
            Ok(())
        });
    }
}
