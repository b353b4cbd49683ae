//! Actual and expected outcomes of attempts.

use levain::{error::ErrorCode, protocol::message::InvokeResponse};
use serde_json::Value;
use std::fmt;

/// Levels of the sandbox. The numbers are the columns of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Privileged = 0,
    UserNamespace = 1,
    SharedProc = 2,
    Landlock = 3,
    Off = 4,
}

impl Level {
    pub const ALL: [Self; 5] = [Self::Privileged, Self::UserNamespace, Self::SharedProc, Self::Landlock, Self::Off];

    /// Name of the level in the configuration and the document.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::UserNamespace => "user-namespace",
            Self::SharedProc => "shared-proc",
            Self::Landlock => "landlock",
            Self::Off => "off",
        }
    }
}

/// Actual outcome of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The attempt succeeded.
    Allowed(String),
    /// The system refused the attempt.
    Blocked(String),
    /// The kernel lacks the feature.
    Absent(String),
    /// The invocation was ended with this code.
    Ended(ErrorCode, String),
    /// The daemon does not run the function at all.
    Refused(ErrorCode, String),
    /// The attempt has done its part; its effect shows elsewhere.
    Done,
    /// The attempt itself does not work, so its outcome is unknown.
    Broken(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(detail) => write!(f, "possible ({detail})"),
            Self::Blocked(detail) => write!(f, "stopped ({detail})"),
            Self::Absent(detail) => write!(f, "not there ({detail})"),
            Self::Ended(code, detail) => write!(f, "{code} ({detail})"),
            Self::Refused(code, detail) => write!(f, "refused with {code} ({detail})"),
            Self::Done => f.write_str("done"),
            Self::Broken(detail) => write!(f, "BROKEN ({detail})"),
        }
    }
}

impl Outcome {
    /// Reads the outcome from the attacker's answer.
    pub fn of(answer: &InvokeResponse) -> Self {
        if let Some(code) = answer.code {
            let details = answer.details.as_ref().map(Value::to_string).unwrap_or_default();
            return Self::Ended(code, format!("{} {details}", answer.error.as_deref().unwrap_or("")));
        }
        let said = String::from_utf8_lossy(&answer.body.0).into_owned();
        let Ok(value) = serde_json::from_str::<Value>(&said) else { return Self::Broken(said) };
        let detail = value.get("detail").map(Value::to_string).unwrap_or_default();
        match value["outcome"].as_str() {
            Some("allowed") => Self::Allowed(detail),
            Some("blocked") => Self::Blocked(detail),
            Some("absent") => Self::Absent(detail),
            Some("done") => Self::Done,
            _ => Self::Broken(said),
        }
    }
}

/// Expected outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expected {
    /// The system refuses the attempt.
    Stopped,
    /// The attempt succeeds.
    Possible,
    /// The worker is ended, and its caller gets this code.
    Ends(ErrorCode),
    /// With control groups, the system refuses the attempt or ends a process; without them, the attempt succeeds.
    ByCgroup,
    /// The daemon does not run the function.
    DoesNotRun,
    /// The attempt makes no sense at this level, or would do harm.
    NotTried,
}

impl Expected {
    pub fn is_tried(self) -> bool {
        self != Self::NotTried
    }

    /// Whether the outcome is as expected; `counted` says whether there are control groups.
    pub fn is_met_by(self, outcome: &Outcome, counted: bool) -> bool {
        use Outcome::{Absent, Allowed, Blocked, Broken, Ended, Refused};
        match (self, outcome) {
            (_, Broken(_)) => false,
            (_, Absent(_))
            | (Self::Stopped, Blocked(_))
            | (Self::Possible, Allowed(_))
            | (Self::DoesNotRun, Refused(..)) => true,
            (Self::ByCgroup, Allowed(_)) => !counted,
            (Self::ByCgroup, Blocked(_) | Ended(ErrorCode::OutOfMemory, _)) => counted,
            (Self::Ends(wanted), Ended(code, _)) => wanted == *code,
            _ => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Possible => f.write_str("**possible**"),
            Self::Ends(code) => write!(f, "`{code}`"),
            Self::ByCgroup => f.write_str("stopped by a cgroup"),
            Self::DoesNotRun => f.write_str("does not run"),
            Self::NotTried => f.write_str("–"),
        }
    }
}

#[test]
fn an_attempt_that_does_not_work_meets_no_expectation() {
    let broken = Outcome::Broken("a mistake".into());
    let (allowed, blocked) = (Outcome::Allowed("".into()), Outcome::Blocked("".into()));
    let crashed = Outcome::Ended(ErrorCode::WorkerCrashed, "".into());
    for counted in [false, true] {
        let is_met = |expected: Expected, outcome| expected.is_met_by(outcome, counted);
        for expected in [Expected::Stopped, Expected::Possible, Expected::ByCgroup, Expected::DoesNotRun] {
            assert!(!is_met(expected, &broken) && !is_met(expected, &crashed), "{expected}");
        }
        assert!(is_met(Expected::Stopped, &blocked) && !is_met(Expected::Stopped, &allowed));
        assert!(is_met(Expected::Possible, &allowed) && !is_met(Expected::Possible, &blocked));
        assert_eq!((is_met(Expected::ByCgroup, &allowed), is_met(Expected::ByCgroup, &blocked)), (!counted, counted));
    }
}
