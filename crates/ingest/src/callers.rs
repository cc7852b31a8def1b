//! Who uses which form of a flow's own address.
//!
//! Requests are counted in memory and added up in Postgres every few seconds, so a process that is killed forgets the
//! last seconds. The counts decide nothing but the end of a form that nobody has used for days.

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

/// Counts callers.
#[derive(Default)]
pub(crate) struct Callers {
    counted: Mutex<HashMap<Name, (u64, i64)>>,
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
        let mut counted = self.counted.lock();
        let name =
            |caller: &str| Name { flow: flow.to_owned(), tenant: tenant.to_owned(), caller: caller.to_owned(), form };
        let own = name(caller);
        let name = if counted.len() >= COUNTED_MAX && !counted.contains_key(&own) { name(OTHERS) } else { own };
        let (requests, last_seen_ms) = counted.entry(name).or_default();
        *requests += 1;
        *last_seen_ms = now_ms.max(*last_seen_ms);
    }

    /// True if somebody has used the flow's synchronous form in the last days.
    pub(crate) fn is_in_use(&self, flow: &str) -> bool {
        self.in_use.read().contains(flow)
    }

    /// Writes what was counted since the last time, and reads which forms are in use. What cannot be written is kept.
    async fn flush(&self, pool: &Pool) -> Result<(), store::Error> {
        let counted = std::mem::take(&mut *self.counted.lock());
        let used: Vec<Used> = counted
            .into_iter()
            .map(|(Name { flow, tenant, caller, form }, (requests, last_seen_ms))| Used {
                flow,
                tenant,
                caller,
                form,
                requests,
                last_seen_ms,
            })
            .collect();
        if !used.is_empty()
            && let Err(error) = store::callers::add(pool, &used).await
        {
            self.keep(used);
            return Err(error);
        }
        let in_use = store::callers::flows_in_use(pool, IN_USE_DAYS).await?;
        *self.in_use.write() = in_use.into_iter().collect();
        Ok(())
    }

    fn keep(&self, used: Vec<Used>) {
        let mut counted = self.counted.lock();
        for Used { flow, tenant, caller, form, requests, last_seen_ms } in used {
            let (sum, seen_ms) = counted.entry(Name { flow, tenant, caller, form }).or_default();
            *sum += requests;
            *seen_ms = last_seen_ms.max(*seen_ms);
        }
    }
}

/// Writes counts until shutdown, and those of the last seconds at its end.
pub(crate) async fn keep(callers: &Callers, pool: &Pool, shutdown: &CancellationToken) -> anyhow::Result<()> {
    loop {
        let flushing = tokio::time::timeout(FLUSH_TIMEOUT, callers.flush(pool));
        if let Ok(Err(error)) = flushing.await {
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
        let counted = callers.counted.lock();
        assert_eq!(counted.len(), COUNTED_MAX + 1);
        assert_eq!(counted.values().map(|(requests, _)| requests).sum::<u64>(), 3_000);
    }
}
