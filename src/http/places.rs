//! Limits on connections, and the choice of the one to close when all places are taken.
//!
//! ```text
//! a place is free ───────────────────────────────▶ an ordinary place
//! an idle one, of a peer with more than this one ▶ that one is closed, an ordinary place
//! one of the few reserved places is free ────────▶ a reserved place: no invocations
//! a reserved one is idle ────────────────────────▶ that one is closed, a reserved place
//! nothing is idle ───────────────────────────────▶ the connection waits
//! ```
//!
//! A connection is idle from its last answer to the complete head of its next request. The peer with the most idle
//! connections loses first, and of these the one idle longest is closed. A newcomer whose peer has as many connections
//! as the others displaces only its own. So a client that opens many keeps nobody out, and a proxy that holds all
//! connections is not limited. A connection with a running request is never closed.
//!
//! Requests to the daemon itself (`/health`, `/ready`, `/api/`) are answered on reserved places too, so that an
//! operator can inspect a node whose functions hold all other connections.
//!
//! Decisions are made under a lock that is taken when connections come and go. A request only updates two atomics of
//! its own connection.

use super::activity::{Activity, Busy};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

/// Places beyond `http.connections_max` for requests to the daemon itself. Enough for several people and their scripts,
/// and few compared with the least number of open files that daemons get.
const RESERVED: usize = 64;

/// Most connections that were told to close and are still open.
const LEAVING_MAX: usize = 64;

/// Returns the key of a peer: an IPv4 address, or the /64 network, the least that one customer of IPv6 has.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}

/// The places of all connections. Times are in ms since `started`.
#[derive(Debug)]
pub(super) struct Places {
    state: Mutex<Taken>,
    started: Instant,
}

/// How a connection got its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// A place was free.
    Free,
    /// An idle connection was closed to make room.
    Displacing,
    /// A reserved place, for requests to the daemon itself.
    Reserved,
}

/// Place of one connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    peer: IpAddr,
    id: u64,
    pub(super) admission: Admission,
    activity: Arc<Activity>,
}

impl Places {
    pub(super) fn new(ordinary_max: usize) -> Arc<Self> {
        let state = Mutex::new(Taken { ordinary_max, ..Taken::default() });
        Arc::new(Self { state, started: Instant::now() })
    }

    /// Admits a connection of this peer, or returns `None` while all places are taken and no connection is idle.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let peer = peer_of(address);
        let activity = Activity::idle_from(self.started);
        let (id, admission) = self.state.lock().admit(peer, &activity)?;
        Some(Place { places: Arc::clone(self), peer, id, admission, activity })
    }
}

impl Place {
    /// Activity of the connection.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Marks the begin of a request.
    pub(super) fn busy(&self) -> Busy {
        Busy::begin(&self.activity, self.places.started)
    }

    /// Whether this connection may call functions. One on a reserved place may do so once an ordinary place is free or
    /// can be freed.
    pub(super) fn may_call(&self) -> bool {
        self.admission != Admission::Reserved || self.places.state.lock().settle(self.peer, self.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.state.lock().leave(self.peer, self.id);
    }
}

/// Taken places, by peer.
#[derive(Debug, Default)]
struct Taken {
    ordinary_max: usize,
    peers: HashMap<IpAddr, HashMap<u64, Member>>,
    ordinary: usize,
    reserved: usize,
    leaving: usize,
    next_id: u64,
}

#[derive(Debug)]
struct Member {
    kind: Kind,
    activity: Arc<Activity>,
}

/// Kind of place that a connection counts towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ordinary,
    Reserved,
    /// Told to close, still open.
    Leaving,
}

