//! One test per rule of the node. The random tests are in `properties`.

use super::*;

mod properties;

const MIB: u64 = 1 << 20;

fn pool(number: u8) -> PoolId {
    PoolId(number.into())
}

fn number(pool: PoolId) -> u8 {
    u8::try_from(pool.0).expect("tests have few pools")
}

fn evict(number: u8) -> (PoolId, Event) {
    (pool(number), Event::Evict)
}

fn give_up(number: u8, count: usize) -> (PoolId, Event) {
    (pool(number), Event::Yield(count))
}

/// A node and its clock.
struct Bench {
    node: Node,
    now: Instant,
}

impl Bench {
    /// Makes a node with enough memory for all.
    fn new(workers_max: usize) -> Bench {
        Bench { node: Node::new(Caps { workers_max, memory_max: u64::MAX }), now: Instant::now() }
    }

    /// Makes a node on which pools 1, 2, … hold this many workers.
    fn held(workers_max: usize, held: &[u64]) -> Bench {
        let mut bench = Bench::new(workers_max);
        for (number, workers) in (1..).zip(held) {
            for worker in 1..=*workers {
                bench.ask(number, worker);
                assert_eq!(bench.grants(), [(number, worker)]);
            }
        }
        bench
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Asks for a place, a moment later than before, so that no two requests have the same age.
    fn ask(&mut self, number: u8, worker: u64) {
        self.wait(Duration::from_nanos(1));
        self.node.ask(pool(number), WorkerId(worker), false, self.now);
    }

    fn ask_to_replace(&mut self, number: u8, worker: u64) {
        self.wait(Duration::from_nanos(1));
        self.node.ask(pool(number), WorkerId(worker), true, self.now);
    }

    fn left(&mut self, number: u8, worker: u64) {
        self.node.left(pool(number), WorkerId(worker));
    }

    /// Returns all places given now: the pool's number and the worker's.
    fn grants(&mut self) -> Vec<(u8, u64)> {
        let granted = std::iter::from_fn(|| self.node.grant());
        granted.map(|(pool, worker)| (number(pool), worker.0)).collect()
    }

    /// Returns what pools 1, 2, … with these holdings must give up.
    fn reclaim(&self, holdings: &[Holding]) -> Vec<(PoolId, Event)> {
        let holdings: Vec<_> = (1..).zip(holdings).map(|(number, it)| (pool(number), it.clone())).collect();
        self.node.reclaim(&holdings, self.now)
    }

    /// Makes the holding of a pool whose workers are all busy and have just begun to serve.
    fn busy(&self, ready: usize) -> Holding {
        Holding { ready, spare: ready, serving_since: Some(self.now).filter(|_| ready > 0), ..Holding::default() }
    }

    /// Makes the holding of a pool whose workers have been idle for this many seconds.
    fn idle(&self, seconds: &[u64]) -> Holding {
        let idle = seconds.iter().map(|it| self.now - Duration::from_secs(*it)).collect();
        Holding { idle, ..self.busy(seconds.len()) }
    }
}

// N1

#[test]
fn as_many_places_are_given_as_there_are() {
    let mut bench = Bench::new(2);
    for worker in 1..=3 {
        bench.ask(1, worker);
    }
    assert_eq!(bench.grants(), [(1, 1), (1, 2)]);
    assert_eq!((bench.node.held(), bench.node.asking(), bench.node.is_short()), (2, 1, true));
    bench.left(1, 1);
    assert_eq!(bench.grants(), [(1, 3)]);
    assert_eq!((bench.node.held(), bench.node.asking(), bench.node.is_short()), (2, 0, false));
}

#[test]
fn a_node_without_places_has_one() {
    let mut bench = Bench::new(0);
    bench.ask(1, 1);
    bench.ask(2, 1);
    assert_eq!(bench.grants(), [(1, 1)]);
}

#[test]
fn one_more_goes_to_a_worker_that_comes_to_replace_another() {
    let mut bench = Bench::held(2, &[1, 1]);
    bench.ask_to_replace(1, 2);
    bench.ask_to_replace(2, 2);
    bench.ask(3, 1);
    assert_eq!(bench.grants(), [(1, 2)]);
    assert_eq!(bench.grants(), [], "one");
    bench.left(1, 1);
    assert_eq!(bench.grants(), [(2, 2)]);
    bench.left(2, 1);
    assert_eq!(bench.grants(), [], "all places are taken");
    bench.left(2, 2);
    assert_eq!(bench.grants(), [(3, 1)]);
}

#[test]
fn no_place_is_given_that_the_memory_is_too_small_for() {
    let mut bench = Bench::held(9, &[1]);
    bench.node.set_caps(Caps { workers_max: 9, memory_max: 100 * MIB });
    bench.node.measured(0);
    bench.node.measured(52 * MIB);
    for worker in 2..=5 {
        bench.ask(1, worker);
    }
    assert_eq!(bench.grants(), [(1, 2), (1, 3)], "24 MiB each until they are measured");
    bench.node.measured(76 * MIB);
    assert_eq!(bench.grants(), [], "the new workers may not have been ready at the measurement");
    bench.node.measured(76 * MIB);
    assert_eq!(bench.grants(), [(1, 4)]);
    bench.node.measured(77 * MIB);
    bench.node.measured(77 * MIB);
    assert_eq!(bench.grants(), [], "there is not enough for another");
}

#[test]
fn a_replacement_needs_memory_too() {
    let mut bench = Bench::held(1, &[1]);
    bench.node.set_caps(Caps { workers_max: 1, memory_max: START_BYTES });
    bench.ask_to_replace(1, 2);
    assert_eq!(bench.grants(), []);
}

#[test]
fn the_first_worker_starts_whatever_the_memory_is() {
    let mut bench = Bench::new(9);
    bench.node.set_caps(Caps { workers_max: 9, memory_max: 1 });
    bench.ask(1, 1);
    bench.ask(1, 2);
    assert_eq!(bench.grants(), [(1, 1)]);
    bench.left(1, 1);
    assert_eq!(bench.grants(), [(1, 2)]);
}

#[test]
fn changed_caps_hold_for_the_next_places() {
    let mut bench = Bench::held(3, &[3]);
    bench.ask(2, 1);
    let caps = |workers_max| Caps { workers_max, memory_max: u64::MAX };
    bench.node.set_caps(caps(2));
    assert_eq!((bench.node.held(), bench.node.caps()), (3, caps(2)));
    bench.left(1, 1);
    assert_eq!(bench.grants(), []);
    bench.node.set_caps(caps(3));
    assert_eq!(bench.grants(), [(2, 1)]);
}

// N2

#[test]
fn who_holds_the_fewest_comes_first_and_of_equals_the_oldest() {
    let mut bench = Bench::held(3, &[2, 1]);
    bench.ask(1, 3);
    bench.ask(2, 2);
    bench.ask(3, 1);
    bench.ask(4, 1);
    bench.ask(2, 3);
    bench.node.set_caps(Caps { workers_max: 99, memory_max: u64::MAX });
    assert_eq!(bench.grants(), [(3, 1), (4, 1), (2, 2), (1, 3), (2, 3)]);
}

#[test]
fn the_wishes_of_a_pool_are_granted_in_their_order() {
    let mut bench = Bench::held(1, &[1]);
    for worker in [7, 3, 9, 5] {
        bench.ask(2, worker);
    }
    bench.left(2, 3);
    bench.node.set_caps(Caps { workers_max: 99, memory_max: u64::MAX });
    assert_eq!(bench.grants(), [(2, 7), (2, 9), (2, 5)]);
}

#[test]
fn who_is_given_a_place_goes_to_the_end_of_the_line_with_all_its_wishes() {
    let mut bench = Bench::new(1);
    for worker in 1..=3 {
        bench.ask(1, worker);
    }
    bench.ask(2, 1);
    bench.ask(2, 2);
    bench.ask(3, 1);
    let mut turns = Vec::new();
    while let [(number, worker)] = bench.grants()[..] {
        turns.push((number, worker));
        bench.left(number, worker);
    }
    assert_eq!(turns, [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 3)]);
}

