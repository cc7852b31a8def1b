//! Access tokens for protected services: asked for once, kept, and renewed before they end.
//!
//! Promise: however many calls wait for a token of one client, one request asks for it. A token lives in memory only.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use flow::decide::{AccessToken, TokenClient, TokenRefused};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use outbound::{Body, Call, Client};
use parking_lot::Mutex;
use service_kit::tasks::spawn_detached;
use tokio::time::Instant;

/// The time of one request to a token endpoint.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// After a request in vain nobody asks again for so long: calls that wait get the same answer.
const PAUSE: Duration = Duration::from_millis(200);
/// A token is renewed so long before its end, or a tenth of its life before, but in its second half only.
const MARGIN_S_MIN: u64 = 30;
/// Tokens that are kept. There are as many clients as flows name, in all versions that have jobs.
const CLIENTS_MAX: usize = 1_000;

/// A request for a token that is under way.
type Flight = Shared<BoxFuture<'static, Result<Kept, TokenRefused>>>;

/// A token, and the times of its renewal and of its end.
#[derive(Clone)]
struct Kept {
    value: Arc<str>,
    renewed_at: Instant,
    ends_at: Instant,
}

impl Kept {
    fn new(token: AccessToken, asked_at: Instant) -> Self {
        let AccessToken { value, lifetime_s } = token;
        let margin_s = (lifetime_s / 10).max(MARGIN_S_MIN).min(lifetime_s / 2);
        let after = |seconds| {
            let end = asked_at.checked_add(Duration::from_secs(seconds));
            end.unwrap_or_else(|| asked_at + Duration::from_secs(u64::from(u32::MAX)))
        };
        Self { value: value.into(), renewed_at: after(lifetime_s - margin_s), ends_at: after(lifetime_s) }
    }
}

/// All that is known of one client's token.
#[derive(Default)]
struct Account {
    token: Option<Kept>,
    flight: Option<Flight>,
    refused: Option<(Instant, TokenRefused)>,
}

/// The tokens of this worker.
pub(crate) struct Tokens {
    client: Arc<Client>,
    accounts: Mutex<HashMap<TokenClient, Arc<Mutex<Account>>>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("clients", &self.accounts.lock().len()).finish_non_exhaustive()
    }
}

impl Tokens {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client, accounts: Mutex::default() }
    }

    /// The token of this client, asked for where there is none. `rejected`: the token that its service has just
    /// refused; another one may have come meanwhile.
    pub(crate) async fn of(&self, client: &TokenClient, rejected: Option<&str>) -> Result<Arc<str>, TokenRefused> {
        let account = self.account(client);
        let flight = {
            let (mut known, now) = (account.lock(), Instant::now());
            if rejected.is_some_and(|value| known.token.as_ref().is_some_and(|token| *token.value == *value)) {
                known.token = None;
            }
            let refused = known.refused.clone().filter(|(at, _)| now < *at + PAUSE).map(|(_, refused)| refused);
            let token = known.token.clone().filter(|token| now < token.ends_at);
            match (token, refused) {
                (Some(token), refused) => {
                    // It is still good: nobody waits for the next one.
                    if now >= token.renewed_at && refused.is_none() {
                        drop(self.flight(&mut known, client, &account));
                    }
                    return Ok(token.value);
                }
                (None, Some(refused)) => return Err(refused),
                (None, None) => self.flight(&mut known, client, &account),
            }
        };
        flight.await.map(|token| token.value)
    }

    fn account(&self, client: &TokenClient) -> Arc<Mutex<Account>> {
        let mut accounts = self.accounts.lock();
        if let Some(account) = accounts.get(client) {
            return Arc::clone(account);
        }
        if accounts.len() >= CLIENTS_MAX {
            // Those in use are asked for again.
            accounts.clear();
        }
        Arc::clone(accounts.entry(client.clone()).or_default())
    }

    /// The request that is under way, or a new one. It goes on where the calls that wait for it are broken off.
    fn flight(&self, known: &mut Account, client: &TokenClient, account: &Arc<Mutex<Account>>) -> Flight {
        if let Some(flight) = &known.flight {
            return flight.clone();
        }
        let (http, client, account) = (Arc::clone(&self.client), client.clone(), Arc::clone(account));
        let flight = async move {
            let asked_at = Instant::now();
            let issued = ask(&http, &client).await.map(|token| Kept::new(token, asked_at));
            let mut known = account.lock();
            known.flight = None;
            match &issued {
                Ok(token) => {
                    known.token = Some(token.clone());
                    known.refused = None;
                }
                Err(refused) => known.refused = Some((Instant::now(), refused.clone())),
            }
            issued
        };
        let flight = flight.boxed().shared();
        known.flight = Some(flight.clone());
        spawn_detached(flight.clone().map(drop));
        flight
    }
}

