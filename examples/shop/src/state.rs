//! The books as `GET /state` shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::trade::Trade;

/// The books of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub service: Trade,
    /// The stock that is left of each SKU that was asked for (inventory).
    pub stock: BTreeMap<String, u64>,
    /// The stock of each SKU at the start (inventory).
    pub stock_per_sku: u64,
    /// Charged less refunded (payment).
    pub balance_cents: i64,
    /// Reservations, charges or shipments that took effect, undone ones too, in the order in which they did.
    pub entries: Vec<EntryView>,
    /// How often each idempotency key was called.
    pub calls: BTreeMap<String, Calls>,
    /// The answers to callbacks: how many had each status.
    #[serde(default)]
    pub callbacks: BTreeMap<u16, u64>,
    /// Log lines that are no longer kept.
    pub log_lines_dropped: u64,
}

/// One reservation, charge or shipment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// Its id, such as `res-1`.
    pub id: String,
    pub key: String,
    pub order: String,
    /// Pieces or cents; 0 for a shipment.
    pub amount: u64,
    /// The SKU (inventory), else empty.
    pub sku: String,
    /// Whether it still stands.
    pub state: EntryState,
}

/// Whether an effect still stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryState {
    /// Reserved, charged or shipped.
    Done,
    /// Released, refunded or cancelled.
    Undone,
}

/// How often a key was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// `POST`s.
    pub create: u32,
    /// `DELETE`s.
    pub undo: u32,
}
