//! Wrong credentials are limited by address, so that nobody tries them by the million.
//!
//! An address that has shown too many gets 429 for credentials that were not right there lately: they are not even
//! looked at, so the answer tells nothing of them. Whoever shares the address (behind one NAT) and has called from
//! there goes on.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use web::problem::{Kind, Problem};

use crate::allowance::{Allowances, Rate};

/// Addresses, and credentials that were right, in either half of the memory: some 3 MiB together.
const NAMES_MAX: usize = 50_000;
const WINDOW: Duration = Duration::from_secs(60);

/// Wrong credentials by address, and right ones.
pub(crate) struct Guesses {
    rate: Rate,
    wrong: Allowances<u64>,
    right: Mutex<Halves>,
    hasher: RandomState,
}

#[derive(Default)]
struct Halves {
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl Guesses {
    /// 0: no limit.
    pub(crate) fn new(per_minute: u32) -> Self {
        let rate = Rate { quota: per_minute.into(), window: WINDOW };
        Self { rate, wrong: Allowances::new(NAMES_MAX), right: Mutex::default(), hasher: RandomState::default() }
    }

    /// The problem 429 for a credential that this address may not try now.
    pub(crate) fn check(&self, address: IpAddr, credential: &str) -> Result<(), Problem> {
        if self.rate.quota == 0 {
            return Ok(());
        }
        let left = self.wrong.left(self.name(address), self.rate, Instant::now());
        if left.units > 0 || self.was_right(address, credential) {
            return Ok(());
        }
        metrics::counter!("meanwhile_credentials_unseen_total").increment(1);
        let detail = "Too many credentials from this address were not valid.";
        let remediation = "Check the credential, and try again after the time in `Retry-After`.";
        let problem = Problem::new(Kind::QuotaExceeded, detail).with_remediation(remediation);
        let after_s = left.next_after.as_secs_f64().ceil().max(1.0) as u64;
        Err(problem.with("violated-policies", json!(["credentials"])).retry_after_s(after_s))
    }

    /// A credential was wrong.
    pub(crate) fn note_wrong(&self, address: IpAddr) {
        if self.rate.quota > 0 {
            // Calls at the same time may show more than are left: they are not owed for.
            self.wrong.take(self.name(address), 1, self.rate, Instant::now()).ok();
        }
    }

    /// A credential was right.
    pub(crate) fn note_right(&self, address: IpAddr, credential: &str) {
        if self.rate.quota == 0 {
            return;
        }
        let name = self.hasher.hash_one((network(address), credential));
        let mut right = self.right.lock();
        if right.young.contains(&name) {
            return;
        }
        if right.young.len() >= NAMES_MAX {
            right.old = std::mem::take(&mut right.young);
        }
        right.young.insert(name);
    }

    fn was_right(&self, address: IpAddr, credential: &str) -> bool {
        let name = self.hasher.hash_one((network(address), credential));
        let right = self.right.lock();
        right.young.contains(&name) || right.old.contains(&name)
    }

    fn name(&self, address: IpAddr) -> u64 {
        self.hasher.hash_one(network(address))
    }
}

/// One customer has a whole /64 of IPv6.
const fn network(address: IpAddr) -> (bool, u64) {
    match address.to_canonical() {
        IpAddr::V4(address) => (false, address.to_bits() as u64),
        IpAddr::V6(address) => (true, (address.to_bits() >> 64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_guesses_is_not_heard_and_no_other_one_suffers() {
        let guesses = Guesses::new(3);
        let here = address("192.0.2.1");
        guesses.note_right(here, "a neighbour's");
        for _ in 0..3 {
            guesses.check(here, "a guess").unwrap();
            guesses.note_wrong(here);
        }
        let refused = guesses.check(here, "the right one").unwrap_err();
        assert_eq!(refused.kind(), Kind::QuotaExceeded);
        guesses.check(here, "a neighbour's").unwrap();
        guesses.check(address("192.0.2.2"), "a guess").unwrap();
        assert!(guesses.check(address("::ffff:192.0.2.1"), "a guess").is_err(), "the same address in other words");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_no_limit_is_none() {
        let guesses = Guesses::new(1);
        guesses.note_wrong(address("2001:db8::1"));
        assert!(guesses.check(address("2001:db8::ffff:1"), "a guess").is_err());
        assert!(guesses.check(address("2001:db8:0:1::1"), "a guess").is_ok());
        let unlimited = Guesses::new(0);
        (0..100).for_each(|_| unlimited.note_wrong(address("2001:db8::1")));
        assert!(unlimited.check(address("2001:db8::1"), "a guess").is_ok());
    }

    #[test]
    fn memory_is_bounded_however_many_addresses_and_credentials_there_are() {
        let guesses = Guesses::new(1);
        for number in 0..200_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            guesses.note_right(address, "one");
            guesses.note_wrong(address);
        }
        let right = guesses.right.lock();
        assert!(right.young.len() <= NAMES_MAX && right.old.len() <= NAMES_MAX);
        assert!(guesses.wrong.names() <= 2 * NAMES_MAX);
    }
}
