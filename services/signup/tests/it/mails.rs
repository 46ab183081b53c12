//! Mails: sent once where that can be, twice under one Message-ID where it cannot, and given up on only
//! when a mail server says so.

use std::collections::HashSet;

use reqwest::{StatusCode, header::ACCEPT};
use serde_json::{Value, json};
use signup::catcher::Answer;
use testkit::{Process, wait_until, wait_until_eq};

use crate::world::{LIMIT, World, client, create, mail_is, person, post, text};

const EFFECTS: &str = "select count(*) from signup.mail";
const FAILURES: &str = "select count(*) from signup.failure";

/// An API, and somebody who signed up.
async fn signed_up(world: &World) -> (Process, String, String) {
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    let created = create(&api, "ada@example.test").await;
    let both = ["token", "messageId"].map(|field| text(&created, field).to_owned());
    let [token, message_id] = both;
    (api, token, message_id)
}

#[tokio::test]
async fn a_mail_has_two_parts_with_the_names_as_text() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    let welcome = world
        .welcome("welcome-1")
        .env("MAIL_FROM", "Lab <hi@mail.example.test>")
        .start()
        .await;
    world.ready(&[&api, &welcome]).await;
    let mut body = person("Ada.L@example.test");
    body["firstName"] = json!("<b>J\u{fc}rgen</b>");
    let created: Value = post(&api, "/createUser", &body).await.json().await.unwrap();
    let told = mail_is(&api, text(&created, "token"), "sent").await;
    let caught = world.mail.caught(1).await;
    let [mail] = caught.as_slice() else {
        panic!("{caught:?}")
    };
    assert_eq!(
        mail.message_id,
        format!("{}@mail.example.test", text(&told, "messageId"))
    );
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        (
            "hi@mail.example.test",
            &["Ada.L@example.test".to_owned()][..]
        )
    );
    assert_eq!(mail.subject, "Welcome to Unacked");
    let plain = mail.part("text/plain").unwrap();
    assert!(
        plain.contains("Hello <b>J\u{fc}rgen</b> Lovelace,"),
        "{plain}"
    );
    let html = mail.part("text/html").unwrap();
    assert!(
        html.contains("Hello &#60;b&#62;J\u{fc}rgen&#60;/b&#62; Lovelace,")
            && !html.contains("<b>"),
        "{html}"
    );
    assert!(
        !welcome.log().to_lowercase().contains("ada.l@"),
        "{}",
        welcome.log()
    );
    let sent = welcome.metric("unacked_mails_sent_total").await.unwrap();
    assert!((sent - 1.0).abs() < 0.1, "{sent}");
}

/// Has the sender of mails die there, and come back; gives how many copies there are, and how many ids.
async fn die_at(fail_point: &str, mail_id: &str) -> (World, usize, usize) {
    let world = World::new().await;
    let (api, token, message_id) = signed_up(&world).await;
    let mut welcome = world
        .welcome("welcome-1")
        .env("MAIL_ID", mail_id)
        .env("FAIL_POINTS", format!("{fail_point}=crash@1"))
        .start()
        .await;
    assert!(!welcome.wait(LIMIT).await.unwrap().success());
    welcome.set_env("FAIL_POINTS", "");
    welcome.start_again().await;
    mail_is(&api, &token, "sent").await;
    // Nothing is on its way any more, so no further copy comes.
    let rest = async || {
        let depth = world.broker.queue_statistics("welcome").await.ok();
        let settled = depth.is_some_and(|depth| depth.ready == 0 && depth.unacked == 0);
        (
            settled,
            world.count("select count(*) from signup.outbox").await,
        )
    };
    wait_until_eq("the road to be empty", LIMIT, (true, 0), rest).await;
    let caught = world.mail.catcher.caught();
    let mut ids: Vec<_> = caught.iter().map(|mail| mail.message_id.clone()).collect();
    ids.sort();
    ids.dedup();
    if mail_id == "message" {
        assert_eq!(ids, [format!("{message_id}@example.test")]);
    }
    assert_eq!(
        world.count(EFFECTS).await,
        1,
        "however many copies: one effect"
    );
    (world, caught.len(), ids.len())
}

#[tokio::test]
async fn dying_between_the_servers_yes_and_the_commit_sends_two_copies_under_one_id() {
    let (_world, copies, ids) = die_at("welcome.after_smtp", "message").await;
    assert_eq!((copies, ids), (2, 1));
}

#[tokio::test]
async fn with_an_id_for_each_try_nobody_can_tell_that_the_copies_are_one_mail() {
    let (_world, copies, ids) = die_at("welcome.after_smtp", "random").await;
    assert_eq!((copies, ids), (2, 2));
}

#[tokio::test]
async fn dying_before_the_commit_of_the_effect_sends_two_copies_under_one_id() {
    let (_world, copies, ids) = die_at("consumer.before_commit", "message").await;
    assert_eq!((copies, ids), (2, 1));
}

#[tokio::test]
async fn dying_between_the_commit_and_the_ack_sends_one_copy() {
    let (_world, copies, ids) = die_at("settle.before_ack", "message").await;
    assert_eq!((copies, ids), (1, 1));
}

