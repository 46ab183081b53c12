//! What the auditor may read, and what not.

use sqlx::{Connection, PgConnection};

use crate::world::{World, create, mail_is, text};

#[tokio::test]
async fn the_auditor_reads_what_became_of_mails_and_neither_passwords_nor_names() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    let welcome = world.welcome("welcome-1").start().await;
    world.ready(&[&api, &welcome]).await;
    let created = create(&api, "ada@example.test").await;
    mail_is(&api, text(&created, "token"), "sent").await;
    let mut auditor = PgConnection::connect(&world.database.auditor_url)
        .await
        .unwrap();
    for sql in [
        "select user_id, message_id, created_at, node, run from signup.account",
        "select * from signup.mail",
        "select message_id, state, tries from signup.outbox",
        "select message_id, reason, state, dead_at, run from signup.dead_letter",
        "select * from signup.failure",
        "select * from signup.delivery",
        "select * from signup.inbox",
        "select * from signup.publication",
    ] {
        sqlx::query(sql)
            .fetch_all(&mut auditor)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for sql in [
        "select password_hash from signup.account",
        "select email from signup.account",
        "select * from signup.account",
        "select * from signup.revoked",
        "select * from signup.login_try",
        "select body from signup.outbox",
        "select body from signup.dead_letter",
        "select headers from signup.dead_letter",
        "insert into signup.mail (message_id) values (gen_random_uuid())",
    ] {
        sqlx::query(sql)
            .fetch_all(&mut auditor)
            .await
            .expect_err(sql);
    }
}
