//! Threads for what would hold up the engine's loop: reading files, looking names up, packing images.
//!
//! ```text
//!   spawn(work) ──▶ queue ──▶ the first thread, always there
//!                     └─────▶ up to 63 more, gone again after half a second without work
//! ```
//!
//! tokio has such threads as well, and keeps none of them either. But where the last one is gone and the
//! kernel gives no other (`RLIMIT_NPROC`, `pids.max`), it panics, and with it whatever asked: a status, or
//! the watch of the manifests. Here one thread is made when the engine starts, and stays: a machine
//! that has no process to spare makes work wait for its turn, and loses none.
//!
//! Invariant: work that was taken is done, or whoever waits for it is told that it panicked.
//!
//! Failure paths: without any thread at all, which takes an engine that starts in the middle of the want,
//! work is done on the spot and holds up the loop.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

/// Threads at most.
const MOST: usize = 64;

/// How long a thread that is not the last one waits for work.
const STAYS: Duration = Duration::from_millis(500);

/// Small: nothing here recurses.
const STACK: usize = 1024 * 1024;

type Work = Box<dyn FnOnce() + Send>;

static POOL: Pool = Pool::new(MOST);

/// What comes of work on another thread. Dropping it does not end the work.
#[derive(Debug)]
pub struct Task<T>(oneshot::Receiver<T>);

/// The work panicked.
#[derive(Debug, thiserror::Error)]
#[error("the work on another thread panicked")]
pub struct Panicked;

impl<T> Future for Task<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_| Panicked)
    }
}

/// Makes the thread that stays, so that it is there when there are no others to be had.
pub fn prepare() {
    drop(spawn(|| ()));
}

/// Does this on another thread.
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    POOL.spawn(work)
}

struct Pool {
    state: Mutex<State>,
    wanted: Condvar,
    most: usize,
}

struct State {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

impl Pool {
    const fn new(most: usize) -> Self {
        let state = State { queue: VecDeque::new(), threads: 0, idle: 0 };
        Self { state: Mutex::new(state), wanted: Condvar::new(), most }
    }

    fn spawn<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Task<T> {
        let (sender, receiver) = oneshot::channel();
        let work = move || {
            if let Ok(outcome) = catch_unwind(AssertUnwindSafe(work)) {
                // Nobody may be waiting any more.
                drop(sender.send(outcome));
            }
        };
        self.push(Box::new(work));
        Task(receiver)
    }

    fn push(&'static self, work: Work) {
        let mut state = self.lock();
        state.queue.push_back(work);
        if state.queue.len() <= state.idle {
            self.wanted.notify_one();
            return;
        }
        if state.threads < self.most {
            state.threads += 1;
            let thread = thread::Builder::new().name("blocking".into()).stack_size(STACK);
            if thread.spawn(|| self.serve()).is_err() {
                state.threads -= 1;
            }
        }
        if state.threads == 0
            && let Some(work) = state.queue.pop_back()
        {
            drop(state);
            work();
        }
    }

    /// The life of a thread.
    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                work();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            // The last one does not wake up for nothing.
            let is_last = state.threads == 1;
            let stays = if is_last { Duration::MAX } else { STAYS };
            let waited = self.wanted.wait_timeout(state, stays);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() && state.threads > 1 {
                state.threads -= 1;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pool(most: usize) -> &'static Pool {
        Box::leak(Box::new(Pool::new(most)))
    }

    #[tokio::test]
    async fn work_is_done_at_the_same_time_and_in_turn_where_threads_are_few() {
        let pool = pool(2);
        let (first, first_held) = mpsc::channel::<()>();
        let (second, second_held) = mpsc::channel::<()>();
        let one = pool.spawn(move || first_held.recv().is_ok());
        // It can only be let go by another thread.
        let two = pool.spawn(move || first.send(()).is_ok() && second_held.recv().is_ok());
        assert!(one.await.unwrap());
        let others: Vec<_> = (0..10).map(|number| pool.spawn(move || number)).collect();
        for (number, other) in others.into_iter().enumerate() {
            assert_eq!(other.await.unwrap(), number);
        }
        assert_eq!(pool.lock().threads, 2);
        second.send(()).unwrap();
        assert!(two.await.unwrap());
    }

    #[tokio::test]
    async fn fault_16_without_any_thread_the_work_is_done_all_the_same() {
        assert_eq!(pool(0).spawn(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_panic_is_told_and_costs_no_thread() {
        let pool = pool(1);
        let failed: Task<()> = pool.spawn(|| panic!("on purpose"));
        assert!(failed.await.is_err());
        assert_eq!(pool.spawn(|| 7).await.unwrap(), 7);
        assert_eq!(pool.lock().threads, 1);
    }

    #[tokio::test]
    async fn all_threads_but_one_go_again() {
        let pool = pool(8);
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(8));
        let meet = || {
            let barrier = barrier.clone();
            pool.spawn(move || barrier.wait().is_leader())
        };
        let all: Vec<_> = (0..8).map(|_| meet()).collect();
        for one in all {
            one.await.unwrap();
        }
        while pool.lock().threads > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.spawn(|| 7).await.unwrap(), 7);
    }
}
