//! Direct effects of events on the model.

use super::*;

impl World {
    /// Records the direct effects of an event. Returns whether it is a failed start.
    pub(super) fn record(&mut self, event: Event) -> bool {
        self.has_served = None;
        match event {
            Event::Invoke(invocation) => self.waiting.push_back(invocation),
            Event::Cancel(invocation) => {
                if let Some(at) = self.waiting.iter().position(|it| *it == invocation) {
                    self.waiting.remove(at);
                    self.end([invocation]);
                }
            }
            Event::SetLimits(limits) => {
                self.limits = limits;
                self.workers_max_ever = self.workers_max_ever.max(limits.workers_max);
                // A wish adopts the workers that the floor still needs.
                for phase in self.workers.values_mut().filter(|it| **it == Phase::Planned(Why::Floor)) {
                    *phase = Phase::Planned(Why::Callers);
                }
            }
            Event::Evict if self.ready() > self.limits.workers_min => {
                if let Some((_, id)) = self.idle().first().copied() {
                    self.give_up(id, Vec::new());
                }
            }
            Event::Yield(count) => self.yielding = count,
            Event::Close => self.closed = true,
            Event::Tick => {
                while let Some((since, id)) = self.idle().first().copied()
                    && self.ready() > self.limits.workers_min
                    && self.now - since >= self.limits.idle_timeout
                {
                    self.give_up(id, Vec::new());
                }
            }
            Event::Evict | Event::Warm(_) => {}
            Event::Granted(id)
            | Event::Ready(id)
            | Event::StartFailed(id)
            | Event::Release(id)
            | Event::Abandon(id)
            | Event::Kill(id)
            | Event::Retire(id)
            | Event::Worn(id)
            | Event::Exited(id) => return self.record_report(event, id),
        }
        false
    }

    fn record_report(&mut self, event: Event, id: WorkerId) -> bool {
        let gives_up = self.yielding > 0 && self.ready() > self.limits.workers_min;
        let phase = self.workers.get(&id).cloned();
        let next = match (event, phase) {
            (Event::Granted(_), None) => {
                self.due.push(Action::Withdraw(id));
                return false;
            }
            (Event::Granted(_), Some(Phase::Planned(why))) => {
                let may_start = why == Why::Wish || self.starting() < self.starting_max();
                self.due.push(if may_start { Action::Start(id) } else { Action::Withdraw(id) });
                return false;
            }
            (Event::Ready(_), Some(Phase::Starting(_, why))) => {
                self.failures = None;
                let (idle_since, serving_since) = self.take_over(why);
                Some(Phase::Idle(idle_since, Service { ready_at: self.now, serving_since, served: 0, worn: false }))
            }
            (Event::StartFailed(_) | Event::Exited(_), Some(Phase::Starting(began, _))) => {
                self.workers.remove(&id);
                let again = |it: Failures| if began > it.latest { it.in_a_row + 1 } else { it.in_a_row };
                self.failures = Some(Failures { in_a_row: self.failures.map_or(1, again), latest: self.now });
                return true;
            }
            (Event::Exited(_) | Event::StartFailed(_), Some(Phase::Stopping))
            | (Event::Exited(_), Some(Phase::Idle(..))) => None,
            (Event::Exited(_), Some(Phase::Busy(running, _) | Phase::Retiring(running))) => {
                self.end(running);
                None
            }
            (Event::Release(_), Some(Phase::Busy(mut running, mut service))) => {
                self.end(running.pop());
                service.served += 1;
                self.has_served = Some(id);
                if gives_up {
                    self.yielding -= 1;
                    self.give_up(id, running);
                    return false;
                }
                Some(match running.is_empty() {
                    true => Phase::Idle(self.now, service),
                    false => Phase::Busy(running, service),
                })
            }
            (Event::Abandon(_), Some(Phase::Busy(mut running, _)))
            | (Event::Release(_) | Event::Abandon(_), Some(Phase::Retiring(mut running))) => {
                self.end(running.pop());
                Some(Phase::Retiring(running))
            }
            (Event::Kill(_), Some(Phase::Busy(running, _) | Phase::Retiring(running))) => {
                self.end(running);
                Some(Phase::Retiring(Vec::new()))
            }
            (Event::Retire(_), Some(Phase::Busy(running, _))) => Some(Phase::Retiring(running)),
            (Event::Retire(_), Some(Phase::Idle(..))) => Some(Phase::Retiring(Vec::new())),
            _ => return false,
        };
        match next {
            Some(next) => drop(self.workers.insert(id, next)),
            None => drop(self.workers.remove(&id)),
        }
        false
    }

