//! The news of a job that one stream has not sent yet, bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::record::Seen;

/// Something that a stream has to send.
pub(super) enum News {
    Event(Arc<Seen>),
    /// A report of progress, as JSON.
    Progress(Arc<str>),
}

/// The next thing in an mailbox.
pub(super) enum Next {
    News(News),
    Nothing,
    /// The stream took too long: there is nothing any more, and will be nothing.
    Dropped,
}

#[derive(Default)]
struct State {
    news: VecDeque<News>,
    bytes: usize,
    is_dropped: bool,
}

/// Of one stream. The hub fills it, the stream empties it.
pub(super) struct Mailbox {
    state: Mutex<State>,
    told: Notify,
    /// The bytes in all mailboxes of the process.
    sum: Arc<AtomicUsize>,
}

impl News {
    fn bytes(&self) -> usize {
        match self {
            Self::Event(seen) => seen.bytes(),
            Self::Progress(text) => text.len(),
        }
    }
}

impl Mailbox {
    pub(super) fn new(sum: Arc<AtomicUsize>) -> Self {
        Self { state: Mutex::default(), told: Notify::new(), sum }
    }

    /// False, and nothing done, where there is no room. There is always room for one event.
    pub(super) fn push(&self, event: Arc<Seen>, bytes_max: usize) -> bool {
        let mut state = self.state.lock();
        let bytes = event.bytes();
        if state.bytes + bytes > bytes_max && !state.news.is_empty() {
            return false;
        }
        state.bytes += bytes;
        self.sum.fetch_add(bytes, Ordering::Relaxed);
        state.news.push_back(News::Event(event));
        self.told.notify_one();
        true
    }

    /// Progress is lossy: only a stream that keeps up has it.
    pub(super) fn push_progress(&self, text: &Arc<str>) {
        let mut state = self.state.lock();
        if !state.news.is_empty() || state.is_dropped {
            return;
        }
        state.bytes += text.len();
        self.sum.fetch_add(text.len(), Ordering::Relaxed);
        state.news.push_back(News::Progress(Arc::clone(text)));
        self.told.notify_one();
    }

    /// The stream gets no more, and is told so.
    pub(super) fn drop_all(&self) {
        let mut state = self.state.lock();
        self.sum.fetch_sub(state.bytes, Ordering::Relaxed);
        *state = State { is_dropped: true, ..State::default() };
        self.told.notify_one();
    }

    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub(super) fn next(&self) -> Next {
        let mut state = self.state.lock();
        if state.is_dropped {
            return Next::Dropped;
        }
        let Some(news) = state.news.pop_front() else { return Next::Nothing };
        let bytes = news.bytes();
        state.bytes -= bytes;
        self.sum.fetch_sub(bytes, Ordering::Relaxed);
        Next::News(news)
    }

    /// Returns once there may be something that [`Mailbox::next`] has not returned.
    pub(super) async fn filled(&self) {
        self.told.notified().await;
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.state.lock().is_dropped
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.state.get_mut().bytes, Ordering::Relaxed);
    }
}
