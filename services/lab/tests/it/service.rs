//! `lab serve`: experiments over HTTP, on stacks of their own.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use lab::stack::dir;
use nix::sys::signal::Signal;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HOST, LOCATION, ORIGIN, RETRY_AFTER};
use serde_json::{Value, json};
use testkit::wait_until;
use tokio::process::Command;

use crate::served::Served;
use crate::world::lab;

const QUICK: &str = "/lab/api/experiments/quick/runs";

#[tokio::test]
async fn an_experiment_is_started_watched_and_judged_by_requests() {
    let lab = Served::start().await;
    let (status, all) = lab.look("/lab/api/experiments").await;
    let quick = all["experiments"].as_array().unwrap().iter();
    let quick = quick.clone().find(|one| one["name"] == "quick").unwrap();
    assert_eq!((status, &quick["possible"]), (200, &json!(true)), "{all}");
    assert_eq!(quick["twin"], "without ack-after-commit: FAIL (lost)");

    let request = lab.ask(Method::POST, QUICK).json(&json!({"seed": 7}));
    let started = request.send().await.unwrap();
    assert_eq!(started.status(), 202);
    let place = started.headers()[LOCATION].to_str().unwrap().to_owned();
    let started: Value = started.json().await.unwrap();
    let id = started["run"].as_str().unwrap();
    assert_eq!(place, format!("/lab/api/runs/{id}"));
    assert_eq!(
        (&started["state"], &started["seed"]),
        (&json!("starting"), &json!(7))
    );

    // while it runs: no other one, and no verdict
    let (status, busy) = lab.begin("quick", &Value::Null).await;
    assert_eq!(
        (status, &busy["type"]),
        (409, &json!("urn:unacked:problem:busy"))
    );
    let stop = format!("DELETE /lab/api/runs/{id}");
    assert!(busy["detail"].as_str().unwrap().contains(&stop), "{busy}");
    let verdict = format!("{place}/verdict");
    let early = lab.ask(Method::GET, &verdict).send().await.unwrap();
    assert_eq!(early.status(), 409);
    assert_eq!(early.headers()[CONTENT_TYPE], "application/problem+json");
    assert!(early.headers().contains_key(RETRY_AFTER));
    let no_report = lab.look(&format!("/lab/runs/{id}/report.html")).await;
    assert_eq!(no_report.0, 404);

    let mut states: Vec<String> = Vec::new();
    let done = wait_until("the run to be done", Duration::from_mins(2), async || {
        let (_, run) = lab.look(&place).await;
        let state = run["state"].as_str().unwrap().to_owned();
        if states.last() != Some(&state) {
            states.push(state);
        }
        if run["state"] == "done" {
            Ok(run)
        } else {
            Err(run.to_string())
        }
    })
    .await;
    // judging is over in a moment, and may be missed
    states.retain(|state| state != "judging");
    assert_eq!(states, ["starting", "loading", "draining", "done"]);
    assert_eq!(
        (&done["counts"]["accepted"], &done["counts"]["processed"]),
        (&json!(40), &json!(40))
    );
    assert!(done["steps"].to_string().contains("drained"), "{done}");
    let (status, verdict) = lab.look(&verdict).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&verdict["verdict"], &verdict["outcome"]),
        (&json!("PASS"), &json!("AsExpected"))
    );

    let report = verdict["report"].as_str().unwrap();
    let page = lab.ask(Method::GET, report).send().await.unwrap();
    assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("style-src 'unsafe-inline'"), "{policy}");
    assert!(page.text().await.unwrap().contains(id));
    let (_, runs) = lab.look("/lab/api/runs?limit=1").await;
    assert_eq!(runs["runs"][0]["run"], id, "{runs}");
    let again = lab.begin("quick", &json!({"run": id})).await;
    assert_eq!(
        (again.0, &again.1["type"]),
        (409, &json!("urn:unacked:problem:run_exists"))
    );
    // what is over cannot be stopped, and that is no error
    let stopped = lab.ask(Method::DELETE, &place).send().await.unwrap();
    assert_eq!(stopped.status(), 200);
    assert_eq!(stopped.json::<Value>().await.unwrap()["state"], "done");

    // a service that starts anew knows it from its folder
    let folder = dir::real(&lab.root);
    let (id, known) = (
        id.to_owned(),
        lab::service::shelf::newest(&folder, 9).unwrap(),
    );
    assert_eq!(known.len(), 1);
    assert_eq!(serde_json::to_value(&known[0]).unwrap()["verdict"], "PASS");
    assert_eq!(known[0].run.as_str(), id);
    assert_eq!(lab.end().await, Some(0));
}

