//! What a scene leaves.

use lab::say::Steps;
use lab::stack::scene::Scene;
use lab::stack::servers::Which as Server;
use lab::stack::strike::{End, Target};
use sqlx::{Connection, PgConnection};
use testkit::wait_until;

use super::LIMIT;
use super::own::Own;

#[tokio::test(flavor = "multi_thread")]
async fn a_scene_that_cannot_be_removed_is_removed_later() {
    let own = Own::start().await;
    let scene = Scene {
        vhost: "left-1".to_owned(),
        database: "left-1".to_owned(),
        ..Scene::default()
    };
    let quiet = Steps::new(&|_| {});
    own.stack.fresh(scene, &quiet).await.unwrap();
    let postgres = Target::Server(Server::Postgres);
    own.stack.hold(&postgres, End::Kill).await.unwrap();
    own.stack.clear(&quiet).await.unwrap_err();
    own.stack.release(&postgres).await.unwrap();
    wait_until("the scene to be removed", LIMIT, async || {
        own.stack.clear(&quiet).await.is_ok()
    })
    .await;
    // without a scene this is the stack's own database
    let database = own.stack.addresses().unwrap().database;
    let mut database = PgConnection::connect(&database).await.unwrap();
    let left = "select count(*) from pg_database where datname = 'left-1'";
    let (left,): (i64,) = sqlx::query_as(left).fetch_one(&mut database).await.unwrap();
    assert_eq!(left, 0);
    drop(database);
    own.stop().await;
}
