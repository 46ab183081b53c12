//! The auditor on a real ledger: a run that real nodes stored, processed and parked, with the record that a load makes.

mod run;

use std::time::Duration;

use lab::audit::class::Class;
use lab::audit::{Circumstances, Report, Verdict};
use sqlx::AssertSqlSafe;
use testkit::{Program, wait_until};

use self::run::{Run, a_good_run};
use crate::world::lab;

const LIMIT: Duration = Duration::from_mins(1);

fn messages(report: &Report, class: Class) -> u64 {
    report.classes.get(&class).map_or(0, |count| count.messages)
}

#[tokio::test]
async fn a_real_run_passes_and_deleting_any_one_row_of_it_fails() {
    let (run, circumstances) = a_good_run().await;
    let good = run.judge(&circumstances).await;
    assert_eq!(good.verdict, Verdict::Pass, "{good:#?}");
    assert_eq!((good.requests.offered, good.requests.messages), (30, 42));
    assert_eq!(messages(&good, Class::Ok), 39);
    assert_eq!(messages(&good, Class::Parked), 2);
    assert_eq!(messages(&good, Class::Recovered), 1);
    assert_eq!(good.figures.attempts.values().sum::<u64>(), 40);
    assert_eq!(good.figures.failures, 40);
    assert_eq!(good.figures.nodes["receiver-1"].effects, 40);
    assert_eq!(good.figures.nodes["receiver-1"].parked, 2);
    assert_eq!(good.figures.nodes["sender-1"].accepted, 42);
    assert!(good.figures.processed_us.is_some());

    let tables = [
        ("sender.message", "number", 42),
        ("receiver.processed", "processed_id", 40),
        ("receiver.dead_letter", "dead_letter_id", 2),
    ];
    for (table, key, rows) in tables {
        run.change(format!("create table public.kept as table {table}"))
            .await;
        let keys = format!("select {key} from {table} order by 1");
        let keys: Vec<(i64,)> = sqlx::query_as(AssertSqlSafe(keys))
            .fetch_all(&run.world.database.admin)
            .await
            .unwrap();
        assert_eq!(keys.len(), rows, "{table}");
        for (row,) in keys {
            assert_eq!(
                run.change(format!("delete from {table} where {key} = {row}"))
                    .await,
                1
            );
            let report = run.judge(&circumstances).await;
            assert_eq!(
                report.verdict,
                Verdict::Fail,
                "{table} without {row}: {report:#?}"
            );
            assert!(!report.culprits.is_empty());
            let back = format!(
                "insert into {table} overriding system value
                 select * from public.kept where {key} = {row}"
            );
            assert_eq!(run.change(back).await, 1);
        }
        run.change("drop table public.kept".to_owned()).await;
        assert_eq!(
            run.judge(&circumstances).await.verdict,
            Verdict::Pass,
            "{table}"
        );
    }
}

#[tokio::test]
async fn each_kind_of_harm_has_its_class_and_the_culprit_its_history() {
    let (run, circumstances) = a_good_run().await;
    let id = run.dir.id().clone();
    let of = |number| {
        format!(
            "(select message_id from sender.message where idempotency_key = '{}')",
            id.key(number)
        )
    };
    let copy = "insert into receiver.processed
                 (message_id, number, text, run, node, attempt, redelivered, received_at, took_ms)
                 select";
    let rest =
        "number, text, run, node, attempt, true, received_at, took_ms from receiver.processed";

    run.change(format!(
        "{copy} message_id, {rest} where message_id = {}",
        of(1)
    ))
    .await;
    run.change(format!(
        "{copy} gen_random_uuid(), {rest} where message_id = {}",
        of(2)
    ))
    .await;
    run.change(format!(
        "delete from receiver.processed where message_id = {}",
        of(3)
    ))
    .await;
    run.change(format!(
        "delete from receiver.processed where message_id = {}",
        of(4)
    ))
    .await;
    run.change(format!(
        "insert into receiver.dead_letter (fingerprint, redrive, message_id, body, reason, headers, node, run)
         values ('x', 0, {}, '', 'made up', '{{}}', 'receiver-1', '{id}')",
        of(4)
    ))
    .await;

    let report = run.judge(&circumstances).await;
    assert_eq!(report.verdict, Verdict::Fail);
    let wrong = [
        Class::Duplicated,
        Class::Unexpected,
        Class::Lost,
        Class::GivenUpWrongly,
    ];
    for class in wrong {
        assert_eq!(
            messages(&report, class),
            1,
            "{class}: {:#?}",
            report.classes
        );
    }
    assert_eq!(report.figures.twice_redelivered, 1);
    let lost = report
        .culprits
        .iter()
        .find(|culprit| culprit.class == Class::Lost)
        .unwrap();
    assert_eq!(lost.key, Some(id.key(3)));
    let history: Vec<&str> = lost.history.iter().map(|step| step.what.as_str()).collect();
    let told = |what: &str| {
        assert!(
            history.iter().any(|line| line.contains(what)),
            "{what}: {history:#?}"
        );
    };
    told("the client has its answer after 1 try: accepted");
    told("accepted by sender-1 as number");
    told("published by sender-1, try 1: confirmed");
    let twice = report
        .culprits
        .iter()
        .find(|culprit| culprit.class == Class::Duplicated)
        .unwrap();
    let effects = twice
        .history
        .iter()
        .filter(|step| step.what.starts_with("EFFECT"))
        .count();
    assert_eq!(effects, 2, "{twice:#?}");

    // one that may be given up on, and nothing else wrong
    run.change(format!(
        "{copy} message_id, {rest} where message_id = {} limit 1",
        of(1)
    ))
    .await;
    let allowed = Circumstances {
        dead_max: 1,
        ..circumstances.clone()
    };
    let report = run.judge(&allowed).await;
    assert_eq!(messages(&report, Class::GivenUpWrongly), 0);
    assert_eq!(messages(&report, Class::Parked), 3);

    // traces of another run, or of none, are none of this one's
    run.change("delete from receiver.processed where message_id not in (select message_id from sender.message)".to_owned())
        .await;
    run.change("update sender.message set run = null".to_owned())
        .await;
    let report = run.judge(&circumstances).await;
    assert_eq!(messages(&report, Class::Ok), 0);
}

