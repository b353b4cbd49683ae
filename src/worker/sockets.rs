//! Detects connections from this machine that a function has opened.
//!
//! A function with network access reaches every listener on the machine's loopback addresses, the daemon included, and
//! looks like any local program. The kernel shows the owner of a socket: its user, where each worker has a user of its
//! own, else the processes that have it open. Both are read from `/proc`, which takes milliseconds on a busy machine.

use super::{ancestors::lineage, spawn::Spawner};
use nix::unistd::{Pid, geteuid};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A socket as listed in `/proc/net/tcp` and `/proc/net/tcp6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    user: u32,
    inode: u64,
}

impl Spawner {
    /// Whether a worker, or a process it started, has opened the connection from `peer` to this port of this machine.
    /// Also true if the system does not show the owner, because that may be a worker. Blocks.
    #[must_use]
    pub fn has_opened(&self, peer: SocketAddr, port: u16) -> bool {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let rows: Vec<Row> = rows().filter(|row| row.local == peer && row.remote.port() == port).collect();
        rows.is_empty() || rows.iter().any(|row| self.may_own(row))
    }

    fn may_own(&self, row: &Row) -> bool {
        if let Some(is_workers) = self.sandbox.is_worker_user(row.user) {
            return is_workers;
        }
        // Workers without users of their own run as the daemon's user, as seen from here.
        if row.user != geteuid().as_raw() {
            return false;
        }
        let owners = owners(row.inode);
        owners.is_empty() || owners.into_iter().any(|pid| self.descends_from_worker(pid))
    }

    /// Whether a process or one of its ancestors is a worker. The ancestors reveal a process that has left the group
    /// and the session of its worker, unless it was given to another parent.
    fn descends_from_worker(&self, process: i32) -> bool {
        let mut below = lineage(Pid::from_raw(process)).take_while(|pid| pid.as_raw() > 1 && *pid != Pid::this());
        below.any(|pid| self.is_worker(pid))
    }
}

/// TCP sockets in this process's network namespace that a process has open.
fn rows() -> impl Iterator<Item = Row> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let rows: Vec<Row> = tables.iter().flat_map(|table| table.lines().filter_map(row)).collect();
    rows.into_iter().filter(|row| row.inode != 0)
}

/// Parses a line of the table; `None` for lines that are not sockets, such as the head.
fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, remote, _, _, _, _, user, _, inode, ..] = fields[..] else { return None };
    Some(Row { local: address(local)?, remote: address(remote)?, user: user.parse().ok()?, inode: inode.parse().ok()? })
}

/// Parses an address such as `0100007F:1F90`: its words as the machine has them in memory, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(words.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match words.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, bytes) in bytes.chunks_exact_mut(4).enumerate() {
                bytes.copy_from_slice(&word(index)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Processes that have a socket open, as far as this process may see them.
fn owners(inode: u64) -> Vec<i32> {
    let wanted = format!("socket:[{inode}]");
    let has_it = |pid: &i32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has_it).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let v4 = format!("{}:1F90", word([127, 0, 0, 1]));
        assert_eq!(address(&v4), Some("127.0.0.1:8080".parse().expect("an address")));
        let v6 = Ipv6Addr::LOCALHOST.octets();
        let v6: String = v6.chunks_exact(4).map(|it| word(it.try_into().expect("four"))).collect();
        assert_eq!(address(&format!("{v6}:0050")), Some("[::1]:80".parse().expect("an address")));
        let mapped = Ipv4Addr::new(10, 0, 0, 7).to_ipv6_mapped().octets();
        let mapped: String = mapped.chunks_exact(4).map(|it| word(it.try_into().expect("four"))).collect();
        assert_eq!(address(&format!("{mapped}:0050")), Some("10.0.0.7:80".parse().expect("an address")));
        for wrong in ["", "0100007F", "0100007F:", "0100007:1F90", "local_address"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_socket_is_found_with_its_owner() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let server = listener.local_addr().expect("it is bound");
            let client = TcpStream::connect(server).expect("it listens");
            let peer = client.local_addr().expect("it is connected");
            let found: Vec<Row> = rows().filter(|row| row.local == peer && row.remote == server).collect();
            let [row] = found[..] else { panic!("{found:?}") };
            assert_eq!(row.user, geteuid().as_raw());
            assert!(owners(row.inode).contains(&(std::process::id() as i32)));
        }
    }
}
