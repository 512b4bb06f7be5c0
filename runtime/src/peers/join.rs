//! How every process gets a connection to every other one.
//!
//! Each waits at a port of its own, tells it to all through rank 0, calls the ranks below its own and is called by
//! those above. A caller says a number that only these processes know, so strangers are hung up on.

use crate::World;
use crate::world::{GREETING_TIME, Met, WorldFault, dial, listen};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use terrace_plan::Rank;

/// Time between two looks for callers.
const PAUSE: Duration = Duration::from_millis(5);

/// A connection to each rank but this one.
pub(super) fn streams(
    world: &World,
    program: &str,
    timeout: Duration,
) -> Result<Vec<Option<TcpStream>>, WorldFault> {
    let rank = world.rank;
    let mut streams: Vec<_> = (0..world.ranks).map(|_| None).collect();
    if world.ranks == 1 {
        return Ok(streams);
    }
    let unable = |source| WorldFault::Wait { rank, source };
    let listener = listen(0).map_err(unable)?;
    listener.set_nonblocking(true).map_err(unable)?;
    let port = listener.local_addr().map_err(unable)?.port();
    let met = world.meet(program, port, timeout)?;
    for (peer, stream) in streams.iter_mut().enumerate().take(rank.0) {
        *stream = Some(call(&met, rank, Rank(peer), timeout)?);
    }
    answer(&listener, &met, rank, &mut streams, timeout)?;
    Ok(streams)
}

fn call(met: &Met, rank: Rank, peer: Rank, timeout: Duration) -> Result<TcpStream, WorldFault> {
    let address = met.addresses[peer.0];
    let connected = dial(address, timeout).and_then(|mut stream| {
        let numbers = [met.token, rank.0 as u64];
        stream.write_all(&numbers.map(u64::to_le_bytes).concat())?;
        Ok(stream)
    });
    connected.map_err(|error| WorldFault::NoLink {
        rank: peer,
        address: address.to_string(),
        reason: error.to_string(),
    })
}

/// Waits for the ranks above.
fn answer(
    listener: &TcpListener,
    met: &Met,
    rank: Rank,
    streams: &mut [Option<TcpStream>],
    timeout: Duration,
) -> Result<(), WorldFault> {
    let since = Instant::now();
    loop {
        let above = streams.iter().enumerate().skip(rank.0 + 1);
        let missing: Vec<usize> = above
            .filter(|(_, stream)| stream.is_none())
            .map(|(peer, _)| peer)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if since.elapsed() > timeout {
            let after = timeout;
            return Err(WorldFault::Absent { missing, after });
        }
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(PAUSE);
            continue;
        };
        if let Some(peer) = caller(&mut stream, met.token).filter(|peer| missing.contains(peer)) {
            streams[peer] = Some(stream);
        }
    }
}

/// The rank of a caller that knows the number.
fn caller(stream: &mut TcpStream, token: u64) -> Option<usize> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(GREETING_TIME)).ok()?;
    let mut number = || {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    let known = number()? == token;
    let rank = number()?;
    usize::try_from(rank).ok().filter(|_| known)
}