#[tokio::test]
async fn what_is_not_as_it_should_be_starts_nothing() {
    let lab = Served::start().await;
    let request = |headers: &[(reqwest::header::HeaderName, &str)], body: &'static str| {
        let request = lab.ask(Method::POST, QUICK).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(name, *value)
        });
        async { request.send().await.unwrap().status().as_u16() }
    };
    let here = lab.url.trim_start_matches("http://").to_owned();
    let json = (CONTENT_TYPE, "application/json");
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(request(&[(ORIGIN, origin)], "").await, 403, "{origin}");
        assert_eq!(
            request(&[json.clone(), (ORIGIN, origin)], "{}").await,
            403,
            "{origin}"
        );
    }
    // a name that was made to point here
    let rebound = [(HOST, "evil.example"), (ORIGIN, "http://evil.example")];
    assert_eq!(request(&rebound, "").await, 421);
    let look = lab
        .ask(Method::GET, "/lab/api/runs")
        .header(HOST, "evil.example");
    assert_eq!(look.send().await.unwrap().status(), 421);
    // what a form of any page can send
    for media in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        assert_eq!(
            request(&[(CONTENT_TYPE, media)], "{}").await,
            415,
            "{media}"
        );
    }
    assert_eq!(request(&[], "{}").await, 415);
    for (body, status) in [
        ("{", 400),
        ("[]", 422),
        (r#"{"seed": -1}"#, 422),
        (r#"{"twin": "yes"}"#, 422),
        (r#"{"twn": true}"#, 422),
        (r#"{"run": "../../x"}"#, 422),
        (r#"{"run": ""}"#, 422),
    ] {
        assert_eq!(
            request(std::slice::from_ref(&json), body).await,
            status,
            "{body}"
        );
    }
    assert_eq!(lab.begin("long", &json!({"twin": true})).await.0, 422);
    for unknown in ["nobody", "quick.yaml", "..%2Fquick", "%2Fetc%2Fpasswd"] {
        assert_eq!(lab.begin(unknown, &Value::Null).await.0, 404, "{unknown}");
    }
    let stop = lab.ask(Method::DELETE, "/lab/api/runs/nobody");
    assert_eq!(stop.send().await.unwrap().status(), 404);
    for (path, status) in [
        ("/lab/api/runs/nobody", 404),
        ("/lab/api/runs/nobody/verdict", 404),
        ("/lab/runs/nobody/report.html", 404),
        ("/lab/runs/..%2F..%2Fetc/report.html", 400),
        ("/lab/api/runs/..%2Fx", 400),
        ("/lab/api/runs/A/verdict", 400),
        ("/lab/api/runs/nobody/verdict?wait_s=121", 422),
        ("/lab/api/runs/nobody/verdict?wait_s=x", 422),
        ("/lab/api/runs/nobody/verdict?wait=1", 422),
        ("/lab/api/runs?limit=0", 422),
        ("/lab/api/nothing", 404),
        (QUICK, 405),
    ] {
        let (found, problem) = lab.look(path).await;
        assert_eq!(
            (found, &problem["status"]),
            (status, &json!(status)),
            "{path}"
        );
    }

    // another command has the stage
    dir::make_folder(&lab.stage(), 0o711).unwrap();
    let taken = dir::lock(&lab.stage()).unwrap().unwrap();
    let (status, problem) = lab.begin("quick", &Value::Null).await;
    assert_eq!(
        (status, &problem["type"]),
        (409, &json!("urn:unacked:problem:stage_taken"))
    );
    drop(taken);

    let (_, runs) = lab.look("/lab/api/runs").await;
    assert_eq!(runs["runs"], json!([]), "from {here}");
    assert_eq!(lab.end().await, Some(0));
}

#[tokio::test]
async fn a_run_that_is_stopped_leaves_nothing_broken() {
    let lab = Served::start().await;
    assert_eq!(lab.begin("long", &json!({"run": "first"})).await.0, 202);
    lab.broken("first").await;
    assert_eq!(lab.faults().len(), 1);
    let foreign = lab
        .ask(Method::DELETE, "/lab/api/runs/first")
        .header(ORIGIN, "http://evil.example");
    assert_eq!(foreign.send().await.unwrap().status(), 403);
    let stopped = lab
        .ask(Method::DELETE, "/lab/api/runs/first")
        .send()
        .await
        .unwrap();
    assert_eq!(stopped.status(), 200);
    let stopped: Value = stopped.json().await.unwrap();
    assert_eq!(
        (&stopped["state"], &stopped["faults"]),
        (&json!("interrupted"), &json!([]))
    );
    nothing_is_left(&lab);
    let (status, verdict) = lab.look("/lab/api/runs/first/verdict").await;
    assert_eq!((status, &verdict["verdict"]), (200, &json!("INCONCLUSIVE")));

    // the next one begins on a new stage, and a signal stops it as well
    assert_eq!(lab.begin("long", &json!({"run": "second"})).await.0, 202);
    lab.broken("second").await;
    let wait = lab.look("/lab/api/runs/second/verdict?wait_s=60");
    let signal = async { lab.signal(Signal::SIGTERM) };
    let ((status, verdict), ()) = tokio::join!(wait, signal);
    assert_eq!((status, &verdict["state"]), (200, &json!("interrupted")));
    nothing_is_left(&lab);
    assert_eq!(lab.end_by_itself().await, Some(0));
}

#[track_caller]
fn nothing_is_left(lab: &Served) {
    assert_eq!(lab.faults(), Vec::<std::path::PathBuf>::new());
    let homes = [lab.stage()];
    let left = lab::stack::process::of_stack(&dir::real(&lab.stage()), &homes);
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn serve_refuses_what_is_wrong_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = std::env::temp_dir().join(format!("unacked-{}", uuid::Uuid::new_v4().simple()));
    let none = folder.join("none.yaml");
    for (arguments, log, said) in [
        (vec!["--port", &port], "info", "is taken by"),
        (vec![none.to_str().unwrap()], "info", "cannot read"),
        (vec![], "info=loud=x", "wrong setting LOG"),
    ] {
        let output = Command::new(lab())
            .arg("--lab-dir")
            .arg(&folder)
            .arg("serve")
            .args(&arguments)
            .env("LOG", log)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(complaint.contains(said), "{complaint}");
        assert!(!folder.exists(), "something began");
    }
}
