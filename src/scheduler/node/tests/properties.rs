//! Random requests and holdings against a model of the places held, and busy pools left to themselves.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const POOLS: u8 = 5;

#[derive(Debug, Clone)]
enum Step {
    Ask(u8, bool),
    /// The nth request is withdrawn, or the nth place returned.
    Withdraw(usize),
    Leave(usize),
    /// A worker that holds no place leaves.
    LateLeave(u8, u64),
    Grant,
    Measured(u64),
    SetCaps(usize, u64),
    /// Each pool holds its workers; per pool, this many are leaving, idle, needed and told to be given up.
    Reclaim([[usize; 4]; POOLS as usize]),
    Wait(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    pool: u8,
    worker: u64,
    replaces: bool,
    since: Instant,
}

struct World {
    bench: Bench,
    caps: Caps,
    wishes: Vec<Wish>,
    held: BTreeSet<(u8, u64)>,
    next: u64,
    memory: u64,
    /// Number of measurements since each grant that is not fully measured yet.
    unmeasured: Vec<usize>,
}

impl World {
    fn new(workers_max: usize, memory_max: u64) -> World {
        let caps = Caps { workers_max, memory_max };
        let mut bench = Bench::new(workers_max);
        bench.node.set_caps(caps);
        let (wishes, held, unmeasured) = (Vec::new(), BTreeSet::new(), Vec::new());
        World { bench, caps, wishes, held, next: 1, memory: 0, unmeasured }
    }

    fn share(&self, pool: u8) -> usize {
        self.held.iter().filter(|it| it.0 == pool).count()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask(number, replaces) => {
                let wish = Wish { pool: number, worker: self.next, replaces, since: self.bench.now };
                self.next += 1;
                self.bench.node.ask(pool(number), WorkerId(wish.worker), replaces, self.bench.now);
                self.wishes.push(wish);
            }
            Step::Withdraw(n) if !self.wishes.is_empty() => {
                let wish = self.wishes.remove(n % self.wishes.len());
                self.bench.left(wish.pool, wish.worker);
            }
            Step::Leave(n) => {
                let Some((number, worker)) = self.held.iter().nth(n % self.held.len().max(1)).copied() else { return };
                self.held.remove(&(number, worker));
                self.bench.left(number, worker);
            }
            Step::LateLeave(number, n) => {
                let worker = n % (self.next + 2);
                let is_wish = self.wishes.iter().any(|it| (it.pool, it.worker) == (number, worker));
                if !is_wish && !self.held.contains(&(number, worker)) {
                    self.bench.left(number, worker);
                }
            }
            Step::Measured(memory) => {
                self.memory = memory;
                self.unmeasured.iter_mut().for_each(|it| *it += 1);
                self.unmeasured.retain(|it| *it < 2);
                self.bench.node.measured(memory);
            }
            Step::SetCaps(workers_max, memory_max) => {
                self.caps = Caps { workers_max, memory_max };
                self.bench.node.set_caps(self.caps);
            }
            Step::Grant => self.grant(),
            Step::Reclaim(of_pools) => self.reclaim(of_pools),
            Step::Wait(milliseconds) => self.bench.wait(Duration::from_millis(milliseconds)),
            Step::Withdraw(_) => {}
        }
        assert_eq!(self.bench.node.held(), self.held.len(), "M1");
        assert_eq!(self.bench.node.asking(), self.wishes.len(), "M2");
        let is_short = !self.wishes.is_empty() || self.memory > self.caps.memory_max;
        assert_eq!(self.bench.node.is_short(), is_short);
    }

    /// Checks N1 and N2.
    fn grant(&mut self) {
        let max = self.caps.workers_max.max(1);
        let memory = self.memory + (self.unmeasured.len() as u64 + 1) * START_BYTES;
        let has_memory = self.held.is_empty() || memory <= self.caps.memory_max;
        let is_older = |it: &Wish| self.wishes.iter().all(|other| other.replaces || it.since <= other.since);
        let room = |it: &Wish| self.held.len() < max || (self.held.len() == max && it.replaces && is_older(it));
        let eligible: Vec<Wish> = self.wishes.iter().copied().filter(|it| has_memory && room(it)).collect();
        // The requests are in order: `min_by_key` returns the first of equals.
        let first = eligible.iter().min_by_key(|it| self.share(it.pool)).copied();
        match (self.bench.node.grant(), first) {
            (None, None) => {}
            (Some((id, worker)), Some(first)) => {
                let (number, worker) = (super::number(id), worker.0);
                assert_eq!((number, worker), (first.pool, first.worker), "another request comes first");
                self.wishes.retain(|it| *it != first);
                self.held.insert((number, worker));
                self.wishes.sort_by_key(|it| it.pool == number);
                self.unmeasured.push(0);
            }
            (granted, first) => panic!("{granted:?} is given, and first is {first:?}"),
        }
    }

