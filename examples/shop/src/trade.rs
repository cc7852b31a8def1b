//! The three services of the shop.

use serde::{Deserialize, Serialize};

/// One of the three services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trade {
    /// Reserves stock.
    Inventory,
    /// Charges cards.
    Payment,
    /// Books shipments.
    Shipping,
}

impl Trade {
    /// The service's name, which is also its command-line flag.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Payment => "payment",
            Self::Shipping => "shipping",
        }
    }

    /// The path of its resources.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Inventory => "reservations",
            Self::Payment => "charges",
            Self::Shipping => "shipments",
        }
    }

    /// The beginning of the ids that it gives.
    pub(crate) const fn id_prefix(self) -> &'static str {
        match self {
            Self::Inventory => "res",
            Self::Payment => "chg",
            Self::Shipping => "shp",
        }
    }
}
