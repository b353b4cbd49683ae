//! Automatic rollback of an alias: limits for the calls of the version on trial, and their evaluation.
//!
//! **The rule.** Nothing is judged before `min_requests` calls. A rate is a breach if it is over its limit *and* chance
//! does not explain it: a version whose true rate equals the limit would show as many bad calls, or more, with a
//! probability below [`ACCIDENT_MAX`]. The probability is the exact tail of the binomial distribution. A version that
//! always fails is caught at `min_requests`; two errors in 50 calls prove nothing about a limit of 1 %. Crashes are
//! counted, not weighed: one more than `crashes_max` is a breach.

use super::words::words;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Deref};

/// Highest probability that a version that just keeps its limit is judged to breach it.
const ACCIDENT_MAX: f64 = 0.001;

/// Share of calls that may take longer than `p99_ms_max`: the part above the 99th percentile.
const SLOW_SHARE_MAX: f64 = 0.01;

words! {
    /// Reaction to a breach.
    #[derive(Default)]
    PolicyAction {
        /// Rolls the alias back: a second version loses its share; without one, the alias points at the version before.
        #[default]
        Rollback = "rollback",
        /// Logs a warning; no alias moves.
        Warn = "warn",
    }
}

/// Unchecked limits of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyLimits {
    /// Period over which calls are counted, in seconds, 10 to 3600.
    #[schemars(range(min = 10, max = 3_600))]
    pub window_seconds: u32,
    /// Calls within the window before any judgement, 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: u32,
    /// Share of calls that may fail, in percent, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub error_rate_max: Option<f64>,
    /// Latency limit for 99 % of the calls, in milliseconds, 1 to 3600000; only the time in the function counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub p99_ms_max: Option<u32>,
    /// Calls within the window that may end with a dead worker, or find no worker that loads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crashes_max: Option<u32>,
    /// Reaction to a breach.
    pub action: PolicyAction,
    /// Seconds for which the version rolled back to is not judged, and the least time between two warnings, 1 to 86400.
    #[schemars(range(min = 1, max = 86_400))]
    pub cooldown_seconds: u32,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self {
            window_seconds: 60,
            min_requests: 50,
            error_rate_max: None,
            p99_ms_max: None,
            crashes_max: None,
            action: PolicyAction::Rollback,
            cooldown_seconds: 300,
        }
    }
}

impl PolicyLimits {
    /// Returns the limits as text: `errors at most 5 %, p99 at most 200 ms`.
    #[must_use]
    pub fn maxima(&self) -> String {
        let maxima = [
            self.error_rate_max.map(|it| format!("errors at most {it} %")),
            self.p99_ms_max.map(|it| format!("p99 at most {it} ms")),
            self.crashes_max.map(|it| format!("crashes at most {it}")),
        ];
        maxima.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for PolicyLimits {
    /// Writes the policy as the audit trail shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            PolicyAction::Rollback => "rolls back",
            PolicyAction::Warn => "warns",
        };
        let Self { window_seconds, min_requests, cooldown_seconds, .. } = self;
        let maxima = self.maxima();
        write!(
            f,
            "{action}: {maxima} within {window_seconds} s from {min_requests} calls on, cooldown {cooldown_seconds} s"
        )
    }
}

/// Checked [`PolicyLimits`] by which an alias is rolled back automatically.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "PolicyLimits", try_from = "PolicyLimits")]
pub struct Policy(PolicyLimits);

/// Equality is total because no limit of a policy is NaN.
impl Eq for Policy {}

impl Deref for Policy {
    type Target = PolicyLimits;

    fn deref(&self) -> &PolicyLimits {
        &self.0
    }
}

impl From<Policy> for PolicyLimits {
    fn from(policy: Policy) -> Self {
        policy.0
    }
}

/// Limits that are not a valid policy.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PolicyError {
    #[error("a policy needs at least one limit: give error_rate_max, p99_ms_max or crashes_max")]
    NoLimit,
    #[error("{key} is {value}: it must be from {min} to {max}")]
    Range { key: &'static str, value: f64, min: u32, max: u32 },
}

impl TryFrom<PolicyLimits> for Policy {
    type Error = PolicyError;

