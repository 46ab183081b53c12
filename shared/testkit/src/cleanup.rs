//! Asking a server for something from a `Drop`: on a thread and a runtime of its own, with a limit.

use std::{thread, time::Duration};

const LIMIT: Duration = Duration::from_secs(5);

/// Runs the future to its end or to the limit. Best effort: the server may have been killed by the
/// test, and goes away with the run in any case.
pub(crate) fn run(work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let done = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let done = runtime.block_on(async { tokio::time::timeout(LIMIT, work).await });
        runtime.shutdown_background();
        done?
    });
    if let Ok(Err(error)) = done.join() {
        tracing::debug!("not cleaned up: {error:#}");
    }
}
