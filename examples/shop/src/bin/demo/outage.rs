//! The last story: a service is down, its breaker opens, the jobs wait, and go on when it is mended.

use serde_json::json;
use shop::{Outcome, Shop};

use crate::say;
use crate::stories::{books_agree, order, tell_books};
use crate::system::System;

/// Enough orders for a breaker to open before one of them has used up its attempts.
const ORDERS: usize = 3;

/// True when all of them succeed and the books agree.
pub(crate) async fn tell(system: &System, shop: &Shop, outcomes: &mut Vec<Outcome>) -> anyhow::Result<bool> {
    say("\n7. The shipping service is down when three orders come: its breaker opens, and it heals");
    let mut jobs = Vec::new();
    for number in 1..=ORDERS {
        let mut order = order(json!({ "shipping": "error" }));
        order["customer_id"] = json!(format!("patient-customer-{number}"));
        jobs.push(system.submit("orders", &format!("demo-outage-{number}"), &order).await?);
    }
    let mut good = true;
    for job in &jobs {
        match system.until_breaker(job).await? {
            Some(name) => say(&format!("   job {job} waits: the breaker of {name} is open")),
            None => {
                say(&format!("   WRONG: job {job} ended, and should have waited for the breaker"));
                good = false;
            }
        }
    }
    say("   (nobody calls it meanwhile, but for one probe now and then; no job loses attempts)");
    shop.mend(true);
    say("   The shipping service is mended. The next probe succeeds, and the jobs go on:");
    for (index, job) in jobs.iter().enumerate() {
        let succeeded = system.follow(job, index == 0).await?;
        outcomes.push(Outcome { order: job.clone(), succeeded });
        good &= succeeded;
    }
    // Whoever sends orders of their own may want to see it fail.
    shop.mend(false);
    let states = shop.states();
    tell_books(&states, &jobs[0]);
    say(if good { "   the two others have succeeded, too" } else { "   WRONG: all three should have succeeded" });
    Ok(books_agree(&states, outcomes) && good)
}