    /// Checks what N3 to N6 forbid, whatever the pools hold.
    fn reclaim(&mut self, of_pools: [[usize; 4]; POOLS as usize]) {
        let now = self.bench.now;
        let holding = |(number, [leaving, idle, floor, yielding]): (u8, [usize; 4])| {
            let leaving = leaving.min(self.share(number));
            let ready = self.share(number) - leaving;
            let spare = ready.saturating_sub(floor);
            let seconds = |at| Duration::from_secs(60 * number as u64 % 97 - at as u64);
            let idle = (0..idle.min(spare)).map(|at| now - seconds(at)).rev().collect::<Vec<_>>();
            let mut idle = idle;
            idle.sort_unstable();
            let serving_since = Some(now - Duration::from_millis(100 * u64::from(number))).filter(|_| ready > 0);
            Holding { ready, spare, idle, serving_since, leaving, stopping: leaving, yielding }
        };
        let holdings: Vec<Holding> = (1..).zip(of_pools).map(holding).collect();
        let events = self.bench.reclaim(&holdings);
        let count = |wanted: Event| events.iter().filter(|it| it.1 == wanted).count();
        let leaving: usize = holdings.iter().map(|it| it.leaving).sum();
        // Places beyond the cap are not given away again.
        let beyond_the_cap = self.held.len().saturating_sub(self.caps.workers_max.max(1));
        let in_vain = self.wishes.len().saturating_sub(leaving.saturating_sub(beyond_the_cap));
        let mut given_up = 0;
        for (number, holding) in (1..).zip(&holdings) {
            let own: Vec<Event> = events.iter().filter(|it| it.0 == pool(number)).map(|it| it.1).collect();
            let evicted = own.iter().filter(|it| **it == Event::Evict).count();
            let yields: Vec<usize> =
                own.iter().filter_map(|it| if let Event::Yield(count) = it { Some(*count) } else { None }).collect();
            assert_eq!(own.len(), evicted + yields.len(), "nothing else may be asked of a pool: {own:?}");
            assert!(yields.len() <= 1 && yields.first() != Some(&holding.yielding), "{yields:?}");
            let yielding = yields.first().copied().unwrap_or(holding.yielding);
            assert!(evicted <= holding.idle.len(), "more evictions than idle workers");
            let takes = yielding > 0 && (yielding > holding.yielding || yields.len() == 1);
            assert!(!takes || evicted + yielding <= holding.spare, "N6");
            given_up += if takes { yielding } else { 0 };
            let others_ask = self.wishes.iter().any(|it| it.pool != number);
            assert!(yielding == 0 || !takes || others_ask, "for whom?");
            let kept = holding.idle.get(evicted);
            let beyond = holdings.iter().zip(1..).filter(|(_, it)| *it != number);
            let taken = beyond.flat_map(|(it, other)| it.idle.iter().take(self.evicted(&events, other)));
            // The requests of one pool spare its own workers, but those of another pool may not.
            if let Some(kept) = kept
                && self.wishes.iter().all(|it| it.pool != number)
            {
                assert!(taken.clone().all(|it| it <= kept), "N3: {kept:?} has been idle longer");
            }
        }
        if self.memory <= self.caps.memory_max {
            assert!(count(Event::Evict) + given_up <= in_vain, "more than the requests need");
        }
    }

    fn evicted(&self, events: &[(PoolId, Event)], number: u8) -> usize {
        events.iter().filter(|it| **it == evict(number)).count()
    }
}

fn step() -> impl Strategy<Value = Step> {
    let few = || prop_oneof![3 => Just(0), 2 => 0..3usize];
    prop_oneof![
        12 => (1..=POOLS, prop::bool::weighted(0.2)).prop_map(|(pool, replaces)| Step::Ask(pool, replaces)),
        2 => any::<usize>().prop_map(Step::Withdraw),
        5 => any::<usize>().prop_map(Step::Leave),
        2 => (1..=POOLS, any::<u64>()).prop_map(|(pool, worker)| Step::LateLeave(pool, worker)),
        12 => Just(Step::Grant),
        2 => (0..400u64).prop_map(|it| Step::Measured(it * MIB)),
        1 => (0..12usize, 0..500u64).prop_map(|(workers, memory)| Step::SetCaps(workers, memory * MIB)),
        6 => prop::array::uniform5((few(), 0..4usize, few(), few()).prop_map(|it| [it.0, it.1, it.2, it.3]))
            .prop_map(Step::Reclaim),
        4 => (0..400u64).prop_map(Step::Wait),
    ]
}

/// A pool that always has work for this many workers. Each of them ends an invocation in every round.
#[derive(Debug, Clone)]
struct Busy {
    wanted: usize,
    floor: usize,
    /// Ready time of each worker.
    workers: Vec<(u64, Instant)>,
    asking: Vec<u64>,
    leaving: Vec<u64>,
    yielding: usize,
    idle_since: Instant,
    /// Rounds without a worker although the pool wants one.
    starved: usize,
}