// N3

#[test]
fn the_worker_of_another_pool_that_is_idle_longest_stops_for_who_asks() {
    let mut bench = Bench::held(5, &[2, 2, 1]);
    bench.ask(1, 3);
    let holdings = [bench.idle(&[90, 80]), bench.idle(&[60, 5]), bench.idle(&[70])];
    assert_eq!(bench.reclaim(&holdings), [evict(3)]);
    bench.ask(1, 4);
    bench.ask(1, 5);
    bench.ask(1, 6);
    assert_eq!(bench.reclaim(&holdings), [evict(3), evict(2), evict(2)], "one for each request, and none of its own");
}

#[test]
fn nobody_stops_for_who_gets_a_place_that_becomes_free_anyway() {
    let mut bench = Bench::held(4, &[2, 2]);
    bench.ask(3, 1);
    bench.ask(3, 2);
    let leaving = Holding { leaving: 1, stopping: 1, ..bench.idle(&[9]) };
    assert_eq!(bench.reclaim(&[bench.idle(&[5, 3]), leaving]), [evict(2)], "for one of the two requests");
    let leaving = Holding { leaving: 2, stopping: 2, ..bench.idle(&[]) };
    assert_eq!(bench.reclaim(&[bench.idle(&[5, 3]), leaving]), []);
    let retiring = Holding { leaving: 2, ..bench.idle(&[]) };
    assert_eq!(bench.reclaim(&[bench.idle(&[5, 3]), retiring.clone()]), [evict(1), evict(1)], "retiring may take long");
    assert_eq!(bench.reclaim(&[bench.busy(2), retiring]), [], "retiring takes as long as another invocation");
}

