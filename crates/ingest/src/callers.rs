//! Who uses which form of a flow's own address.
//!
//! Requests are counted in memory and added up in Postgres every few seconds, so a process that is killed forgets the
//! last seconds. Counts that could not be written in time are added to the next ones; they count twice where only the
//! answer to the commit was lost. The counts decide nothing but the end of a form that nobody has used for days.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use parking_lot::{Mutex, RwLock};
use store::Pool;
use store::callers::Used;
use tokio_util::sync::CancellationToken;

/// The header by which a client names itself, where one does.
const CLIENT_ID: &str = "x-client-id";
/// The name of whoever says none.
const UNNAMED: &str = "(unnamed)";
/// The name of those for whom there is no room: anybody can make names up.
const OTHERS: &str = "(others)";
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 200;
/// Callers, with their flows and forms, that are counted one by one between two writes.
const COUNTED_MAX: usize = 2_000;
const FLUSH_EVERY: Duration = Duration::from_secs(3);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// A form that somebody has used in the last days is in use.
const IN_USE_DAYS: u32 = 7;
/// For so many days the counts are kept.
pub(crate) const KEPT_DAYS: u32 = 90;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Name {
    flow: String,
    tenant: String,
    caller: String,
    form: &'static str,
}

/// The requests of each since the last write, and the time of the last one.
#[derive(Default)]
struct Counted(HashMap<Name, (u64, i64)>);

impl Counted {
    fn add(&mut self, mut name: Name, requests: u64, seen_ms: i64) {
        if self.0.len() >= COUNTED_MAX && !self.0.contains_key(&name) {
            OTHERS.clone_into(&mut name.caller);
        }
        let (sum, last_seen_ms) = self.0.entry(name).or_default();
        *sum += requests;
        *last_seen_ms = seen_ms.max(*last_seen_ms);
    }
}

/// Counts callers.
#[derive(Default)]
pub(crate) struct Callers {
    counted: Mutex<Counted>,
    /// Flows whose synchronous form is in use.
    in_use: RwLock<HashSet<String>>,
}

/// The name by which a caller is known: its client id, else its `User-Agent`.
pub(crate) fn name(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let said = [text(CLIENT_ID), text(header::USER_AGENT.as_str())];
    let name = said.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or(UNNAMED);
    // Such a value is ASCII.
    name.chars().take(NAME_BYTES_MAX).collect()
}

impl Callers {
    /// A caller has used a form.
    pub(crate) fn saw(&self, (flow, tenant): (&str, &str), (caller, form): (&str, &'static str), now_ms: i64) {
        let name = Name { flow: flow.to_owned(), tenant: tenant.to_owned(), caller: caller.to_owned(), form };
        self.counted.lock().add(name, 1, now_ms);
    }

    /// True if somebody has used the flow's synchronous form in the last days.
    pub(crate) fn is_in_use(&self, flow: &str) -> bool {
        self.in_use.read().contains(flow)
    }

    /// Writes what was counted since the last time, and reads which forms are in use. What cannot be written is kept.
    async fn flush(&self, pool: &Pool) -> Result<(), store::Error> {
        let counted = std::mem::take(&mut *self.counted.lock()).0;
        let used: Vec<Used> = counted.into_iter().map(used).collect();
        if !used.is_empty() {
            let added = tokio::time::timeout(FLUSH_TIMEOUT, store::callers::add(pool, &used)).await;
            if !matches!(added, Ok(Ok(()))) {
                self.keep(used);
                return added.unwrap_or(Ok(()));
            }
        }
        let looking = tokio::time::timeout(FLUSH_TIMEOUT, store::callers::flows_in_use(pool, IN_USE_DAYS));
        if let Ok(in_use) = looking.await {
            *self.in_use.write() = in_use?.into_iter().collect();
        }
        Ok(())
    }

    /// Counts these again, beside what was counted meanwhile, and within the same bound.
    fn keep(&self, used: Vec<Used>) {
        let mut counted = self.counted.lock();
        for Used { flow, tenant, caller, form, requests, last_seen_ms } in used {
            counted.add(Name { flow, tenant, caller, form }, requests, last_seen_ms);
        }
    }
}

fn used((name, (requests, last_seen_ms)): (Name, (u64, i64))) -> Used {
    let Name { flow, tenant, caller, form } = name;
    Used { flow, tenant, caller, form, requests, last_seen_ms }
}

/// Writes counts until shutdown, and those of the last seconds at its end.
pub(crate) async fn keep(callers: &Callers, pool: &Pool, shutdown: &CancellationToken) -> anyhow::Result<()> {
    loop {
        if let Err(error) = callers.flush(pool).await {
            tracing::debug!(%error, "callers cannot be counted");
        }
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let _ = shutdown.run_until_cancelled(tokio::time::sleep(FLUSH_EVERY)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_known_by_its_client_id_or_else_its_user_agent() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (axum::http::HeaderName::from_static(name), axum::http::HeaderValue::from_static(value))
            };
            name(&pairs.iter().map(pair).collect())
        };
        assert_eq!(of(&[("x-client-id", "shop"), ("user-agent", "curl/8")]), "shop");
        assert_eq!(of(&[("x-client-id", " "), ("user-agent", "curl/8")]), "curl/8");
        assert_eq!(of(&[]), UNNAMED);
    }

    #[test]
    fn names_that_callers_make_up_do_not_fill_the_memory() {
        let callers = Callers::default();
        for number in 0..3_000 {
            callers.saw(("order", "acme"), (&format!("bot-{number}"), "sync"), 1);
        }
        let counted = std::mem::take(&mut *callers.counted.lock()).0;
        assert_eq!(counted.len(), COUNTED_MAX + 1);
        assert_eq!(counted.values().map(|(requests, _)| requests).sum::<u64>(), 3_000);
        // Nor does what could not be written, beside those who came meanwhile.
        for number in 0..COUNTED_MAX {
            callers.saw(("order", "acme"), (&format!("new-{number}"), "sync"), 1);
        }
        callers.keep(counted.into_iter().map(used).collect());
        let counted = callers.counted.lock();
        assert_eq!(counted.0.len(), COUNTED_MAX + 1);
        assert_eq!(counted.0.values().map(|(requests, _)| requests).sum::<u64>(), 5_000);
    }
}