impl Busy {
    fn spare(&self) -> usize {
        self.workers.len().saturating_sub(self.floor)
    }

    fn holding(&self) -> Holding {
        let idle = self.workers.len().saturating_sub(self.wanted).min(self.spare());
        Holding {
            ready: self.workers.len(),
            spare: self.spare(),
            idle: vec![self.idle_since; idle],
            serving_since: self.workers.iter().map(|it| it.1).min(),
            leaving: self.leaving.len(),
            stopping: self.leaving.len(),
            yielding: self.yielding,
        }
    }

    fn give_one_up(&mut self) {
        let (worker, _) = self.workers.remove(0);
        self.leaving.push(worker);
    }
}

struct Town {
    bench: Bench,
    pools: Vec<Busy>,
    next: u64,
}

impl Town {
    /// Plays half a turn.
    fn round(&mut self) {
        self.bench.wait(TURN / 2);
        for (number, it) in (1..).zip(&mut self.pools) {
            for worker in std::mem::take(&mut it.leaving) {
                self.bench.left(number, worker);
            }
            let ends = it.wanted.min(it.workers.len()).min(it.yielding).min(it.spare());
            for _ in 0..ends {
                it.yielding -= 1;
                it.give_one_up();
            }
            while it.workers.len() + it.asking.len() < it.wanted {
                self.bench.ask(number, self.next);
                it.asking.push(self.next);
                self.next += 1;
            }
            while it.workers.len() + it.asking.len() > it.wanted
                && let Some(worker) = it.asking.pop()
            {
                self.bench.left(number, worker);
            }
        }
        for (number, worker) in self.bench.grants() {
            let it = &mut self.pools[usize::from(number) - 1];
            assert!(it.asking.contains(&worker), "{worker} is granted without a request");
            it.asking.retain(|asking| *asking != worker);
            it.workers.push((worker, self.bench.now));
        }
        let holdings: Vec<Holding> = self.pools.iter().map(Busy::holding).collect();
        for (id, event) in self.bench.reclaim(&holdings) {
            let it = &mut self.pools[usize::from(super::number(id)) - 1];
            match event {
                Event::Evict => it.give_one_up(),
                Event::Yield(count) => it.yielding = count,
                other => panic!("{other:?}"),
            }
        }
        for it in &mut self.pools {
            it.starved = if it.wanted > 0 && it.workers.is_empty() { it.starved + 1 } else { 0 };
        }
    }

    fn want(&mut self, wanted: &[usize]) {
        for (it, wanted) in self.pools.iter_mut().zip(wanted) {
            it.wanted = *wanted;
            it.idle_since = self.bench.now;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn places_are_given_by_the_rules_and_come_back(
        workers_max in 0..12usize,
        memory_max in prop_oneof![1 => Just(u64::MAX), 1 => (0..500u64).prop_map(|it| it * MIB)],
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(workers_max, memory_max);
        steps.into_iter().for_each(|step| world.step(step));
        // With all held places returned and memory for all, every request is granted.
        world.step(Step::SetCaps(workers_max, u64::MAX));
        world.step(Step::Measured(0));
        for _ in 0..world.wishes.len() + world.held.len() {
            world.step(Step::Grant);
            world.step(Step::Leave(0));
        }
        prop_assert_eq!(world.wishes.len(), 0, "M3");
    }

    /// Checks M3, N4 and N5, whatever the pools held before.
    #[test]
    fn busy_pools_come_to_fair_shares_and_take_turns(
        places in 1..8usize,
        before in prop::collection::vec(0..8usize, 1..6),
        wanted in prop::collection::vec(0..8usize, 1..6),
    ) {
        let count = before.len().max(wanted.len());
        let mut town = Town { bench: Bench::new(places), pools: Vec::new(), next: 1 };
        let none = Busy {
            wanted: 0,
            floor: 0,
            workers: Vec::new(),
            asking: Vec::new(),
            leaving: Vec::new(),
            yielding: 0,
            idle_since: town.bench.now,
            starved: 0,
        };
        town.pools = vec![none; count];
        town.want(&before);
        (0..20).for_each(|_| town.round());
        town.want(&wanted);
        for _ in 0..60 {
            town.round();
            for it in &town.pools {
                prop_assert!(it.starved <= 6 * count, "{it:?} is left with nothing");
            }
        }
        let wanting = town.pools.iter().filter(|it| it.wanted > 0).count();
        if town.pools.iter().map(|it| it.wanted).sum::<usize>() <= places {
            prop_assert_eq!(town.bench.node.asking(), 0, "there is a place for every request");
        }
        if wanting <= places {
            let busy = |it: &Busy| it.workers.len().min(it.wanted);
            let most = town.pools.iter().map(busy).max().unwrap_or(0);
            for it in &town.pools {
                let has_all = it.workers.len() >= it.wanted;
                prop_assert!(has_all || busy(it) + 1 >= most, "{it:?} has less than its share of {most}");
            }
        }
    }
}
