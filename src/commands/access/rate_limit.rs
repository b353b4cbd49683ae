//! Limit on wrong tokens per address. Pure: the time is an argument.
//!
//! Guessing 256 random bits is hopeless; the limit bounds the noise, in the log and on the processor, of clients that
//! try, or of a program whose token was revoked. A valid token is always served, so that one program cannot shut out
//! its neighbours behind the same address.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Wrong tokens of one address within [`WINDOW`] that are answered as such.
pub(super) const TRIES_MAX: usize = 10;

/// Time for which a try counts.
const WINDOW: Duration = Duration::from_secs(60);

/// Maximum addresses that are remembered; the one that was quiet for the longest time is forgotten first. That limits
/// the memory to 1,024 × 10 times, about 300 KiB.
const ADDRESSES_MAX: usize = 1_024;

/// Addresses that recently sent wrong tokens.
#[derive(Debug, Default)]
pub(super) struct WrongTokens {
    /// Tries that were answered as wrong, the oldest first; never empty.
    tries: HashMap<IpAddr, VecDeque<Instant>>,
}

/// Answer to a wrong token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The token is wrong.
    Wrong {
        /// Whether further wrong tokens get another answer.
        is_last: bool,
    },
    /// There were too many wrong tokens.
    TooMany {
        /// Time until a wrong token is answered as such again.
        retry_after: Duration,
    },
}

impl WrongTokens {
    /// Counts a wrong token.
    pub(super) fn count(&mut self, address: IpAddr, now: Instant) -> Verdict {
        let address = network(address);
        if !self.tries.contains_key(&address) && self.tries.len() >= ADDRESSES_MAX {
            self.make_room(now);
        }
        let tries = self.tries.entry(address).or_default();
        while tries.front().is_some_and(|&at| is_over(at, now)) {
            tries.pop_front();
        }
        if let Some(&oldest) = tries.front().filter(|_| tries.len() >= TRIES_MAX) {
            return Verdict::TooMany { retry_after: (oldest + WINDOW).saturating_duration_since(now) };
        }
        tries.push_back(now);
        Verdict::Wrong { is_last: tries.len() == TRIES_MAX }
    }

    /// Forgets quiet addresses, and in any case the one that was quiet for the longest time.
    fn make_room(&mut self, now: Instant) {
        self.tries.retain(|_, tries| tries.back().is_some_and(|&at| !is_over(at, now)));
        if self.tries.len() >= ADDRESSES_MAX
            && let Some((&quietest, _)) = self.tries.iter().min_by_key(|(_, tries)| tries.back().copied())
        {
            self.tries.remove(&quietest);
        }
    }
}

fn is_over(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) >= WINDOW
}

/// The part of an address that its owner cannot choose at will: the first 64 bits of IPv6. A local program can use any
/// loopback address, so those count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        it if it.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(it) => Ipv6Addr::from(u128::from(it) >> 64 << 64).into(),
        it @ IpAddr::V4(_) => it,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_eleventh_wrong_token_in_a_minute_is_too_many() {
        let (mut failures, start) = (WrongTokens::default(), Instant::now());
        for index in 0..10 {
            let verdict = failures.count(address("192.0.2.1"), start + Duration::from_secs(index));
            assert_eq!(verdict, Verdict::Wrong { is_last: index == 9 });
        }
        let later = |seconds| start + Duration::from_secs(seconds);
        let too_many = Verdict::TooMany { retry_after: Duration::from_secs(40) };
        assert_eq!(failures.count(address("192.0.2.1"), later(20)), too_many);
        assert_eq!(failures.count(address("192.0.2.2"), later(20)), Verdict::Wrong { is_last: false });
        assert_eq!(failures.count(address("192.0.2.1"), later(60)), Verdict::Wrong { is_last: true });
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one() {
        let (mut failures, now) = (WrongTokens::default(), Instant::now());
        for index in 0..10 {
            failures.count(address(&format!("2001:db8::{index:x}")), now);
        }
        assert!(matches!(failures.count(address("2001:db8::ffff"), now), Verdict::TooMany { .. }));
        assert!(matches!(failures.count(address("2001:db8:0:1::1"), now), Verdict::Wrong { .. }));
        for _ in 0..5 {
            failures.count(address("192.0.2.1"), now);
            failures.count(address("::ffff:192.0.2.1"), now);
        }
        assert!(matches!(failures.count(address("192.0.2.1"), now), Verdict::TooMany { .. }));
    }

    #[test]
    fn all_loopback_addresses_are_one() {
        let (mut failures, now) = (WrongTokens::default(), Instant::now());
        for index in 1..=8 {
            failures.count(address(&format!("127.0.{index}.{index}")), now);
        }
        failures.count(address("::1"), now);
        failures.count(address("::ffff:127.9.9.9"), now);
        for other in ["127.200.0.1", "::1", "127.0.0.1"] {
            assert!(matches!(failures.count(address(other), now), Verdict::TooMany { .. }), "{other}");
        }
    }

    #[test]
    fn who_was_quiet_for_the_longest_time_is_forgotten_first() {
        let (mut failures, start) = (WrongTokens::default(), Instant::now());
        let numbered = |index: u32| IpAddr::from(std::net::Ipv4Addr::from(index));
        for index in 0..5_000 {
            failures.count(numbered(index), start + Duration::from_millis(u64::from(index)));
            assert!(failures.tries.len() <= ADDRESSES_MAX);
        }
        assert!(failures.tries.contains_key(&numbered(4_999)) && !failures.tries.contains_key(&numbered(0)));
    }

    proptest! {
        #[test]
        fn in_any_minute_an_address_is_told_ten_times_at_most_and_blocked_for_no_less(
            steps in proptest::collection::vec((0_u8..4, 0_u64..15_000), 1..400),
        ) {
            let (mut failures, mut now) = (WrongTokens::default(), Instant::now());
            let mut told: HashMap<IpAddr, Vec<Instant>> = HashMap::new();
            for (who, pause) in steps {
                now += Duration::from_millis(pause);
                let who = IpAddr::from([192, 0, 2, who]);
                let told = told.entry(who).or_default();
                let lately = told.iter().filter(|at| now - **at < WINDOW).count();
                match failures.count(who, now) {
                    Verdict::Wrong { is_last } => {
                        prop_assert!(lately < TRIES_MAX);
                        prop_assert_eq!(is_last, lately + 1 == TRIES_MAX);
                        told.push(now);
                    }
                    Verdict::TooMany { retry_after } => {
                        prop_assert_eq!(lately, TRIES_MAX);
                        prop_assert!(retry_after > Duration::ZERO && retry_after <= WINDOW);
                        let then = now + retry_after;
                        prop_assert!(told.iter().filter(|at| then - **at < WINDOW).count() < TRIES_MAX);
                    }
                }
            }
        }
    }
}
