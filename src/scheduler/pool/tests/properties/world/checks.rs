//! Checks on actions (allowed and required) and on the state reached.

use super::*;

impl World {
    fn has_room(&self) -> bool {
        let max = self.workers_max();
        self.lasting() + self.stopping() < max && self.workers.len() < 2 * max
    }

    /// Whether another replacement for a worn worker may be planned.
    fn may_replace(&self) -> bool {
        let max = self.workers_max();
        let has_room = self.alive() + self.stopping() <= max && self.workers.len() < 2 * max;
        has_room && self.replacements() == 0 && self.starting() < self.starting_max()
    }

    pub(super) fn first_worn(&self) -> Option<WorkerId> {
        let worn = self.workers.iter().filter_map(|(id, it)| Some((it.service().filter(|it| it.worn)?.ready_at, *id)));
        worn.min().map(|(_, id)| id)
    }

    pub(super) fn check_ask(&mut self, id: WorkerId, replaces: bool, wanted: Option<(usize, Why)>) {
        let (needed, on_their_way) = self.starts_for_callers();
        let why = if replaces {
            assert!(self.may_replace(), "{id:?} has no room to replace another");
            Why::Replace(self.first_worn().expect("a replacement without a worn worker"))
        } else {
            assert!(self.has_room(), "{id:?} has no room");
            match wanted.filter(|(count, _)| self.lasting() < *count) {
                Some((_, why)) => why,
                None => {
                    assert!(on_their_way < needed, "planned without need, or too early");
                    Why::Callers
                }
            }
        };
        self.asked += 1;
        assert_eq!(self.workers.insert(id, Phase::Planned(why)), None, "{id:?} is in use");
    }

    pub(super) fn check_withdraw(&mut self, id: WorkerId) {
        if self.due.contains(&Action::Withdraw(id)) {
            self.take_due(Action::Withdraw(id));
            self.workers.remove(&id);
            return;
        }
        let (needed, on_their_way) = self.starts_for_callers();
        let why = match self.workers.get(&id) {
            Some(Phase::Planned(why)) => *why,
            phase => panic!("{id:?} is withdrawn and {phase:?}"),
        };
        let is_needless = match why {
            Why::Wish => false,
            Why::Floor => self.is_open(),
            Why::Callers => self.is_open() || on_their_way > needed,
            Why::Replace(_) => self.is_open(),
        };
        assert!(is_needless, "{id:?} is withdrawn though it is for {why:?}");
        if why == Why::Callers {
            assert_eq!(self.newest(|it| *it == Phase::Planned(why)), Some(id), "not the newest");
        }
        self.workers.remove(&id);
    }

    pub(super) fn check_fail(&mut self, event: Event, invocation: InvocationId, reason: Failure) {
        let at = self.waiting.iter().position(|it| *it == invocation).expect("only a waiting caller can fail");
        let others = self.waiting.len() - 1;
        match reason {
            Failure::Closed => assert!(self.closed),
            Failure::StartFailed => assert!(self.is_open() && self.alive() == 0),
            Failure::QueueFull => {
                assert_eq!(event, Event::Invoke(invocation), "refused later than on arrival");
                assert!(others >= self.waiting_max(), "refused though there is room");
            }
        }
        self.waiting.remove(at);
        self.end([invocation]);
    }

    /// Checks that every required action was returned.
    pub(super) fn check_enough(&self, event: Event) {
        assert_eq!(self.due, [], "required actions are missing");
        assert_eq!(self.count(|it| *it == Phase::Retiring(Vec::new())), 0, "a finished worker is not stopped");
        assert_eq!(self.next_worker().filter(|_| !self.waiting.is_empty()), None, "I3");
        let (needed, on_their_way) = self.starts_for_callers();
        let is_full = !self.has_room();
        assert!(is_full || on_their_way >= needed, "a caller waits for no start");
        let for_callers = self.count(|it| *it == Phase::Planned(Why::Callers));
        assert!(for_callers == 0 || on_their_way <= needed, "planned without need");
        match event {
            Event::Warm(count) => assert!(is_full || self.lasting() >= count, "below what was asked for"),
            Event::SetLimits(_) => assert!(is_full || self.lasting() >= self.floor(), "below the new floor"),
            Event::Tick => {
                let is_held_up = self.starting() + self.planned() >= self.starting_max();
                assert!(is_full || is_held_up || self.lasting() >= self.floor(), "below the floor");
            }
            _ => {}
        }
        assert!(self.first_worn().is_none() || !self.may_replace(), "a worn worker gets no replacement");
        for phase in self.workers.values() {
            assert!(phase.replaces().is_none_or(|old| self.is_ready(old)), "a replacement for a worker that is gone");
        }
    }

    pub(super) fn check_state(&self, event: Event) {
        let retiring = self.count(|it| matches!(it, Phase::Retiring(_)));
        let model = Counts {
            planned: self.planned(),
            starting: self.starting(),
            idle: self.idle().len(),
            busy: self.count(Phase::is_busy),
            retiring,
            stopping: self.stopping(),
            running: self.running(),
            queued: self.waiting.len(),
        };
        assert_eq!(self.pool.counts(), model);
        assert_eq!(self.pool.is_empty(), self.workers.is_empty() && self.waiting.is_empty());
        assert_eq!(self.pool.is_closed(), self.closed);
        let health = self.failures.map_or(Health::Healthy, |it| Health::Unhealthy {
            failures: it.in_a_row as u32,
            retry_in: it.retry_at().saturating_duration_since(self.now),
        });
        assert_eq!(self.pool.health(self.now), health);
        let spare = self.ready().saturating_sub(self.limits.workers_min);
        let holding = Holding {
            ready: self.ready(),
            spare,
            idle: self.idle().iter().take(spare).map(|it| it.0).collect(),
            serving_since: self.workers.values().filter_map(|it| Some(it.service()?.serving_since)).min(),
            leaving: retiring + self.stopping(),
            stopping: self.stopping(),
            yielding: self.yielding,
        };
        assert_eq!(self.pool.holding(), holding);
        assert!(self.lasting() <= self.workers_max() && self.replacements() <= 1, "I2");
        assert!(model.queued == 0 || !self.workers.is_empty(), "I4");
        assert!(model.queued == 0 || self.alive() > 0 || !self.is_open(), "I8");
        let is_wish = |it: &Phase| *it == Phase::Planned(Why::Wish);
        assert!(!self.is_open() || self.count(is_wish) == model.planned, "I8");
        assert!(!self.closed || model.queued + self.alive() == 0, "I5");
        if let Event::Invoke(invocation) = event {
            let waits = self.waiting.back() == Some(&invocation);
            assert!(!waits || self.waiting.len() <= self.waiting_max(), "admitted beyond the bound");
        }
    }
}