#[tokio::test]
async fn a_receiver_that_hangs_leaves_the_run_stuck() {
    let slow = |receiver: Program| {
        receiver
            .env("WORK_DELAY_MIN_MS", 300_000)
            .env("WORK_DELAY_MAX_MS", 300_000)
    };
    let mut run = Run::new(slow).await;
    run.request(0, &["waits for ever"], None).await;
    let circumstances = run.watch(Duration::from_secs(5)).await;
    assert_eq!(
        (circumstances.drained, circumstances.stuck),
        (false, true),
        "{circumstances:?}"
    );
    let report = run.judge(&circumstances).await;
    assert_eq!(
        (report.verdict, messages(&report, Class::Stuck)),
        (Verdict::Fail, 1)
    );
    // with nobody there to work on it, nobody knows
    run.nodes[1].kill().await;
    let circumstances = run.watch(Duration::from_secs(5)).await;
    let report = run.judge(&circumstances).await;
    assert_eq!(
        (report.verdict, messages(&report, Class::Pending)),
        (Verdict::Inconclusive, 1)
    );
    assert!(
        report.reasons[0].contains("receiver-1 does not answer"),
        "{:?}",
        report.reasons
    );
}

#[tokio::test]
async fn the_command_ends_with_the_verdicts_code() {
    let (run, _) = a_good_run().await;
    let url = run.world.database.auditor_url.clone();
    let only = ["--wait", "0", "--database-url", &url];
    let (code, text) = run.command(&only).await;
    assert!(
        code == 0 && text.starts_with("PASS  run r"),
        "{code}: {text}"
    );

    run.change("delete from receiver.processed where number = 1".to_owned())
        .await;
    let json = [only.as_slice(), &["--json"]].concat();
    let (code, text) = run.command(&json).await;
    assert_eq!(code, 3, "without a watch nobody knows: {text}");
    let report: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(messages(&report, Class::Pending), 1);

    // not drained by its own outbox, so it is watched: nothing moves, and no node is to be seen
    let (code, text) = run.command(&["--wait", "1", "--database-url", &url]).await;
    assert!(
        code == 3 && text.contains("the nodes cannot be seen"),
        "{code}: {text}"
    );

    run.change(
        "update receiver.processed set message_id = gen_random_uuid() where number = 2".to_owned(),
    )
    .await;
    let (code, text) = run.command(&only).await;
    assert!(
        code == 1 && text.starts_with("FAIL  run r"),
        "{code}: {text}"
    );

    let away = "postgres://auditor:secret@127.0.0.1:1/unacked";
    let (code, text) = run.command(&["--wait", "0", "--database-url", away]).await;
    assert!(
        code == 3 && text.starts_with("INCONCLUSIVE") && !text.contains("secret"),
        "{code}: {text}"
    );
    for wrong in [
        &["--database-url", "mysql://h/d"][..],
        &["--wait", "-1"],
        &["--dead-max", "some"],
        &["--wait", "0"],
    ] {
        let (code, text) = run.command(wrong).await;
        assert_eq!(code, 2, "{wrong:?}: {text}");
    }
    let unknown = Program::new("lab", lab())
        .arg("--lab-dir")
        .arg(run.root.to_string_lossy());
    let unknown = unknown
        .arg("audit")
        .arg("--run")
        .arg("nobody")
        .output(LIMIT)
        .await
        .unwrap();
    assert_eq!(unknown.0.code(), Some(2), "{}", unknown.1);
}

#[tokio::test]
async fn an_answer_that_was_torn_off_is_none() {
    let mut run = Run::new(|receiver| receiver).await;
    run.request(0, &["before"], None).await;
    run.request(
        1,
        &["answered, but the load died while it wrote that down"],
        None,
    )
    .await;
    let log = run.dir.path(lab::run::requests::FILE);
    let text = std::fs::read_to_string(&log).unwrap();
    let without_last = text.trim_end().rsplit_once('\n').unwrap().0;
    std::fs::write(&log, format!("{without_last}\na 1 acc")).unwrap();
    wait_until("both effects", LIMIT, async || {
        run.world
            .count("select count(*) from receiver.processed")
            .await
            == 2
    })
    .await;
    let drained = Circumstances {
        drained: true,
        ..Circumstances::default()
    };
    let report = run.judge(&drained).await;
    assert_eq!(
        (
            messages(&report, Class::Ok),
            messages(&report, Class::Recovered)
        ),
        (1, 1)
    );
    assert_eq!(report.verdict, Verdict::Pass);
}