    /// Retires a worker that is not needed, along with its replacement.
    fn give_up(&mut self, id: WorkerId, running: Vec<InvocationId>) {
        self.workers.insert(id, Phase::Retiring(running));
        let Some(new) = self.newest(|it| it.replaces() == Some(id)) else { return };
        if self.workers[&new].is_planned() {
            self.due.push(Action::Withdraw(new));
            self.workers.remove(&new);
        } else {
            self.workers.insert(new, Phase::Retiring(Vec::new()));
        }
    }

    /// Takes the place of the worker that this one replaces. Returns the times since when the new one is idle and
    /// serving; both are inherited.
    fn take_over(&mut self, why: Why) -> (Instant, Instant) {
        let Why::Replace(old) = why else { return (self.now, self.now) };
        match self.workers[&old].clone() {
            Phase::Idle(since, service) => {
                self.workers.insert(old, Phase::Retiring(Vec::new()));
                (since, service.serving_since)
            }
            Phase::Busy(running, service) => {
                self.workers.insert(old, Phase::Retiring(running));
                (self.now, service.serving_since)
            }
            phase => panic!("{old:?} is replaced and {phase:?}"),
        }
    }

    /// Records wear. The pool chooses the exact moment, within a tenth.
    pub(super) fn record_wear(&mut self, event: Event) {
        let (limits, now) = (self.limits, self.now);
        for (id, phase) in &mut self.workers {
            let Some(WorkerState::Idle { tenure, .. } | WorkerState::Busy { tenure, .. }) = self.pool.workers.get(*id)
            else {
                continue;
            };
            let (Phase::Idle(_, service) | Phase::Busy(_, service)) = phase else { continue };
            let bounds = |part: f64, limit: f64| (limit > 0.0 && part >= 0.9 * limit, limit > 0.0 && part >= limit);
            let (may, must) = match event {
                Event::Worn(worn) if worn == *id => (true, true),
                Event::Release(_) if self.has_served == Some(*id) => {
                    bounds(service.served as f64, limits.requests_max as f64)
                }
                Event::Tick => bounds((now - service.ready_at).as_secs_f64(), limits.age_max.as_secs_f64()),
                _ => (false, false),
            };
            assert!(!tenure.worn || service.worn || may, "{id:?} is worn too early");
            assert!(tenure.worn || !(service.worn || must), "{id:?} is not worn");
            service.worn = tenure.worn;
        }
    }

    /// Returns how many workers the event wants alive, and why.
    pub(super) fn wanted(&self, event: Event) -> Option<(usize, Why)> {
        match event {
            Event::Warm(count) => Some((count.min(self.workers_max()), Why::Wish)),
            Event::SetLimits(_) => Some((self.floor(), Why::Wish)),
            Event::Tick => {
                let starts = self.starting_max().saturating_sub(self.starting() + self.planned());
                Some((self.floor().min(self.lasting().saturating_add(starts)), Why::Floor))
            }
            _ => None,
        }
    }

    /// Assigns planned workers to the wish or floor that counts on them.
    pub(super) fn adopt(&mut self, wanted: Option<(usize, Why)>) {
        let Some((count, why)) = wanted else { return };
        let is_lesser = |it: &Phase| match it {
            Phase::Planned(own) => *own == Why::Callers || (*own == Why::Floor && why == Why::Wish),
            _ => false,
        };
        let others = self.lasting() - self.count(is_lesser);
        let lesser = self.workers.values_mut().filter(|it| is_lesser(it));
        lesser.take(count.saturating_sub(others)).for_each(|it| *it = Phase::Planned(why));
    }

    /// Applies R8.
    pub(super) fn record_excess(&mut self) {
        while self.lasting() > self.workers_max() {
            if let Some(id) = self.newest(Phase::is_planned) {
                self.due.push(Action::Withdraw(id));
                self.workers.remove(&id);
                continue;
            }
            let oldest_idle = || self.idle().first().map(|it| it.1);
            let id = self.newest(Phase::is_starting).or_else(oldest_idle).or_else(|| self.newest(Phase::is_busy));
            let id = id.expect("a worker is alive");
            let running = match &self.workers[&id] {
                Phase::Busy(running, _) => running.clone(),
                _ => Vec::new(),
            };
            self.workers.insert(id, Phase::Retiring(running));
        }
    }

    /// Turns a replacement whose worn worker is gone into a start for callers, or withdraws it if it is only planned.
    pub(super) fn forget_replaced(&mut self) {
        let is_late = |it: &Phase| it.replaces().is_some_and(|old| !self.is_ready(old));
        let Some(id) = self.newest(is_late) else { return };
        match self.workers.remove(&id) {
            Some(Phase::Starting(since, _)) => drop(self.workers.insert(id, Phase::Starting(since, Why::Callers))),
            _ => self.due.push(Action::Withdraw(id)),
        }
    }
}
