//! Rollout plans, which raise a version's share of an alias's calls, and the next action for a watched alias.
//!
//! ```text
//!             resume                    the last step
//!   paused <========> running ─────────────────────────> done
//!      │      pause      │  │  ▲
//!      └───────┬─────────┘  └──┘ the next step, its hold being over and no limit broken
//!              ▼
//!           aborted: by a command, by the alias's policy, or because another act moved the alias
//! ```

use super::{
    AliasName, Breach, FunctionId, Percent, PolicyAction, RolloutId, Timestamp, VersionLabel, time, words::words,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// Largest number of steps in a plan.
const STEPS_MAX: usize = 20;

/// Longest hold of a step: a week.
const HOLD_SECONDS_MAX: u32 = 7 * 86_400;

/// A share, and how long the version keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutStep {
    /// Share of calls.
    pub percent: Percent,
    /// Seconds before the next step; 0 for the last step, which ends the rollout.
    pub hold_seconds: u32,
}

/// Shares that rise to 100 %, each held for some time: `10% 5m, 50% 5m, 100%`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<RolloutStep>", try_from = "Vec<RolloutStep>")]
pub struct RolloutPlan(Vec<RolloutStep>);

impl RolloutPlan {
    /// Returns the steps, at least two.
    #[must_use]
    pub fn steps(&self) -> &[RolloutStep] {
        &self.0
    }
}

/// Why a text or a list is not a valid plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutPlanError {
    /// Too few or too many steps.
    #[error("a plan has 2 to {STEPS_MAX} steps such as `10% 5m, 50% 5m, 100%`, not {0}")]
    Count(usize),
    /// A step is wrong.
    #[error("step {number} of the plan, `{step}`: {problem}")]
    RolloutStep {
        /// Number of the step, from 1.
        number: usize,
        /// Step as given.
        step: String,
        /// Fault of the step.
        problem: StepProblem,
    },
}

/// Fault of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StepProblem {
    #[error("a step begins with a share from 1% to 100%")]
    Share,
    #[error("say how long to hold it, such as `30s`, `5m` or `2h`; only the last step has no time")]
    NoHold,
    #[error("a step is held for 1 second to 7 days, written as `30s`, `5m`, `2h` or `1d`")]
    Hold,
    #[error("its share must be above that of the step before")]
    NotRising,
    #[error("the last step must be 100%")]
    NotAll,
    #[error("the last step ends the rollout and is not held: leave the time out")]
    LastHolds,
}

impl FromStr for RolloutPlan {
    type Err = RolloutPlanError;

    fn from_str(text: &str) -> Result<Self, RolloutPlanError> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        // The count is checked first, before the steps are collected.
        if !(2..=STEPS_MAX).contains(&parts.len()) {
            return Err(RolloutPlanError::Count(parts.len()));
        }
        let steps = parts.iter().enumerate().map(|(index, part)| {
            let wrong = |problem| {
                let step = part.chars().take(40).collect();
                RolloutPlanError::RolloutStep { number: index + 1, step, problem }
            };
            step(part).map_err(wrong)
        });
        steps.collect::<Result<Vec<_>, _>>()?.try_into()
    }
}

fn step(text: &str) -> Result<RolloutStep, StepProblem> {
    let (share, hold) = text.split_once('%').ok_or(StepProblem::Share)?;
    let percent =
        share.trim().parse::<u32>().ok().and_then(|it| Percent::try_from(it).ok()).ok_or(StepProblem::Share)?;
    let hold_seconds = match hold.trim() {
        "" => 0,
        hold => {
            let seconds = time::parse_age(hold).and_then(|it| u32::try_from(it / 1_000).ok());
            seconds.filter(|it| *it > 0).ok_or(StepProblem::Hold)?
        }
    };
    Ok(RolloutStep { percent, hold_seconds })
}

impl TryFrom<Vec<RolloutStep>> for RolloutPlan {
    type Error = RolloutPlanError;

    fn try_from(steps: Vec<RolloutStep>) -> Result<Self, RolloutPlanError> {
        if !(2..=STEPS_MAX).contains(&steps.len()) {
            return Err(RolloutPlanError::Count(steps.len()));
        }
        let mut before = Percent::NONE;
        for (index, step) in steps.iter().enumerate() {
            let is_last = index + 1 == steps.len();
            let problem = match step {
                RolloutStep { percent, .. } if *percent == Percent::NONE => Some(StepProblem::Share),
                RolloutStep { percent, .. } if *percent <= before => Some(StepProblem::NotRising),
                RolloutStep { percent, .. } if is_last && *percent != Percent::ALL => Some(StepProblem::NotAll),
                RolloutStep { hold_seconds: 1.., .. } if is_last => Some(StepProblem::LastHolds),
                RolloutStep { hold_seconds: 0, .. } if !is_last => Some(StepProblem::NoHold),
                RolloutStep { hold_seconds, .. } if *hold_seconds > HOLD_SECONDS_MAX => Some(StepProblem::Hold),
                _ => None,
            };
            if let Some(problem) = problem {
                return Err(RolloutPlanError::RolloutStep { number: index + 1, step: step.to_string(), problem });
            }
            before = step.percent;
        }
        Ok(Self(steps))
    }
}