impl Taken {
    fn admit(&mut self, peer: IpAddr, activity: &Arc<Activity>) -> Option<(u64, Admission)> {
        let (kind, admission) = if self.ordinary < self.ordinary_max {
            (Kind::Ordinary, Admission::Free)
        } else if self.evict(Kind::Ordinary, peer) {
            (Kind::Ordinary, Admission::Displacing)
        } else if self.reserved < RESERVED || self.evict(Kind::Reserved, peer) {
            (Kind::Reserved, Admission::Reserved)
        } else {
            return None;
        };
        let id = self.next_id;
        self.next_id += 1;
        *self.count(kind) += 1;
        self.peers.entry(peer).or_default().insert(id, Member { kind, activity: Arc::clone(activity) });
        Some((id, admission))
    }

    /// Moves a reserved connection to an ordinary place. Returns whether it has one.
    fn settle(&mut self, peer: IpAddr, id: u64) -> bool {
        let kind = self.peers.get(&peer).and_then(|members| members.get(&id)).map(|it| it.kind);
        if kind != Some(Kind::Reserved) {
            return kind == Some(Kind::Ordinary);
        }
        if self.ordinary >= self.ordinary_max && !self.evict(Kind::Ordinary, peer) {
            return false;
        }
        self.turn(peer, id, Kind::Ordinary);
        true
    }

    /// Tells the idle connection of this kind that should make room for `newcomer` to close. Returns whether there was
    /// one.
    fn evict(&mut self, kind: Kind, newcomer: IpAddr) -> bool {
        if self.leaving >= LEAVING_MAX {
            return false;
        }
        let own = self.peers.get(&newcomer).map_or(0, HashMap::len);
        let others = self.peers.iter().filter(|(peer, members)| **peer == newcomer || members.len() > own);
        let idle = others.filter_map(|(peer, members)| {
            let idle = members.iter().filter(|(_, it)| it.kind == kind && it.activity.is_idle());
            let (count, first) = idle.fold((0_usize, None), |(count, first), (id, it)| {
                let one = (it.activity.idle_since_ms(), *id);
                (count + 1, Some(first.map_or(one, |first: (u64, u64)| first.min(one))))
            });
            Some((count, std::cmp::Reverse(first?), *peer))
        });
        let Some((_, std::cmp::Reverse((_, id)), peer)) = idle.max() else { return false };
        self.turn(peer, id, Kind::Leaving);
        true
    }

    /// Changes the kind that a connection counts towards.
    fn turn(&mut self, peer: IpAddr, id: u64, kind: Kind) {
        let Some(member) = self.peers.get_mut(&peer).and_then(|members| members.get_mut(&id)) else { return };
        if kind == Kind::Leaving {
            member.activity.evict();
        }
        let before = std::mem::replace(&mut member.kind, kind);
        *self.count(before) -= 1;
        *self.count(kind) += 1;
    }

    fn leave(&mut self, peer: IpAddr, id: u64) {
        let Some(members) = self.peers.get_mut(&peer) else { return };
        let Some(member) = members.remove(&id) else { return };
        if members.is_empty() {
            self.peers.remove(&peer);
        }
        *self.count(member.kind) -= 1;
    }

    fn count(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Ordinary => &mut self.ordinary,
            Kind::Reserved => &mut self.reserved,
            Kind::Leaving => &mut self.leaving,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "10.0.0.1";
    const B: &str = "10.0.0.2";

    /// Takes places one after the other, each idle for longer than the next.
    struct Hall {
        places: Arc<Places>,
        seen: u64,
    }

    impl Hall {
        fn new(ordinary_max: usize) -> Self {
            Self { places: Places::new(ordinary_max), seen: 0 }
        }

        fn admit(&mut self, peer: &str) -> Option<Place> {
            let place = self.places.admit(peer.parse().expect("an address"))?;
            self.seen += 1;
            place.activity.rests_since(self.seen);
            Some(place)
        }

        fn take(&mut self, peer: &str) -> Place {
            self.admit(peer).expect("a place")
        }

        fn take_all(&mut self, peer: &str, count: usize) -> Vec<Place> {
            (0..count).map(|_| self.take(peer)).collect()
        }

        fn counts(&self) -> (usize, usize, usize) {
            let taken = self.places.state.lock();
            (taken.ordinary, taken.reserved, taken.leaving)
        }
    }

    fn evicted<'a>(places: impl IntoIterator<Item = &'a Place>) -> Vec<bool> {
        places.into_iter().map(|it| it.activity.is_evicted()).collect()
    }