#[tokio::test]
async fn a_yes_that_was_lost_is_a_failure_and_the_mail_is_sent_again_under_its_id() {
    let world = World::new().await;
    world.mail.catcher.answer([Answer::SilentYes]);
    let (api, token, _) = signed_up(&world).await;
    let _welcome = world.welcome("welcome-1").start().await;
    mail_is(&api, &token, "sent").await;
    let caught = world.mail.caught(2).await;
    assert_eq!(caught.len(), 2);
    assert_eq!(caught[0].message_id, caught[1].message_id);
    assert_eq!(
        (world.count(EFFECTS).await, world.count(FAILURES).await),
        (1, 1)
    );
}

#[tokio::test]
async fn a_server_that_never_says_what_came_of_a_mail_does_not_get_it_without_end() {
    let world = World::new().await;
    world.mail.catcher.always(Some(Answer::SilentYes));
    let (api, token, _) = signed_up(&world).await;
    let welcome = world.welcome("welcome-1").env("WORK_MAX_FAILURES", 3);
    let _welcome = welcome.start().await;
    mail_is(&api, &token, "failed").await;
    let caught = world.mail.catcher.caught();
    let ids: HashSet<_> = caught.iter().map(|mail| &mail.message_id).collect();
    assert_eq!((caught.len(), ids.len()), (3, 1));
    assert_eq!(
        (world.count(EFFECTS).await, world.count(FAILURES).await),
        (0, 3)
    );
}

#[tokio::test]
async fn what_a_server_says_of_the_sender_is_no_failure_of_a_mail() {
    let world = World::new().await;
    world.mail.catcher.answer([
        Answer::ToSender("553 5.7.1 not with this sender".to_owned()),
        Answer::ToRecipient("530 5.7.0 log in first".to_owned()),
        Answer::ToMail("421 4.3.2 closing down".to_owned()),
    ]);
    let (api, token, _) = signed_up(&world).await;
    let _welcome = world
        .welcome("welcome-1")
        .env("WORK_MAX_FAILURES", 1)
        .start()
        .await;
    mail_is(&api, &token, "sent").await;
    assert_eq!(world.mail.catcher.caught().len(), 1);
    assert_eq!(world.count(FAILURES).await, 0);
}

#[tokio::test]
async fn a_server_that_says_later_is_asked_again_by_the_ladder() {
    let world = World::new().await;
    world.mail.catcher.answer([
        Answer::ToRecipient("451 4.7.1 greylisted, ada@example.test must wait".to_owned()),
        Answer::ToMail("452 4.3.1 no room just now".to_owned()),
        Answer::ToSender("451 4.7.1 too many of this sender for now".to_owned()),
    ]);
    let (api, token, _) = signed_up(&world).await;
    let welcome = world.welcome("welcome-1").start().await;
    mail_is(&api, &token, "sent").await;
    assert_eq!(
        (
            world.mail.catcher.caught().len(),
            world.count(EFFECTS).await
        ),
        (1, 1)
    );
    assert_eq!(world.count(FAILURES).await, 3);
    let delayed = welcome
        .metric("unacked_messages_delayed_total")
        .await
        .unwrap();
    assert!(
        (delayed - 3.0).abs() < 0.1,
        "all went by the ladder: {delayed}"
    );
    let with_address = "select count(*) from signup.failure where reason like '%ada%'";
    assert_eq!(
        world.count(with_address).await,
        0,
        "no address stands in a reason"
    );
}

#[tokio::test]
async fn a_mail_that_is_refused_for_good_is_parked_and_its_account_says_so() {
    for (answer, failures) in [
        (
            Answer::ToRecipient("550 5.1.1 no such mailbox".to_owned()),
            1,
        ),
        (Answer::ToMail("554 5.7.1 we do not want it".to_owned()), 1),
        (Answer::ToRecipient("450 4.2.0 later, always".to_owned()), 2),
    ] {
        let world = World::new().await;
        world.mail.catcher.always(Some(answer.clone()));
        let (api, token, message_id) = signed_up(&world).await;
        let welcome = world
            .welcome("welcome-1")
            .env("WORK_MAX_FAILURES", 2)
            .start()
            .await;
        mail_is(&api, &token, "failed").await;
        assert_eq!(
            (world.count(FAILURES).await, world.count(EFFECTS).await),
            (failures, 0),
            "{answer:?}"
        );
        let reason: String =
            sqlx::query_scalar("select reason from signup.dead_letter where message_id::text = $1")
                .bind(&message_id)
                .fetch_one(&world.database.admin)
                .await
                .unwrap();
        let code = match &answer {
            Answer::ToRecipient(said) | Answer::ToMail(said) => &said[..3],
            _ => unreachable!(),
        };
        assert!(reason.contains(code), "{reason}");
        let listed = world.database.dead_letters_of("signup").await;
        assert!(
            listed.contains(&message_id) && listed.contains(&reason),
            "{listed}"
        );
        assert!(!listed.contains('@'), "{listed}");
        assert!(world.mail.catcher.caught().is_empty());
        let request = client()
            .get(api.url())
            .header(ACCEPT, "text/html")
            .bearer_auth(&token);
        let page = request.send().await.unwrap().text().await.unwrap();
        assert!(page.contains("mail: failed"), "{page}");
        world.ready(&[&welcome]).await;
        // Others still get theirs.
        world.mail.catcher.always(None);
        let next = create(&api, "bob@example.test").await;
        mail_is(&api, text(&next, "token"), "sent").await;
    }
}

