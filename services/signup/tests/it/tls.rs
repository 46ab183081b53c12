//! Mail servers that want TLS and a password: mails go there, and to nobody who only says that he is one.

use testkit::{Process, wait_until};

use crate::{
    guard::{Begins, Guard, USER},
    world::{LIMIT, World, create, mail_is, text},
};

/// An API, and somebody who waits for a mail; gives the token.
async fn waits(world: &World) -> (Process, String) {
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    let created = create(&api, "ada@example.test").await;
    (api, text(&created, "token").to_owned())
}

/// Waits until mails could not be sent a second time, which says why.
async fn is_away(welcome: &Process, why: &str) {
    let away = async || {
        let tries = welcome.metric("unacked_mail_server_away_total").await;
        let (_, told) = welcome.ready().await.map_err(|error| error.to_string())?;
        let tried = tries.is_ok_and(|tries| tries > 1.5);
        if tried && told["parts"]["smtp"].to_string().contains(why) {
            Ok(())
        } else {
            Err(told.to_string())
        }
    };
    wait_until(&format!("{why}, twice"), LIMIT, away).await;
}

#[tokio::test]
async fn a_mail_goes_by_tls_and_with_a_password_however_tls_begins() {
    for (scheme, starttls, begins) in [
        ("smtp", "required", Begins::ByStarttls),
        ("smtp", "opportunistic", Begins::ByStarttls),
        ("smtps", "opportunistic", Begins::AtOnce),
        ("smtps", "required", Begins::AtOnce),
    ] {
        let world = World::new().await;
        let guard = Guard::before(world.mail.address, begins, "127.0.0.1").await;
        let (api, token) = waits(&world).await;
        let welcome = world
            .welcome("welcome-1")
            .env("SMTP_URL", format!("{scheme}://{USER}@{}", guard.address))
            .env("SMTP_STARTTLS", starttls)
            .env("SMTP_CA_FILE", guard.authority.display())
            .start()
            .await;
        mail_is(&api, &token, "sent").await;
        assert_eq!(world.mail.catcher.caught().len(), 1, "{scheme} {starttls}");
        let plain = guard.plain();
        let verbs: Vec<_> = plain
            .iter()
            .filter_map(|line| line.split(' ').next())
            .collect();
        let only_tls: &[&str] = match begins {
            Begins::AtOnce => &[],
            Begins::ByStarttls => &["EHLO", "STARTTLS"],
        };
        assert_eq!(verbs, only_tls, "{scheme} {starttls}");
        assert!(!welcome.log().contains("p:w") && !welcome.log().contains("p%3Aw"));
    }
}

#[tokio::test]
async fn a_wrong_password_is_no_failure_of_a_mail_and_the_right_one_sends_it() {
    let world = World::new().await;
    let guard = Guard::before(world.mail.address, Begins::ByStarttls, "127.0.0.1").await;
    let (api, token) = waits(&world).await;
    let with = |user: &str| {
        world
            .welcome("welcome-1")
            .env("SMTP_URL", format!("smtp://{user}@{}", guard.address))
            .env("SMTP_STARTTLS", "required")
            .env("SMTP_CA_FILE", guard.authority.display())
            .env("WORK_MAX_FAILURES", 1)
    };
    let mut wrong = with("me%40x:another").start().await;
    is_away(&wrong, "535").await;
    assert!(!wrong.log().contains("another"), "{}", wrong.log_tail());
    wrong.kill().await;
    mail_is(&api, &token, "waiting").await;
    let _right = with(USER).start().await;
    mail_is(&api, &token, "sent").await;
    let failures = world.count("select count(*) from signup.failure").await;
    assert_eq!((world.mail.catcher.caught().len(), failures), (1, 0));
}

#[tokio::test]
async fn who_cannot_show_the_right_certificate_gets_neither_mail_nor_password() {
    let world = World::new().await;
    let (api, token) = waits(&world).await;
    let other = Guard::before(world.mail.address, Begins::AtOnce, "127.0.0.1").await;
    for begins in [Begins::AtOnce, Begins::ByStarttls] {
        let right = Guard::before(world.mail.address, begins, "127.0.0.1").await;
        let elsewhere = Guard::before(world.mail.address, begins, "mail.example.test").await;
        // The other authority has the same name and another key.
        for (guard, authority, why) in [
            (&right, None, "UnknownIssuer"),
            (&right, Some(&other.authority), "BadSignature"),
            (&elsewhere, Some(&elsewhere.authority), "not valid for name"),
        ] {
            let scheme = match begins {
                Begins::AtOnce => "smtps",
                Begins::ByStarttls => "smtp",
            };
            let mut welcome = world
                .welcome("welcome-1")
                .env("SMTP_URL", format!("{scheme}://{USER}@{}", guard.address))
                .env("SMTP_STARTTLS", "required");
            if let Some(authority) = authority {
                welcome = welcome.env("SMTP_CA_FILE", authority.display());
            }
            let mut welcome = welcome.start().await;
            is_away(&welcome, why).await;
            welcome.kill().await;
            let plain = guard.plain();
            let early = |line: &&String| !line.starts_with("EHLO") && *line != "STARTTLS";
            assert_eq!(plain.iter().find(early), None, "{why}");
        }
    }
    mail_is(&api, &token, "waiting").await;
    assert!(world.mail.catcher.caught().is_empty());
}

#[tokio::test]
async fn a_file_without_certificates_is_refused_before_the_start() {
    let world = World::new().await;
    let file = std::env::temp_dir().join(format!("ca-{}.pem", uuid::Uuid::new_v4()));
    let begins = "-----BEGIN CERTIFICATE-----";
    for (content, why) in [
        (None, "No such file"),
        (Some("no certificate\n".to_owned()), begins),
        (
            Some(format!("{begins}\n!\n-----END CERTIFICATE-----\n")),
            "invalid",
        ),
        (
            Some(format!("{begins}\nAAAA\n-----END CERTIFICATE-----\n")),
            "SMTP_CA_FILE",
        ),
    ] {
        if let Some(content) = &content {
            std::fs::write(&file, content).unwrap();
        }
        let welcome = world
            .welcome("welcome-1")
            .env("SMTP_CA_FILE", file.display());
        let (ended, said) = welcome.output(LIMIT).await.unwrap();
        assert_eq!(ended.code(), Some(2), "{said}");
        assert!(
            said.contains("SMTP_CA_FILE") && said.contains(why),
            "{said}"
        );
    }
    std::fs::remove_file(file).unwrap();
}
