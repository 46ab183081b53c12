//! Two runs side by side.

use std::fs;

use super::*;
use crate::audit::Circumstances;
use crate::run::tests::Root;

fn pair() -> (Root, [RunDir; 2]) {
    let root = Root::new();
    let dirs = ["r1", "r2"].map(|id| root.run(id));
    for (nth, dir) in dirs.iter().enumerate() {
        let mut meta = dir.meta().unwrap();
        meta.load = Some(crate::load::Plan {
            size: 100 + nth,
            ..Default::default()
        });
        meta.stack.queue_type = Some(["quorum", "classic"][nth].to_owned());
        meta.stack.broker_version = Some("<3.10.8>".to_owned());
        dir.write_meta(&meta).unwrap();
        fs::write(dir.path("requests.log"), "o 0 0 1 0\na 0 accepted 1 4000\n").unwrap();
    }
    (root, dirs)
}

fn row<'a>(rows: &'a [Row], what: &str) -> &'a Row {
    rows.iter().find(|row| row.what == what).unwrap()
}

#[test]
fn what_differs_is_marked_and_nothing_else() {
    let (_root, dirs) = pair();
    let known = dirs.each_ref().map(|dir| Known::read(dir).unwrap());
    let rows = rows([&known[0], &known[1]]);
    for (what, values, differs) in [
        ("Queue", ["quorum", "classic"], true),
        ("bytes", ["100", "101"], true),
        ("RabbitMQ", ["<3.10.8>"; 2], false),
        ("rate", ["50"; 2], false),
    ] {
        let row = row(&rows, what);
        assert_eq!(row.values, values.map(|value| Some(value.to_owned())));
        assert_eq!(row.differs, differs, "{what}");
    }
    let page = page([&known[0], &known[1]], &rows).unwrap();
    assert!(
        page.contains("&#60;3.10.8&#62;") && !page.contains("://"),
        "{page}"
    );
    // both pictures of the flow, for wide and for narrow screens
    assert_eq!(page.matches("aria-label=\"Flow").count(), 4);
    let comparison = Comparison {
        runs: ["r1", "r2"].map(|id| id.parse().unwrap()),
        rows,
        page: PathBuf::from("x.html"),
    };
    let text = comparison.text();
    let line = |what: &str| {
        text.lines()
            .find(|line| line.starts_with(what))
            .unwrap()
            .to_owned()
    };
    assert!(
        line("Queue ").contains("≠ quorum") && line("Queue ").ends_with("classic"),
        "{text}"
    );
    assert!(!line("RabbitMQ").contains('≠'), "{text}");
}

#[test]
fn what_only_one_of_them_has_stands_beside_its_part() {
    let (root, dirs) = pair();
    let report =
        audit::Report::unseen(&dirs[1], Circumstances::default(), &anyhow::anyhow!("x")).unwrap();
    fs::write(
        dirs[1].path(audit::report::FILE),
        serde_json::to_vec(&report).unwrap(),
    )
    .unwrap();
    let known = dirs.each_ref().map(|dir| Known::read(dir).unwrap());
    let rows = rows([&known[0], &known[1]]);
    assert_eq!(
        row(&rows, "verdict").values,
        ["not judged", "INCONCLUSIVE"].map(|word| Some(word.to_owned()))
    );
    let figure = row(&rows, "Failures of the work");
    assert_eq!(figure.values, [None, Some("0".to_owned())]);
    let parts: Vec<&str> = rows.iter().map(|row| row.part).collect();
    let mut distinct = parts.clone();
    distinct.dedup();
    assert_eq!(
        distinct,
        ["run", "stack", "load", "figures"],
        "each part in one piece"
    );
    let args = CompareArgs {
        one: "r1".to_owned(),
        other: "r3".to_owned(),
        json: false,
    };
    let absent = run(&root.0, &args).unwrap_err();
    assert!(absent.is::<Usage>());
    let said = absent.to_string();
    assert!(said.ends_with("; there are: r2, r1"), "{said}");
    let other = "r1".to_owned();
    let same = run(&root.0, &CompareArgs { other, ..args });
    assert!(same.unwrap_err().is::<Usage>());
}

#[test]
fn a_class_of_which_a_judged_run_has_none_is_none_and_not_unknown() {
    let (_root, dirs) = pair();
    let journal = crate::report::made::passed();
    let mut audits = [journal.audit.clone(), journal.audit];
    audits[0].classes.remove(&Class::Recovered);
    let values = |of: [&RunDir; 2]| {
        let known = of.map(|dir| Known::read(dir).unwrap());
        let rows = rows([&known[0], &known[1]]);
        row(&rows, "recovered").values.clone()
    };
    audits[1].write(&dirs[1]).unwrap();
    let two = Some("2".to_owned());
    assert_eq!(values([&dirs[0], &dirs[1]]), [None, two.clone()]);
    audits[0].write(&dirs[0]).unwrap();
    let none = Some("0".to_owned());
    assert_eq!(values([&dirs[0], &dirs[1]]), [none.clone(), two.clone()]);
    assert_eq!(values([&dirs[1], &dirs[0]]), [two, none]);
}
