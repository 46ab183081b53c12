use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use daemon::{
    database::{self, DatabaseArgs, within},
    lifecycle::Lifecycle,
    monitor,
    node::NodeArgs,
    parts::{Kind, Parts},
};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use testkit::{Database, Direction, Proxy, Servers, wait_until};

use crate::{LIMIT, becomes};

struct World {
    proxy: Proxy,
    fresh: Database,
    database: database::Database,
    lifecycle: Lifecycle,
}

impl World {
    async fn new() -> Self {
        let fresh = Database::fresh(&Servers::shared()).await;
        let proxy = Proxy::before(&fresh.sender_url).await;
        let database = open(&proxy.url(&fresh.sender_url), "sender-1");
        Self {
            proxy,
            fresh,
            database,
            lifecycle: Lifecycle::new(LIMIT),
        }
    }

    async fn works(&self) {
        wait_until("a query that works", LIMIT, async || {
            let query = sqlx::query_scalar::<_, i32>("select 1").fetch_one(&self.database.pool);
            within(Duration::from_secs(3), query).await
        })
        .await;
    }

    async fn end(self) {
        self.lifecycle.stop();
        self.lifecycle.finish().await;
    }
}

fn open(url: &str, node: &str) -> database::Database {
    let args = DatabaseArgs {
        database_url: url.to_owned(),
        database_connections: 4,
    };
    let node = NodeArgs {
        node_name: Some(node.to_owned()),
    }
    .node("sender")
    .unwrap();
    args.open(&node, &Parts::new()).unwrap()
}

fn migrator(version: i64, sql: &'static str) -> Migrator {
    let sql = sqlx::AssertSqlSafe(sql);
    let sql = sqlx::SqlSafeStr::into_sql_str(sql);
    let migration = Migration::new(
        version,
        Cow::Borrowed("x"),
        MigrationType::Simple,
        sql,
        false,
    );
    Migrator::with_migrations(vec![migration])
}

#[tokio::test]
async fn migrations_wait_for_a_postgres_that_is_absent_at_start() {
    let world = World::new().await;
    world.proxy.refuse(true);
    let migrators = vec![
        migrator(1, "create table a (a int)"),
        migrator(2, "create table b (b int)"),
    ];
    world
        .database
        .migrate_until_done(migrators, &world.lifecycle);
    monitor::watch_database(&world.database, &world.lifecycle);
    becomes(world.database.part(), Kind::Away).await;
    assert!(!world.database.is_migrated());
    world.proxy.refuse(false);
    world.database.migrated().await;
    becomes(world.database.part(), Kind::Up).await;
    let count = "select count(*) from sender.a, sender.b";
    let seen: i64 = sqlx::query_scalar(count)
        .fetch_one(&world.fresh.admin)
        .await
        .unwrap();
    assert_eq!(seen, 0);
    world.end().await;
}

#[tokio::test]
async fn nodes_that_start_together_migrate_once() {
    let world = World::new().await;
    let nodes: Vec<_> = (0..5)
        .map(|_| open(&world.fresh.sender_url, "sender-n"))
        .collect();
    for node in &nodes {
        let migrators = vec![migrator(1, "create table a (a int)")];
        node.migrate_until_done(migrators, &world.lifecycle);
    }
    for node in &nodes {
        node.migrated().await;
    }
    assert!(!world.lifecycle.stopping().is_cancelled());
    world.end().await;
}

#[tokio::test]
async fn a_migration_that_can_never_apply_ends_the_process() {
    let world = World::new().await;
    let migrators = vec![migrator(1, "create tabel a (a int)")];
    world
        .database
        .migrate_until_done(migrators, &world.lifecycle);
    tokio::time::timeout(LIMIT, world.lifecycle.stopping().cancelled())
        .await
        .unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_postgres_that_hangs_is_away_and_the_pool_comes_back() {
    let world = World::new().await;
    monitor::watch_database(&world.database, &world.lifecycle);
    becomes(world.database.part(), Kind::Up).await;
    world.works().await;
    world.proxy.freeze(Direction::Down);
    // More queries than the pool has places: none may be lost.
    for _ in 0..6 {
        let began = Instant::now();
        let query = sqlx::query("select 1").execute(&world.database.pool);
        within(Duration::from_secs(1), query).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    becomes(world.database.part(), Kind::Away).await;
    world.proxy.thaw();
    becomes(world.database.part(), Kind::Up).await;
    world.works().await;
    world.end().await;
}

#[tokio::test]
async fn links_to_postgres_that_are_gone_without_a_word_are_replaced() {
    let world = World::new().await;
    monitor::watch_database(&world.database, &world.lifecycle);
    becomes(world.database.part(), Kind::Up).await;
    let busy = (0..4).map(|_| sqlx::query("select pg_sleep(0.1)").execute(&world.database.pool));
    futures::future::try_join_all(busy).await.unwrap();
    world.proxy.strand();
    world.works().await;
    becomes(world.database.part(), Kind::Up).await;
    world.end().await;
}

#[tokio::test]
async fn connections_that_were_cut_are_replaced_before_a_query_meets_them() {
    let world = World::new().await;
    world.works().await;
    for _ in 0..5 {
        world.proxy.cut_rst();
        // No retry: the pool looks at a connection before it gives it away.
        sqlx::query("select 1")
            .execute(&world.database.pool)
            .await
            .unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn a_session_that_holds_a_lock_and_says_nothing_is_ended_by_the_server() {
    let world = World::new().await;
    let mut silent = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("select pg_advisory_xact_lock(7)")
        .execute(&mut *silent)
        .await
        .unwrap();
    world.proxy.freeze(Direction::Up);
    let free = "select pg_try_advisory_xact_lock(7)";
    wait_until("the lock", LIMIT, async || {
        sqlx::query_scalar::<_, bool>(free)
            .fetch_one(&world.fresh.admin)
            .await
            .unwrap()
    })
    .await;
    world.proxy.cut_rst();
    drop(silent);
    world.end().await;
}

#[tokio::test]
async fn sessions_carry_the_nodes_name() {
    let world = World::new().await;
    world.works().await;
    let names = "select count(*) from pg_stat_activity \
                 where application_name = 'sender-1' and datname = $1";
    let seen: i64 = sqlx::query_scalar(names)
        .bind(&world.fresh.name)
        .fetch_one(&world.fresh.admin)
        .await
        .unwrap();
    assert!(seen >= 1);
    world.end().await;
}
