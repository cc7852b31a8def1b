//! One order each, and how it has to end.

use serde_json::{Value, json};
use shop::{EntryState, Outcome, PerService, Shop, State, audit};

use crate::say;
use crate::system::System;

/// One order, and its expected end.
pub(crate) struct Story {
    title: &'static str,
    route: &'static str,
    order: Value,
    succeeds: bool,
    /// The decision that a large one waits for.
    decision: Option<&'static str>,
}

impl Story {
    fn new(title: &'static str, simulate: Value, succeeds: bool) -> Self {
        Self { title, route: "orders", order: order(simulate), succeeds, decision: None }
    }
}

/// What somebody orders; `simulate` asks the shop for failures.
pub(crate) fn order(simulate: Value) -> Value {
    json!({
        "sku": "tea",
        "qty": 2,
        "amount_cents": 1_999,
        "card": "4242424242424242",
        "address": "1 Main Street",
        "simulate": simulate,
    })
}

pub(crate) fn all() -> [Story; 6] {
    let large = || {
        let mut order = order(json!({}));
        order["amount_cents"] = json!(199_900);
        order
    };
    let sent_by_a_partner = json!({
        "sku": "teapot",
        "qty": 1,
        "amount_cents": 4_900,
        "address": "1 Main Street",
        "simulate": { "payment": "timeout_after_effect", "partner": "after:1200" },
    });
    [
        Story::new("An order like any other", json!({}), true),
        Story::new("The card is declined", json!({ "payment": "declined" }), false),
        Story::new("The payment service fails twice", json!({ "payment": "flaky" }), true),
        Story::new("The payment is made, but its answer is lost", json!({ "payment": "timeout_after_effect" }), false),
        Story {
            title: "A large order waits until somebody has approved it (the demo does)",
            route: "preorders",
            order: large(),
            succeeds: true,
            decision: Some(r#"{"decision": "approved", "by": "ann", "comment": "a good customer"}"#),
        },
        Story {
            title: "A partner sends it: it answers 202, tells how far it is, and calls back\n   \
                    (and the cash register's answer is lost: it is asked, for it must not be paid twice)",
            route: "dropships",
            order: sent_by_a_partner,
            succeeds: true,
            decision: None,
        },
    ]
}

/// True when it ended as it should and the books agree.
pub(crate) async fn tell(
    system: &System,
    shop: &Shop,
    number: usize,
    story: &Story,
    outcomes: &mut Vec<Outcome>,
) -> anyhow::Result<bool> {
    say(&format!("\n{number}. {}", story.title));
    let mut order = story.order.clone();
    order["customer_id"] = json!(format!("customer-{number}"));
    let job = system.submit(story.route, &format!("demo-{number}"), &order).await?;
    if let Some(decision) = story.decision {
        system.decide(&job, decision).await?;
    }
    let succeeded = system.follow(&job, true).await?;
    outcomes.push(Outcome { order: job.clone(), succeeded });
    let states = shop.states();
    tell_books(&states, &job);
    if succeeded != story.succeeds {
        say(&format!("   WRONG: it should have {}", if story.succeeds { "succeeded" } else { "failed" }));
    }
    Ok(succeeded == story.succeeds && books_agree(&states, outcomes))
}

pub(crate) fn books_agree(states: &PerService<State>, outcomes: &[Outcome]) -> bool {
    let audited = audit(states, outcomes);
    if let Err(error) = &audited {
        say(&format!("   WRONG: {error}"));
    }
    audited.is_ok()
}

/// The answers of the three services about the order.
pub(crate) fn tell_books(states: &PerService<State>, order: &str) {
    let book = |state: &State, done: &str, undone: &str| {
        let entry = state.entries.iter().find(|entry| entry.order == order);
        match entry.map(|entry| entry.state) {
            None => "nothing".to_owned(),
            Some(EntryState::Done) => done.to_owned(),
            Some(EntryState::Undone) => undone.to_owned(),
        }
    };
    say(&format!(
        "   the shop's books: stock {}, money {}, shipment {}",
        book(&states.inventory, "reserved", "reserved and released"),
        book(&states.payment, "charged", "charged and refunded"),
        book(&states.shipping, "booked", "booked and cancelled"),
    ));
}