#[test]
fn places_beyond_a_lowered_cap_are_for_nobody() {
    let mut bench = Bench::held(4, &[2, 2]);
    bench.node.set_caps(Caps { workers_max: 2, ..bench.node.caps() });
    bench.ask(3, 1);
    let leaving = Holding { leaving: 2, stopping: 2, ..bench.idle(&[]) };
    assert_eq!(bench.reclaim(&[bench.idle(&[5, 3]), leaving]), [evict(1)], "4 - 2 is still 2");
}

#[test]
fn nobody_stops_when_nobody_asks() {
    let bench = Bench::held(2, &[2]);
    assert_eq!(bench.reclaim(&[bench.idle(&[5, 3])]), []);
}

#[test]
fn idle_workers_stop_when_all_have_too_much_memory() {
    let mut bench = Bench::held(4, &[3, 1]);
    bench.node.set_caps(Caps { workers_max: 4, memory_max: 100 * MIB });
    bench.node.measured(100 * MIB);
    let holdings = [bench.idle(&[7, 3, 2]), bench.idle(&[5])];
    assert!(!bench.node.is_short());
    assert_eq!(bench.reclaim(&holdings), []);
    bench.node.measured(140 * MIB);
    assert!(bench.node.is_short());
    assert_eq!(bench.reclaim(&holdings), [evict(1), evict(2)], "35 MiB each: two evictions are enough");
    let leaving = [Holding { leaving: 1, stopping: 1, ..bench.idle(&[3, 2]) }, bench.idle(&[5])];
    assert_eq!(bench.reclaim(&leaving), [evict(2)], "one worker is already leaving");
    assert_eq!(bench.reclaim(&[bench.busy(3), bench.busy(1)]), [], "no invocation is cut");
    assert_eq!(Bench::new(1).reclaim(&[]), []);
}

// N4

#[test]
fn who_holds_two_more_gives_one_up() {
    let mut bench = Bench::held(4, &[3, 1]);
    bench.ask(2, 2);
    assert_eq!(bench.reclaim(&[bench.busy(3), bench.busy(1)]), [give_up(1, 1)]);
    let mut bench = Bench::held(3, &[2, 1]);
    bench.ask(2, 2);
    assert_eq!(bench.reclaim(&[bench.busy(2), bench.busy(1)]), [], "they would only swap shares");
}

#[test]
fn shares_come_to_differ_by_one_at_most() {
    for (held, expected) in [(2, 1), (3, 1), (4, 2), (5, 2), (6, 3)] {
        let mut bench = Bench::held(held as usize, &[held]);
        for worker in 1..=9 {
            bench.ask(2, worker);
        }
        assert_eq!(bench.reclaim(&[bench.busy(held as usize)]), [give_up(1, expected)], "of {held}");
    }
}

#[test]
fn the_richest_gives_up_first_and_idle_workers_before_busy_ones() {
    let mut bench = Bench::held(9, &[4, 5]);
    bench.ask(3, 1);
    assert_eq!(bench.reclaim(&[bench.busy(4), bench.busy(5)]), [give_up(2, 1)]);
    let some_idle = Holding { idle: vec![bench.now], ..bench.busy(4) };
    assert_eq!(bench.reclaim(&[some_idle, bench.busy(5)]), [evict(1)]);
}

#[test]
fn a_pool_is_told_when_it_is_to_give_up_another_number_only() {
    let mut bench = Bench::held(3, &[3]);
    bench.ask(2, 1);
    let told = |yielding| Holding { yielding, ..bench.busy(3) };
    assert_eq!(bench.reclaim(&[told(0)]), [give_up(1, 1)]);
    assert_eq!(bench.reclaim(&[told(1)]), []);
    assert_eq!(bench.reclaim(&[told(2)]), [give_up(1, 1)]);
    let told = told(1);
    bench.left(2, 1);
    assert_eq!(bench.reclaim(&[told]), [give_up(1, 0)], "no pool asks any more");
}

