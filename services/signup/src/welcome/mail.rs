//! The welcome mail: as text and as HTML, whichever its reader's program shows; and all SQL of the table `mail`.

use std::collections::HashSet;

use askama::Template;
use lettre::{
    Address, Message,
    message::{Mailbox, MultiPart},
};
use messaging::receive::handler::Effect;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{deliver::Deliver, smtp::MailId};
use crate::message::Welcome;

const SUBJECT: &str = "Welcome to Unacked";

#[derive(Template)]
#[template(path = "welcome_mail.txt", escape = "none")]
struct Text<'a> {
    first_name: &'a str,
    last_name: &'a str,
}

#[derive(Template)]
#[template(path = "welcome_mail.html")]
struct Html<'a> {
    first_name: &'a str,
    last_name: &'a str,
}

/// What it is known by: the same for the same message, so that who gets it twice, and every mail program between, can tell.
fn known_by(id: MailId, message_id: Uuid, from: &Mailbox) -> String {
    let id = match id {
        MailId::Message => message_id,
        MailId::Random => Uuid::new_v4(),
    };
    format!("<{id}@{}>", from.email.domain())
}

/// The mail, as it goes to the server.
pub(super) fn write(
    welcome: &Welcome,
    to: Address,
    from: &Mailbox,
    message_id: Uuid,
    id: MailId,
) -> anyhow::Result<Vec<u8>> {
    let (first_name, last_name) = (welcome.first_name.as_str(), welcome.last_name.as_str());
    let text = Text {
        first_name,
        last_name,
    }
    .render()?;
    let html = Html {
        first_name,
        last_name,
    }
    .render()?;
    let mail = Message::builder()
        .message_id(Some(known_by(id, message_id, from)))
        .from(from.clone())
        // Without the name: a header is no place for what others typed, and the library panics at some of it.
        .to(Mailbox::new(None, to))
        .subject(SUBJECT)
        .multipart(MultiPart::alternative_plain_html(text, html))?;
    Ok(mail.formatted())
}

/// Adds the effects of mails that were admitted in the same transaction.
pub(super) async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    node: &str,
    effects: &[&Effect<Deliver>],
) -> Result<(), sqlx::Error> {
    let received = || effects.iter().map(|effect| &effect.received);
    let millis =
        |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let ids: Vec<Uuid> = received().map(|r| r.envelope.message_id).collect();
    let users: Vec<Uuid> = received().map(|r| r.message.user_id).collect();
    let runs: Vec<Option<&str>> = received().map(|r| r.envelope.run.as_deref()).collect();
    let attempts: Vec<i32> = received()
        .map(|r| i32::try_from(r.attempt).unwrap_or(i32::MAX))
        .collect();
    let again: Vec<bool> = received().map(|r| r.redelivered).collect();
    let ages: Vec<i64> = received().map(|r| millis(r.came_in.elapsed())).collect();
    let took: Vec<i64> = effects
        .iter()
        .map(|effect| millis(effect.output.took))
        .collect();
    sqlx::query(
        "insert into mail (message_id, user_id, run, node, attempt, redelivered, received_at, took_ms)
         select id, user_id, run, $8, attempt, redelivered, clock_timestamp() - age * interval '1 ms', took
           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::bool[], $6::bigint[], $7::bigint[])
             as row (id, user_id, run, attempt, redelivered, age, took)",
    )
    .bind(ids)
    .bind(users)
    .bind(runs)
    .bind(attempts)
    .bind(again)
    .bind(ages)
    .bind(took)
    .bind(node)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Which of these were sent. By a subquery for the reason that the inbox has: the index, whatever was planned.
pub(super) async fn of(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let sent: Vec<Uuid> = sqlx::query_scalar(
        "select asked.id from unnest($1::uuid[]) as asked (id)
          where (select true from mail where message_id = asked.id limit 1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(sent.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(first_name: &str, id: MailId, message_id: Uuid) -> String {
        let welcome = Welcome {
            user_id: Uuid::now_v7(),
            first_name: first_name.to_owned(),
            last_name: "Lovelace".to_owned(),
            email: "ada@example.test".to_owned(),
        };
        let from = "Unacked <welcome@mail.example.test>".parse().unwrap();
        let to = welcome.email.parse().unwrap();
        let mail = write(&welcome, to, &from, message_id, id).unwrap();
        String::from_utf8(mail).unwrap()
    }

    #[test]
    fn a_mail_is_known_by_its_message_unless_each_is_a_new_one() {
        let id = Uuid::now_v7();
        let line = format!("Message-ID: <{id}@mail.example.test>\r\n");
        assert!(written("Ada", MailId::Message, id).contains(&line));
        assert!(written("Ada", MailId::Message, id).contains(&line));
        assert!(!written("Ada", MailId::Random, id).contains(&id.to_string()));
    }

    #[test]
    fn a_name_is_text_in_both_parts_and_adds_no_header() {
        let mail = written(
            "<b>\r\nBcc: x@example.test\r\n",
            MailId::Message,
            Uuid::now_v7(),
        );
        let (head, _) = mail.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(
            mail.contains("Hello <b>") && mail.contains("Hello &#60;b&#62;"),
            "{mail}"
        );
    }
}
