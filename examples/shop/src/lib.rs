//! A shop of three small HTTP services (inventory, payment, shipping), as a team might have them already. Its books can
//! be inspected, and the input of a call can ask for failures.
//!
//! Each service takes `POST /{reservations|charges|shipments}` and `DELETE .../{id or idempotency key}`. Every call
//! carries an `Idempotency-Key`. The same key gives the same answer and no second effect. An undo that overtakes its
//! create stops the late create. A body with `later` is answered with 202, and its work is done later (`later.rs`).
//! `GET /state` shows the books, `GET /log?after=N` every call and effect in order.
//!
//! Invariant: no lock is held over an await, and memory is bounded.

mod answer;
mod audit;
mod book;
mod cash;
mod estimate;
mod http;
mod later;
mod request;
mod simulate;
mod state;
mod trade;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::serve::ListenerExt;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use audit::{AuditError, Outcome, audit};
pub use book::{LogLine, Op};
pub use state::{Calls, EntryState, EntryView, State};
pub use trade::Trade;

use book::Book;

/// The time that a callback may take.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// A value for each of the three services, such as its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerService<T> {
    /// `POST /reservations`.
    pub inventory: T,
    /// `POST /charges`.
    pub payment: T,
    /// `POST /shipments`.
    pub shipping: T,
}

impl Default for PerService<String> {
    /// The fixed addresses that the demo and its flows use.
    fn default() -> Self {
        let address = |port: u16| format!("127.0.0.1:{port}");
        Self { inventory: address(7001), payment: address(7002), shipping: address(7003) }
    }
}

impl PerService<String> {
    /// Free ports on this machine, for tests.
    pub fn any_port() -> Self {
        let any = || "127.0.0.1:0".to_owned();
        Self { inventory: any(), payment: any(), shipping: any() }
    }
}

/// The books of one service, shared by its requests.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Book>>);

impl Shared {
    fn new(trade: Trade) -> Self {
        Self(Arc::new(Mutex::new(Book::new(trade))))
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Each change of a book is complete before anything can panic.
        self.0.lock()
    }
}

/// A running shop; it closes when the token it was started with is cancelled.
#[derive(Debug)]
pub struct Shop {
    books: PerService<Shared>,
    addresses: PerService<SocketAddr>,
}

impl Shop {
    /// Starts the three services on these addresses (`host:port`; port 0 takes a free one).
    ///
    /// # Errors
    /// An address cannot be listened on: the message names the service and the flag to change.
    pub async fn start(listen: PerService<String>, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let PerService { inventory, payment, shipping } = listen;
        let (inventory, inventory_address) = open(Trade::Inventory, &inventory, &shutdown).await?;
        let (payment, payment_address) = open(Trade::Payment, &payment, &shutdown).await?;
        let (shipping, shipping_address) = open(Trade::Shipping, &shipping, &shutdown).await?;
        let addresses =
            PerService { inventory: inventory_address, payment: payment_address, shipping: shipping_address };
        Ok(Self { books: PerService { inventory, payment, shipping }, addresses })
    }

    /// The base URLs, such as `http://127.0.0.1:7001`.
    pub fn urls(&self) -> PerService<String> {
        let url = |address: SocketAddr| format!("http://{address}");
        let PerService { inventory, payment, shipping } = self.addresses;
        PerService { inventory: url(inventory), payment: url(payment), shipping: url(shipping) }
    }

    /// The books, as `GET /state` shows them.
    pub fn states(&self) -> PerService<State> {
        let PerService { inventory, payment, shipping } = &self.books;
        PerService {
            inventory: inventory.lock().state(),
            payment: payment.lock().state(),
            shipping: shipping.lock().state(),
        }
    }

    /// The log lines after `seq` that are still kept, as `GET /log` shows them.
    pub fn log_after(&self, trade: Trade, seq: u64) -> Vec<LogLine> {
        let book = match trade {
            Trade::Inventory => &self.books.inventory,
            Trade::Payment => &self.books.payment,
            Trade::Shipping => &self.books.shipping,
        };
        book.lock().log_after(seq)
    }

    /// Ends (or brings back) the failures `error` and `undo_error`, as `POST` (or `DELETE`) `/mend` does.
    pub fn mend(&self, mended: bool) {
        for book in [&self.books.inventory, &self.books.payment, &self.books.shipping] {
            book.lock().mended = mended;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it ends at shutdown, and an example needs no more")]
async fn open(trade: Trade, listen: &str, shutdown: &CancellationToken) -> anyhow::Result<(Shared, SocketAddr)> {
    let name = trade.name();
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("{name} cannot listen on {listen}; choose another address with --{name}"))?;
    let address = listener.local_addr()?;
    let book = Shared::new(trade);
    // Someone else in this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client =
        proxies::direct_client_builder().timeout(CALLBACK_TIMEOUT).build().context("a client for callbacks")?;
    let router = http::router(trade, book.clone(), client);
    let shutdown = shutdown.clone();
    let listener = listener.tap_io(|connection| {
        // Small answers should not wait for more to come; a connection that refuses is served all the same.
        let _ = connection.set_nodelay(true);
    });
    // Slow answers are not worth waiting for when the shop closes.
    tokio::spawn(async move { shutdown.run_until_cancelled(axum::serve(listener, router).into_future()).await });
    Ok((book, address))
}
