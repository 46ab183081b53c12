//! The settings of both roles, and the program that is either.

use std::time::Duration;

use testkit::Program;

use crate::world::notes;

const LIMIT: Duration = Duration::from_secs(10);

fn program() -> Program {
    Program::new("notes-1", notes())
}

#[tokio::test]
async fn the_first_word_says_which_role() {
    for (role, own) in [("api", "--notes-cache "), ("worker", "--notes-per-second ")] {
        let (status, said) = program()
            .arg(role)
            .arg("--help")
            .output(LIMIT)
            .await
            .unwrap();
        assert!(status.success() && said.contains(own), "{said}");
    }
    for wrong in [None, Some("both"), Some("--help")] {
        let mut program = program();
        if let Some(word) = wrong {
            program = program.arg(word);
        }
        let (status, said) = program.output(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(2), "{wrong:?}");
        assert!(said.contains("api or worker"), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_setting_is_named_in_one_line() {
    for (role, name, value) in [
        ("api", "NOTES_CACHE", "never"),
        ("api", "NOTES_CACHE_MS", "0"),
        ("worker", "NOTES_PER_SECOND", "-1"),
    ] {
        let program = program().arg(role).env(name, value);
        let program = program.env("DATABASE_URL", "postgres://a:b@127.0.0.1:1/d");
        let program = program.env("REDIS_URL", "redis://127.0.0.1:1/0");
        let program = program.env("AMQP_URL", "amqp://127.0.0.1:1/%2f");
        let (status, said) = program.output(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("wrong setting {name}")), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}