#[tokio::test]
async fn while_the_mail_server_is_down_mails_wait_and_none_is_given_up() {
    let mut world = World::new().await;
    world.mail.down().await;
    let (api, token, _) = signed_up(&world).await;
    let welcome = world
        .welcome("welcome-1")
        .env("WORK_MAX_FAILURES", 1)
        .env("MAX_DELIVERIES", 1)
        .start()
        .await;
    let away = async || {
        let (_, told) = welcome.ready().await.map_err(|error| error.to_string())?;
        let tries = welcome
            .metric("unacked_mail_server_away_total")
            .await
            .unwrap_or(0.0);
        if tries > 2.5 && told["parts"]["smtp"]["state"] == "away" {
            Ok(told)
        } else {
            Err(format!("{tries}: {told}"))
        }
    };
    wait_until("it to be tried three times", LIMIT, away).await;
    let (ready, told) = welcome.ready().await.unwrap();
    assert!(ready, "mails may wait here: {told}");
    assert_eq!(world.count(FAILURES).await, 0);
    mail_is(&api, &token, "waiting").await;
    world.mail.up();
    mail_is(&api, &token, "sent").await;
    assert_eq!(
        (
            world.mail.catcher.caught().len(),
            world.count(FAILURES).await
        ),
        (1, 0)
    );
    assert_eq!(
        world.count("select count(*) from signup.dead_letter").await,
        0
    );
}

#[tokio::test]
async fn a_stop_while_the_mail_server_is_down_is_clean_and_another_node_sends() {
    let mut world = World::new().await;
    world.mail.down().await;
    let (api, token, _) = signed_up(&world).await;
    let mut welcome = world.welcome("welcome-1").start().await;
    let tried = async || {
        welcome
            .metric("unacked_mail_server_away_total")
            .await
            .is_ok_and(|tries| tries > 0.5)
    };
    wait_until("it to be tried", LIMIT, tried).await;
    let ended = welcome.terminate(LIMIT).await.unwrap();
    assert!(ended.success(), "{ended}: {}", welcome.log_tail());
    let returned = "select count(*) from signup.delivery
                     where outcome = 'returned' and cause = 'the node is stopping'";
    assert_eq!(
        (world.count(returned).await, world.count(FAILURES).await),
        (1, 0)
    );
    world.mail.up();
    let _other = world.welcome("welcome-2").start().await;
    mail_is(&api, &token, "sent").await;
    assert_eq!(
        (
            world.mail.catcher.caught().len(),
            world.count(EFFECTS).await
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn where_tls_or_a_password_is_wanted_nothing_goes_out_without() {
    let world = World::new().await;
    let (_api, _token, _) = signed_up(&world).await;
    let plain = format!("smtp://{}", world.mail.address);
    let with_password = plain.replace("smtp://", "smtp://me:secret@");
    for (url, starttls) in [(&plain, "required"), (&with_password, "off")] {
        let welcome = world
            .welcome("welcome-1")
            .env("SMTP_URL", url)
            .env("SMTP_STARTTLS", starttls);
        let mut welcome = welcome.start().await;
        let tried = async || {
            welcome
                .metric("unacked_mail_server_away_total")
                .await
                .is_ok_and(|tries| tries > 1.5)
        };
        wait_until("it to be tried twice", LIMIT, tried).await;
        assert!(!welcome.log().contains("secret"));
        welcome.kill().await;
    }
    assert!(world.mail.catcher.caught().is_empty());
    assert_eq!(world.count(FAILURES).await, 0, "it is not the mail's fault");
}

#[tokio::test]
async fn wrong_settings_are_refused_with_their_names() {
    let world = World::new().await;
    for (name, wrong) in [
        ("SMTP_URL", "http://mail"),
        ("MAIL_FROM", "nobody"),
        ("MAIL_ID", "none"),
        ("SMTP_STARTTLS", "maybe"),
    ] {
        let welcome = world.welcome("welcome-1").env(name, wrong);
        let (ended, said) = welcome.output(LIMIT).await.unwrap();
        assert_eq!(ended.code(), Some(2), "{said}");
        assert!(said.contains(name), "{said}");
    }
    let api = world.api("api-1").start().await;
    assert_eq!(
        client()
            .get(api.ops_url() + "/health/live")
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
    let metrics = client()
        .get(api.ops_url() + "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for name in [
        "unacked_accounts_created_total 0",
        "unacked_hashes_refused_total 0",
        "unacked_logouts_total 0",
        "unacked_outbox_messages 0",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
}