async fn ask(http: &Client, client: &TokenClient) -> Result<AccessToken, TokenRefused> {
    let request = client.request();
    let headers = request.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    let body = Some(Body::Bytes(request.body.into_bytes()));
    let (method, url, timeout) = ("POST", client.token_url.as_str(), REQUEST_TIME_MAX);
    let issued = client.issued(http.send(Call { method, url, headers, body, timeout }).await);
    let outcome = match &issued {
        Ok(_) => "issued",
        Err(TokenRefused { passing: true, .. }) => "failed",
        Err(_) => "refused",
    };
    metrics::counter!("meanwhile_access_tokens_total", "outcome" => outcome).increment(1);
    if let Err(TokenRefused { cause, passing, .. }) = &issued {
        tracing::warn!(client = client.id, passing, cause, "no access token was issued");
    }
    issued
}

#[cfg(test)]
mod tests {
    use flow::decide::ClientAuth;
    use outbound::{Guard, Limits};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_token_is_used_until_the_next_one_has_come_and_one_request_asks_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let limits =
            Limits { response_bytes_max: 1_000, connect_timeout: LONG, idle_connections_max: 1, idle_timeout: LONG };
        let tokens = Tokens::new(Arc::new(Client::new(&limits, Guard::none()).unwrap()));
        let client = TokenClient {
            token_url: format!("http://{}/token", listener.local_addr().unwrap()),
            id: "me".to_owned(),
            secret: "secret".to_owned(),
            scope: None,
            audience: None,
            auth: ClientAuth::Header,
        };
        let now = Instant::now();
        let old = Kept { value: "old".into(), renewed_at: now, ends_at: now + LONG * 60 };
        tokens.account(&client).lock().token = Some(old);
        // Nobody answers yet, and nobody waits.
        for _ in 0..3 {
            assert_eq!(&*tokens.of(&client, None).await.unwrap(), "old");
        }
        let (mut asked, _) = tokio::time::timeout(LONG, listener.accept()).await.unwrap().unwrap();
        assert!(asked.read(&mut [0; 1_000]).await.unwrap() > 0);
        let body = r#"{"access_token":"new","token_type":"Bearer","expires_in":3600}"#;
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        asked.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let renewed = async {
            while &*tokens.of(&client, None).await.unwrap() != "new" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, renewed).await.unwrap();
        let more = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
        assert!(more.is_err(), "one request asked");
    }

    #[test]
    fn a_token_is_renewed_well_before_its_end_but_not_in_its_first_half() {
        let now = Instant::now();
        let after_s = |lifetime_s| {
            let kept = Kept::new(AccessToken { value: "t".to_owned(), lifetime_s }, now);
            (kept.ends_at - now, (kept.renewed_at - now).as_secs())
        };
        assert_eq!([3_600, 100, 10, 0].map(|lifetime_s| after_s(lifetime_s).1), [3_240, 70, 5, 0]);
        assert_eq!(after_s(3_600).0.as_secs(), 3_600);
        assert!(after_s(u64::MAX).0 > LONG);
    }
}