    fn try_from(limits: PolicyLimits) -> Result<Self, PolicyError> {
        let numbers = [
            ("window_seconds", Some(f64::from(limits.window_seconds)), 10, 3_600),
            ("min_requests", Some(f64::from(limits.min_requests)), 1, 1_000_000),
            ("error_rate_max", limits.error_rate_max, 0, 100),
            ("p99_ms_max", limits.p99_ms_max.map(f64::from), 1, 3_600_000),
            ("cooldown_seconds", Some(f64::from(limits.cooldown_seconds)), 1, 86_400),
        ];
        for (key, value, min, max) in numbers {
            // NaN is outside every range.
            if let Some(value) = value.filter(|it| !(f64::from(min)..=f64::from(max)).contains(it)) {
                return Err(PolicyError::Range { key, value, min, max });
            }
        }
        match limits {
            PolicyLimits { error_rate_max: None, p99_ms_max: None, crashes_max: None, .. } => Err(PolicyError::NoLimit),
            limits => Ok(Self(limits)),
        }
    }
}

/// Outcomes of a version's calls within the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyCounts {
    /// Finished calls, except failures caused by the caller or the node.
    pub calls: u64,
    /// Calls that failed, or were answered with a status of 500 and above.
    pub errors: u64,
    /// Calls that ended with a dead worker, or found no worker that loads.
    pub crashes: u64,
    /// Calls that took longer than `p99_ms_max`.
    pub slow: u64,
}

impl std::ops::AddAssign for PolicyCounts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.crashes += other.crashes;
        self.slow += other.slow;
    }
}

/// A limit that was broken; its text shows the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breach {
    limit: BrokenLimit,
    counts: PolicyCounts,
    window_seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum BrokenLimit {
    Crashes(u32),
    ErrorRate(f64),
    P99Ms(u32),
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (PolicyCounts { calls, errors, crashes, slow }, seconds) = (self.counts, self.window_seconds);
        match self.limit {
            BrokenLimit::Crashes(max) => {
                write!(f, "{crashes} crashes ({calls} calls in {seconds} s) over the limit of {max}")
            }
            BrokenLimit::ErrorRate(max) => {
                let rate = percent(errors, calls);
                write!(f, "error rate {rate:.1} % ({errors} of {calls} calls in {seconds} s) over the limit of {max} %")
            }
            BrokenLimit::P99Ms(max) => {
                let share = percent(slow, calls);
                write!(
                    f,
                    "p99 over the limit of {max} ms: {share:.1} % ({slow} of {calls} calls in {seconds} s) took longer"
                )
            }
        }
    }
}

fn percent(part: u64, of: u64) -> f64 {
    part as f64 / of as f64 * 100.0
}

impl Policy {
    /// Returns the limit that these calls break, the most serious one first.
    #[must_use]
    pub fn judge(&self, counts: &PolicyCounts) -> Option<Breach> {
        if counts.calls < u64::from(self.min_requests) {
            return None;
        }
        let crashes = self.crashes_max.filter(|max| counts.crashes > u64::from(*max)).map(BrokenLimit::Crashes);
        let errors = || {
            let max = self.error_rate_max.filter(|max| is_over(counts.errors, counts.calls, max / 100.0))?;
            Some(BrokenLimit::ErrorRate(max))
        };
        let slow = || {
            let max = self.p99_ms_max.filter(|_| is_over(counts.slow, counts.calls, SLOW_SHARE_MAX))?;
            Some(BrokenLimit::P99Ms(max))
        };
        let limit = crashes.or_else(errors).or_else(slow)?;
        Some(Breach { limit, counts: *counts, window_seconds: self.window_seconds })
    }
}

/// Whether `bad` of `calls` exceeds a share by more than chance explains.
fn is_over(bad: u64, calls: u64, share: f64) -> bool {
    bad as f64 > calls as f64 * share && tail(bad, calls, share) < ACCIDENT_MAX
}

