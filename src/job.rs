//! Work of a task that is under way while the task does other things.

use futures_util::future::BoxFuture;

/// At most one piece of work of its kind.
pub type Job<T> = Option<BoxFuture<'static, T>>;

/// Waits for the job there is, and takes it out; for ever if there is none.
pub async fn working<T>(job: &mut Job<T>) -> T {
    let Some(running) = job else {
        return std::future::pending().await;
    };
    let done = running.await;
    *job = None;
    done
}