// N5

/// Makes a node whose two places have been held for as long as pool 3 has asked for one.
fn waiting_for_its_turn(time: Duration) -> Bench {
    let mut bench = Bench::held(2, &[1, 1]);
    bench.ask(3, 1);
    bench.wait(time);
    bench
}

#[test]
fn who_holds_nothing_gets_the_place_of_the_pool_that_serves_longest() {
    let bench = waiting_for_its_turn(TURN);
    let served = |time| Holding { serving_since: Some(bench.now - time), ..bench.busy(1) };
    assert_eq!(bench.reclaim(&[served(TURN), served(2 * TURN)]), [give_up(2, 1)]);
    assert_eq!(bench.reclaim(&[served(3 * TURN), served(2 * TURN)]), [give_up(1, 1)]);
    let early = TURN - Duration::from_nanos(1);
    assert_eq!(bench.reclaim(&[served(early), served(TURN)]), [give_up(2, 1)]);
    assert_eq!(bench.reclaim(&[served(early), served(early)]), [], "the workers have just begun");
}

#[test]
fn a_turn_comes_after_a_while_and_to_who_holds_nothing() {
    let long = |bench: &Bench| Holding { serving_since: Some(bench.now - 9 * TURN), ..bench.busy(1) };
    let bench = waiting_for_its_turn(TURN - Duration::from_nanos(1));
    assert_eq!(bench.reclaim(&[long(&bench), long(&bench)]), []);
    let mut bench = Bench::held(2, &[1, 1]);
    bench.ask(2, 2);
    bench.wait(9 * TURN);
    assert_eq!(bench.reclaim(&[long(&bench), long(&bench)]), []);
    let mut bench = waiting_for_its_turn(Duration::ZERO);
    bench.ask(3, 2);
    bench.wait(9 * TURN);
    assert_eq!(bench.reclaim(&[long(&bench), long(&bench)]).len(), 1, "its second request is not its turn");
}

// N6

#[test]
fn floors_are_given_up_to_nobody() {
    let mut bench = Bench::held(4, &[4]);
    for worker in 1..=4 {
        bench.ask(2, worker);
    }
    bench.wait(9 * TURN);
    let floor = |spare| Holding { spare, serving_since: Some(bench.now - 9 * TURN), ..bench.busy(4) };
    assert_eq!(bench.reclaim(&[floor(0)]), []);
    assert_eq!(bench.reclaim(&[floor(1)]), [give_up(1, 1)]);
    let last = Holding { idle: vec![bench.now], ..floor(1) };
    assert_eq!(bench.reclaim(&[last]), [evict(1)]);
    let one_idle = Holding { idle: vec![bench.now], ..floor(2) };
    assert_eq!(bench.reclaim(&[one_idle]), [evict(1), give_up(1, 1)], "two workers in all");
}

// Bookkeeping

#[test]
fn who_leaves_gives_back_its_place_or_its_wish_once() {
    let mut bench = Bench::held(2, &[2]);
    bench.ask(2, 1);
    bench.ask(2, 2);
    bench.left(2, 1);
    bench.left(2, 1);
    assert_eq!((bench.node.held(), bench.node.asking()), (2, 1));
    bench.left(1, 2);
    bench.left(1, 2);
    bench.left(3, 1);
    assert_eq!((bench.node.held(), bench.node.asking()), (1, 1));
    assert_eq!(bench.grants(), [(2, 2)]);
    assert_eq!(bench.grants(), []);
    bench.left(2, 2);
    bench.left(1, 1);
    assert_eq!((bench.node.held(), bench.node.asking(), bench.node.is_short()), (0, 0, false));
}

#[test]
fn a_replacement_takes_no_place_that_somebody_has_waited_for_longer() {
    let mut bench = Bench::held(2, &[2]);
    bench.ask_to_replace(1, 3);
    assert_eq!(bench.grants(), [(1, 3)], "nobody waits");
    bench.ask(2, 1);
    bench.ask_to_replace(1, 4);
    bench.left(1, 1);
    assert_eq!(bench.grants(), [], "the worker that was replaced has left the place beyond the cap");
    bench.left(1, 2);
    assert_eq!(bench.grants(), [(2, 1), (1, 4)], "and the next one a place within it");
}
