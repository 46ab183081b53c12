//! The database's own limit: bare rows, one a commit and 500 a commit, over one connection and over several.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use sqlx::PgConnection;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::sheet::{Unit, real};
use super::stage::fast;
use super::{Course, Scenario};
use crate::load::Latency;

/// As many as a sender has by default.
const SEVERAL: usize = 16;
const ROWS: usize = 500;

const TABLE: &str = "create table if not exists public.bench_commit (id uuid primary key, \
                     text text not null, at timestamptz not null default clock_timestamp())";
const ONE: &str = "insert into public.bench_commit (id, text) values ($1, $2)";
const MANY: &str = "insert into public.bench_commit (id, text) \
                    select * from unnest($1::uuid[], $2::text[])";

/// Each way once.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let mut scene = course.stage.scene(0, 0, fast()).await?;
    let begun = Instant::now();
    let (warm, window) = (course.size.warm, course.size.window);
    let text = "x".repeat(course.size.text);
    let mut first = scene.book.another().await?;
    sqlx::query(TABLE).execute(&mut first).await?;
    for setting in ["fsync", "synchronous_commit", "wal_sync_method"] {
        let value = scene.book.shows(setting).await?;
        course
            .sheet
            .note(Scenario::Commit, format!("{setting} = {value}"));
    }
    let mut connections = vec![first];
    let alone = rows(connections, 1, &text, warm, window).await?;
    connections = Vec::new();
    for _ in 0..SEVERAL {
        connections.push(scene.book.another().await?);
    }
    let several = rows(connections, 1, &text, warm, window).await?;
    let wide = rows(vec![scene.book.another().await?], ROWS, &text, warm, window).await?;

    let (sheet, round) = (&mut *course.sheet, course.round);
    let name = "one row a commit, one connection";
    sheet.add(Scenario::Commit, name, Unit::PerSecond, alone.rate(1));
    sheet.latency(Scenario::Commit, name, Latency::of(&alone.times));
    sheet.role("commit", round, alone.rate(1));
    if let Some(times) = Latency::of(&alone.times) {
        sheet.role("commit-p50", round, real(times.p50));
    }
    let name = format!("one row a commit, {SEVERAL} connections");
    sheet.add(Scenario::Commit, &name, Unit::PerSecond, several.rate(1));
    let name = format!("{ROWS} rows a commit, one connection");
    sheet.add(Scenario::Commit, &name, Unit::PerSecond, wide.rate(ROWS));
    sheet.role("commit-500", round, wide.rate(ROWS));
    course.said(begun, "commit");
    Ok(())
}

struct Commits {
    count: u64,
    took: Duration,
    times: Histogram<u64>,
}

impl Commits {
    fn rate(&self, rows: usize) -> f64 {
        real(self.count * rows as u64) / self.took.as_secs_f64()
    }
}

/// Commits as fast as these connections can.
async fn rows(
    connections: Vec<PgConnection>,
    rows: usize,
    text: &str,
    warm: Duration,
    window: Duration,
) -> Result<Commits> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for connection in connections {
        let text = text.to_owned();
        tasks.spawn(one(connection, rows, text, began, warm, window));
    }
    let mut sum = Commits {
        count: 0,
        took: window,
        times: Histogram::new(3)?,
    };
    while let Some(times) = tasks.join_next().await {
        let times = times.context("a connection died")??;
        sum.count += times.len();
        sum.times.add(&times)?;
    }
    Ok(sum)
}

async fn one(
    mut connection: PgConnection,
    rows: usize,
    text: String,
    began: Instant,
    warm: Duration,
    window: Duration,
) -> Result<Histogram<u64>> {
    let mut times = Histogram::new(3)?;
    let texts = vec![text.clone(); rows];
    loop {
        let from = Instant::now();
        if rows == 1 {
            let insert = sqlx::query(ONE).bind(Uuid::now_v7()).bind(&text);
            insert.execute(&mut connection).await?;
        } else {
            let ids: Vec<Uuid> = (0..rows).map(|_| Uuid::now_v7()).collect();
            let insert = sqlx::query(MANY).bind(ids).bind(&texts);
            insert.execute(&mut connection).await?;
        }
        let now = began.elapsed();
        if now > warm + window {
            return Ok(times);
        }
        if now >= warm {
            times.record(u64::try_from(from.elapsed().as_micros())?)?;
        }
    }
}