impl From<RolloutPlan> for Vec<RolloutStep> {
    fn from(plan: RolloutPlan) -> Self {
        plan.0
    }
}

impl fmt::Display for RolloutStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent.get())?;
        match self.hold_seconds {
            0 => Ok(()),
            it if it % 86_400 == 0 => write!(f, " {}d", it / 86_400),
            it if it % 3_600 == 0 => write!(f, " {}h", it / 3_600),
            it if it % 60 == 0 => write!(f, " {}m", it / 60),
            it => write!(f, " {it}s"),
        }
    }
}

impl fmt::Display for RolloutPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&steps.join(", "))
    }
}

words! {
    /// State of a rollout.
    RolloutStatus {
        /// Advances automatically.
        Running = "running",
        /// Keeps its share until somebody resumes or aborts it.
        Paused = "paused",
        /// Finished: the alias points at the version.
        Done = "done",
        /// Ended early.
        Aborted = "aborted",
    }
}

/// A plan for an alias and a version, and its progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Identity of the rollout.
    pub id: RolloutId,
    /// Function concerned.
    pub function_id: FunctionId,
    /// Alias whose calls are moved.
    pub alias: AliasName,
    /// Label of the version that gets the calls.
    pub label: VersionLabel,
    /// Number of that version.
    pub number: u32,
    /// Steps of the rollout.
    pub plan: RolloutPlan,
    /// Current step, from 0; for a rollout that is over, the step at which it ended.
    pub step: u32,
    /// State of the rollout.
    pub status: RolloutStatus,
    /// Actor who started it.
    pub actor: String,
    /// Reason, in the words of that actor.
    pub reason: Option<String>,
    /// Why it was paused or aborted.
    pub outcome: Option<String>,
    /// Start time.
    pub created_at: Timestamp,
    /// Time of the last change, which is when the current step's hold began.
    pub updated_at: Timestamp,
    /// End time.
    pub finished_at: Option<Timestamp>,
}

impl Rollout {
    /// Returns the current step.
    #[must_use]
    pub fn present(&self) -> RolloutStep {
        let steps = self.plan.steps();
        steps[(self.step as usize).min(steps.len() - 1)]
    }

    /// Returns the rollout advanced by one step. The last step ends it.
    #[must_use]
    pub fn stepped(&self, now: Timestamp) -> Self {
        let step = self.step + 1;
        let next = Self { step, updated_at: now, outcome: None, ..self.clone() };
        match step as usize + 1 >= self.plan.steps().len() {
            true => next.ended(RolloutStatus::Done, None, now),
            false => next,
        }
    }

    /// Returns the rollout running or paused at its current step.
    #[must_use]
    pub fn held(&self, status: RolloutStatus, outcome: Option<String>, now: Timestamp) -> Self {
        Self { status, outcome, updated_at: now, ..self.clone() }
    }

    /// Returns the rollout at its end.
    #[must_use]
    pub fn ended(&self, status: RolloutStatus, outcome: Option<String>, now: Timestamp) -> Self {
        Self { finished_at: Some(now), ..self.held(status, outcome, now) }
    }

    /// Returns `step 2 of 3 of rollout-…`.
    #[must_use]
    pub fn step_text(&self) -> String {
        format!("step {} of {} of {}", self.step + 1, self.plan.steps().len(), self.id)
    }
}

/// Next action for a watched alias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WatchAction {
    /// No action.
    Nothing,
    /// Roll the alias back, which also ends a rollout.
    GoBack(Breach),
    /// Warn about the breach.
    Warn(Breach),
    /// Warn about the breach and pause the rollout.
    Pause(Breach),
    /// Advance the rollout to its next step.
    Advance,
}

/// Decides the next action for a watched alias, given the breach its policy found, and its rollout with the time since
/// the current step began to hold.
#[must_use]
pub fn decide(breach: Option<(PolicyAction, Breach)>, rollout: Option<(&Rollout, Duration)>) -> WatchAction {
    let running = rollout.filter(|(rollout, _)| rollout.status == RolloutStatus::Running);
    match (breach, running) {
        (Some((PolicyAction::Rollback, breach)), _) => WatchAction::GoBack(breach),
        (Some((PolicyAction::Warn, breach)), Some(_)) => WatchAction::Pause(breach),
        (Some((PolicyAction::Warn, breach)), None) => WatchAction::Warn(breach),
        (None, Some((rollout, held))) if held >= Duration::from_secs(rollout.present().hold_seconds.into()) => {
            WatchAction::Advance
        }
        (None, _) => WatchAction::Nothing,
    }
}

#[cfg(test)]
mod tests;