    #[test]
    fn the_longest_idle_connection_gives_way_and_no_busy_one() {
        let mut hall = Hall::new(3);
        let old = hall.take_all(A, 3);
        assert!(old.iter().all(|it| it.admission == Admission::Free));
        let busy = old[0].busy();
        let new = hall.take(A);
        assert_eq!((new.admission, evicted(&old)), (Admission::Displacing, vec![false, true, false]));
        old[2].activity.writes(true);
        let own = new.busy();
        let reserved = hall.take(A);
        assert_eq!((reserved.admission, evicted(&old)), (Admission::Reserved, vec![false, true, false]));
        assert!(!reserved.may_call() && old[0].may_call());
        // Allowed as soon as another connection is idle.
        drop(busy);
        assert!(reserved.may_call());
        assert_eq!(evicted(&old), [true, true, false]);
        assert_eq!(hall.counts(), (3, 0, 2));
        drop((own, old, new, reserved));
        assert_eq!(hall.counts(), (0, 0, 0));
        assert!(hall.places.state.lock().peers.is_empty());
    }

    #[test]
    fn who_has_most_idle_connections_loses_first() {
        let mut hall = Hall::new(5);
        let few = hall.take_all(B, 2);
        let many = hall.take_all(A, 3);
        let new = hall.take("10.0.0.3");
        assert_eq!((evicted(&few), evicted(&many)), (vec![false; 2], vec![true, false, false]));
        // A peer that has as many connections as the others displaces its own.
        let more = hall.take(A);
        assert_eq!(
            (evicted(&few), evicted(&many), evicted([&new])),
            (vec![false; 2], vec![true, true, false], vec![false])
        );
        drop(more);
    }

    #[test]
    fn a_peer_whose_connections_are_all_busy_takes_no_idle_one_of_others() {
        let mut hall = Hall::new(4);
        let few = hall.take(B);
        let many = hall.take_all(A, 3);
        let busy: Vec<Busy> = many.iter().map(Place::busy).collect();
        assert_eq!(hall.take(A).admission, Admission::Reserved);
        assert!(!few.activity.is_evicted());
        // A proxy that holds all connections is not limited.
        drop(few);
        assert_eq!(hall.take(A).admission, Admission::Free);
        drop(busy);
    }

    #[test]
    fn what_is_reserved_is_bounded_and_its_idle_connections_give_way_too() {
        let mut hall = Hall::new(1);
        let first = hall.take(A);
        let first_busy = first.busy();
        let reserved = hall.take_all(A, RESERVED);
        assert_eq!(hall.counts(), (1, RESERVED, 0));
        let honest = hall.take(B);
        assert_eq!((honest.admission, reserved[0].activity.is_evicted()), (Admission::Reserved, true));
        let busy: Vec<Busy> = reserved.iter().chain([&honest]).map(Place::busy).collect();
        assert!(hall.admit(B).is_none(), "it waits");
        drop(busy);
        drop((reserved, honest, first_busy));
        assert_eq!(hall.take(B).admission, Admission::Displacing);
    }

    #[test]
    fn connections_that_were_told_to_go_are_bounded() {
        let mut hall = Hall::new(1);
        let mut all = hall.take_all(A, 1 + LEAVING_MAX);
        assert_eq!(hall.counts(), (1, 0, LEAVING_MAX));
        all.extend(hall.take_all(A, RESERVED));
        assert!(hall.admit(B).is_none());
        all.remove(0);
        assert_eq!(hall.take(B).admission, Admission::Displacing);
    }

    #[test]
    fn a_peer_is_an_address_or_a_network_of_ipv6() {
        let of = |text: &str| peer_of(text.parse().expect("an address")).to_string();
        assert_eq!(of("::ffff:1.2.3.4"), "1.2.3.4");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2::"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
    }
}
