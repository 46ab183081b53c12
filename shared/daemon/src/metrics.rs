//! The numbers of this process, in Prometheus' text format.
//!
//! Code counts through the `metrics` facade; the recorder is one per process. Histograms gather
//! samples until somebody looks, so a thread of our own looks every few seconds: a process that
//! is never scraped must not grow.

use std::{sync::OnceLock, thread, time::Duration};

use metrics::describe_gauge;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

const UPKEEP: Duration = Duration::from_secs(5);

/// Upper bounds in seconds: from a fast insert to the slowest simulated work and beyond.
const BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// All that this crate counts; a part is registered when it is first named.
pub(crate) const PART_UP: &str = "unacked_part_up";

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder the first time, and gives its handle each time.
pub fn metrics_handle() -> PrometheusHandle {
    HANDLE.get_or_init(install).clone()
}

fn install() -> PrometheusHandle {
    let builder = PrometheusBuilder::new();
    // Only an empty list is refused.
    let builder = builder
        .set_buckets(BUCKETS)
        .unwrap_or_else(|_| PrometheusBuilder::new());
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("metrics go to a recorder that somebody else installed");
    }
    describe_gauge!(PART_UP, "1 where the part answers and holds nothing back");
    let upkeep = handle.clone();
    let keep = move || {
        loop {
            thread::sleep(UPKEEP);
            upkeep.run_upkeep();
        }
    };
    if let Err(error) = thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(keep)
    {
        tracing::warn!(%error, "metrics have no upkeep");
    }
    handle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered_however_often_the_handle_was_asked_for() {
        metrics_handle();
        metrics::counter!("daemon_test_total").increment(3);
        metrics::histogram!("daemon_test_seconds").record(0.004);
        let text = metrics_handle().render();
        assert!(text.contains("daemon_test_total 3"), "{text}");
        assert!(
            text.contains(r#"daemon_test_seconds_bucket{le="0.005"} 1"#),
            "{text}"
        );
    }
}