/// Returns the probability of `bad` or more bad calls among `calls`, each bad with probability `share`. `bad` must be
/// over the mean, where each further term is smaller than the one before.
fn tail(bad: u64, calls: u64, share: f64) -> f64 {
    if share <= 0.0 || share >= 1.0 {
        return if share > 0.0 || bad == 0 { 1.0 } else { 0.0 };
    }
    let (n, k) = (calls as f64, bad as f64);
    let choose = ln_factorial(calls) - ln_factorial(bad) - ln_factorial(calls - bad);
    let mut term = (choose + k * share.ln() + (n - k) * (-share).ln_1p()).exp();
    let mut sum = 0.0;
    let odds = share / (1.0 - share);
    for at in bad..=calls {
        sum += term;
        // The remaining terms are bounded by a geometric series.
        if sum >= ACCIDENT_MAX || term < sum * 1e-12 {
            break;
        }
        term *= (calls - at) as f64 / (at + 1) as f64 * odds;
    }
    sum
}

/// Logarithm of `number!`: exact for small numbers, else by Stirling's series, whose error is below 1e-9 there.
fn ln_factorial(number: u64) -> f64 {
    if number < 16 {
        return (2..=number).map(|it| (it as f64).ln()).sum();
    }
    let n = number as f64;
    (n + 0.5) * n.ln() - n + 0.5 * std::f64::consts::TAU.ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(limits: PolicyLimits) -> Policy {
        limits.try_into().expect("a policy")
    }

    fn errors_at_most(percent: f64) -> Policy {
        policy(PolicyLimits { error_rate_max: Some(percent), ..PolicyLimits::default() })
    }

    fn counts(calls: u64, errors: u64) -> PolicyCounts {
        PolicyCounts { calls, errors, ..PolicyCounts::default() }
    }

    #[test]
    fn a_policy_limits_something_within_reason() {
        let with = |change: fn(&mut PolicyLimits)| {
            let mut limits = PolicyLimits { error_rate_max: Some(5.0), ..PolicyLimits::default() };
            change(&mut limits);
            Policy::try_from(limits).map_err(|error| error.to_string())
        };
        assert!(with(|_| {}).is_ok());
        assert!(with(|it| it.error_rate_max = None).is_err_and(|it| it.contains("at least one limit")));
        type Wrong = (&'static str, fn(&mut PolicyLimits));
        let wrong: [Wrong; 7] = [
            ("window_seconds", |it| it.window_seconds = 9),
            ("window_seconds", |it| it.window_seconds = 3_601),
            ("min_requests", |it| it.min_requests = 0),
            ("error_rate_max", |it| it.error_rate_max = Some(100.1)),
            ("error_rate_max", |it| it.error_rate_max = Some(f64::NAN)),
            ("p99_ms_max", |it| it.p99_ms_max = Some(0)),
            ("cooldown_seconds", |it| it.cooldown_seconds = 0),
        ];
        for (key, change) in wrong {
            assert!(with(change).is_err_and(|it| it.starts_with(key)), "{key}");
        }
        let json = r#"{"error_rate_max": 5}"#;
        assert_eq!(serde_json::from_str::<Policy>(json).expect("the rest has defaults"), errors_at_most(5.0));
        assert!(serde_json::from_str::<Policy>("{}").is_err());
    }

    #[test]
    fn the_tail_is_that_of_the_binomial_distribution() {
        // Computed by hand: P(X >= 2) of 3 with 1/2 is 4/8, all of n is p^n; the others by exact sums of fractions.
        let cases = [
            (2, 3, 0.5, 0.5),
            (50, 50, 0.05, 0.05_f64.powi(50)),
            (3, 50, 0.01, 0.013_816_6),
            (5, 50, 0.01, 0.000_145_81),
            (1, 10, 0.0001, 0.000_999_55),
        ];
        for (bad, calls, share, expected) in cases {
            // The sum may stop once chance is certain to explain the result.
            let tail = tail(bad, calls, share);
            let is_near = (tail / expected - 1.0).abs() < 1e-3;
            assert!(is_near || tail >= ACCIDENT_MAX && tail <= expected * 1.001, "{bad} of {calls} at {share}: {tail}");
        }
        assert_eq!((tail(1, 5, 0.0), tail(1, 5, 1.0)), (0.0, 1.0));
        // An hour's window on a busy node: 3 standard deviations over the mean are 0.1 %.
        let (calls, sigma) = (10_000_000, (10_000_000.0_f64 * 0.05 * 0.95).sqrt());
        assert!(!is_over(500_000 + (2.9 * sigma) as u64, calls, 0.05));
        assert!(is_over(500_000 + (3.3 * sigma) as u64, calls, 0.05));
    }

    /// Table of `docs/rollouts.md`, computed independently.
    #[test]
    fn few_calls_must_be_very_bad_and_many_only_a_little() {
        for (limit, expected) in [(1.0, [5, 9, 22, 133]), (5.0, [9, 22, 74, 570])] {
            let least = [50, 200, 1_000, 10_000]
                .map(|calls| (0..=calls).find(|errors| errors_at_most(limit).judge(&counts(calls, *errors)).is_some()));
            assert_eq!(least, expected.map(Some), "{limit} %");
        }
    }

    #[test]
    fn nothing_is_judged_before_enough_calls_and_all_failing_is_seen_at_once() {
        for limit in [0.0, 0.1, 1.0, 5.0, 50.0, 80.0] {
            let policy = errors_at_most(limit);
            assert_eq!(policy.judge(&counts(49, 49)), None);
            assert!(policy.judge(&counts(50, 50)).is_some(), "{limit}");
            assert_eq!(policy.judge(&counts(50, 0)), None);
        }
        assert_eq!(errors_at_most(100.0).judge(&counts(50, 50)), None);
    }

    #[test]
    fn a_breach_tells_its_arithmetic() {
        let told = |limits: PolicyLimits, counts| policy(limits).judge(&counts).map(|it| it.to_string());
        let limits = PolicyLimits { error_rate_max: Some(5.0), ..PolicyLimits::default() };
        let expected = "error rate 34.0 % (17 of 50 calls in 60 s) over the limit of 5 %";
        assert_eq!(told(limits.clone(), counts(50, 17)).as_deref(), Some(expected));
        let limits = PolicyLimits { crashes_max: Some(2), ..limits };
        let crashed = PolicyCounts { crashes: 3, ..counts(50, 17) };
        let expected = "3 crashes (50 calls in 60 s) over the limit of 2";
        assert_eq!(told(limits.clone(), crashed).as_deref(), Some(expected));
        assert_eq!(told(PolicyLimits { crashes_max: Some(3), error_rate_max: None, ..limits }, crashed), None);
        let limits = PolicyLimits { p99_ms_max: Some(200), ..PolicyLimits::default() };
        let expected = "p99 over the limit of 200 ms: 14.0 % (7 of 50 calls in 60 s) took longer";
        assert_eq!(told(limits.clone(), PolicyCounts { slow: 7, ..counts(50, 0) }).as_deref(), Some(expected));
        assert_eq!(told(limits, PolicyCounts { slow: 3, ..counts(50, 0) }), None, "chance may explain 3 of 50");
    }

    /// Counts the runs that trip. Each run has `calls` calls, bad with probability `bad`, and is judged after each call
    /// over the last `window` calls.
    fn trips(policy: &Policy, runs: u64, calls: usize, bad: f64, window: usize) -> usize {
        let trips = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut last, mut at, mut seen) = (vec![false; window], 0, PolicyCounts::default());
            (0..calls).any(|_| {
                let is_bad = random.f64() < bad;
                seen.errors = seen.errors + u64::from(is_bad) - u64::from(std::mem::replace(&mut last[at], is_bad));
                (seen.calls, at) = ((seen.calls + 1).min(window as u64), (at + 1) % window);
                is_bad && policy.judge(&seen).is_some()
            })
        };
        (0..runs).filter(|seed| trips(*seed)).count()
    }

    #[test]
    fn one_in_a_thousand_does_not_breach_a_limit_of_one_percent() {
        for window in [50, 200, 1_000] {
            let tripped = trips(&errors_at_most(1.0), 10_000, 2_000, 0.001, window);
            assert_eq!(tripped, 0, "of 10,000 runs over the last {window} calls");
        }
    }

    #[test]
    fn what_is_far_over_its_limit_is_seen_soon() {
        assert_eq!(trips(&errors_at_most(1.0), 1_000, 50, 1.0, 200), 1_000);
        let tripped = trips(&errors_at_most(1.0), 1_000, 200, 0.1, 200);
        assert!(tripped > 980, "ten times the limit, in 200 calls: {tripped} of 1,000");
    }
}
