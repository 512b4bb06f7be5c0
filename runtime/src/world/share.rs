//! Bytes of rank 0 for all ranks, over TCP.
//!
//! A rank calls and says its rank, the number of ranks and what it runs. Rank 0 answers when all have come, so
//! either all get the bytes or all get an error. Every wait ends at one point in time. Callers that do not
//! speak this language are hung up on; they hold rank 0 up for a moment each at most.

use super::{World, WorldFault};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use terrace_plan::Rank;

/// What a call begins with.
const GREETING: [u8; 8] = *b"terrace1";
/// Time between two looks for callers, or two calls.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a caller may take for its greeting.
const GREETING_TIME: Duration = Duration::from_secs(2);
/// Bytes of an answer at most.
const LONGEST: usize = 1 << 16;

/// What comes before the answer.
const BYTES: u8 = 0;
const REFUSAL: u8 = 1;

impl World {
    /// The bytes that `make` makes on rank 0, on every rank. All ranks call it with the same `program`,
    /// which says what they run.
    ///
    /// # Errors
    /// What keeps the ranks from coming together within `timeout`, on each of them.
    pub fn share(
        &self,
        program: &str,
        timeout: Duration,
        make: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Vec<u8>, WorldFault> {
        let meeting = Meeting {
            world: self,
            program,
            end: Instant::now() + timeout,
            timeout,
        };
        match (self.ranks, self.rank) {
            (1, _) => make().map_err(|reason| WorldFault::Nothing { reason }),
            (_, Rank(0)) => meeting.host(make),
            (_, rank) => meeting.call(rank),
        }
    }
}

struct Meeting<'a> {
    world: &'a World,
    program: &'a str,
    end: Instant,
    timeout: Duration,
}

impl Meeting<'_> {
    fn left(&self) -> Option<Duration> {
        self.end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    /// Rank 0.
    fn host(&self, make: impl FnOnce() -> Result<Vec<u8>, String>) -> Result<Vec<u8>, WorldFault> {
        let port = self.world.port;
        let listener = TcpListener::bind(("0.0.0.0", port)).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = listener.map_err(|source| WorldFault::Listen { port, source })?;
        let mut guests = BTreeMap::new();
        let met = self.gather(&listener, &mut guests);
        let made = met.and_then(|()| make().map_err(|reason| WorldFault::Nothing { reason }));
        let (kind, text) = match &made {
            Ok(bytes) => (BYTES, bytes.clone()),
            Err(fault) => (REFUSAL, fault.to_string().into_bytes()),
        };
        for guest in guests.values_mut() {
            // A guest that is gone says so itself, or is missed later.
            let _ = answer(guest, kind, &text);
        }
        made
    }

    /// Waits for all others.
    fn gather(
        &self,
        listener: &TcpListener,
        guests: &mut BTreeMap<usize, TcpStream>,
    ) -> Result<(), WorldFault> {
        while guests.len() + 1 < self.world.ranks {
            if self.left().is_none() {
                let missing = (1..self.world.ranks).filter(|rank| !guests.contains_key(rank));
                return Err(WorldFault::Absent {
                    missing: missing.collect(),
                    after: self.timeout,
                });
            }
            let Ok((mut stream, _)) = listener.accept() else {
                std::thread::sleep(PAUSE);
                continue;
            };
            let Some((rank, ranks, program)) = greeting(&mut stream) else {
                continue;
            };
            self.same(rank, ranks, &program).inspect_err(|fault| {
                // The one that differs hears it as well.
                let _ = answer(&mut stream, REFUSAL, fault.to_string().as_bytes());
            })?;
            if guests.insert(rank, stream).is_some() {
                return Err(WorldFault::Twice { rank });
            }
        }
        Ok(())
    }

    fn same(&self, rank: usize, ranks: usize, program: &str) -> Result<(), WorldFault> {
        if ranks == self.world.ranks && program == self.program && (1..ranks).contains(&rank) {
            return Ok(());
        }
        Err(WorldFault::Differs {
            rank,
            expected: format!("{} on {} ranks", self.program, self.world.ranks),
            found: format!("{program} on {ranks} ranks"),
        })
    }

    /// Any other rank.
    fn call(&self, rank: Rank) -> Result<Vec<u8>, WorldFault> {
        let (host, port) = (self.world.host.as_str(), self.world.port);
        let mut reason = "it does not answer".to_owned();
        while let Some(left) = self.left() {
            match self.dial((host, port), rank, left) {
                Ok((BYTES, bytes)) => return Ok(bytes),
                Ok((_, text)) => {
                    return Err(WorldFault::GivenUp {
                        reason: String::from_utf8_lossy(&text).into_owned(),
                    });
                }
                // Rank 0 may not be there yet.
                Err(error) => reason = error.to_string(),
            }
            std::thread::sleep(PAUSE.min(left));
        }
        Err(WorldFault::Unreachable {
            rank,
            address: format!("{host}:{port}"),
            after: self.timeout,
            reason,
        })
    }

    fn dial(
        &self,
        address: (&str, u16),
        rank: Rank,
        left: Duration,
    ) -> std::io::Result<(u8, Vec<u8>)> {
        let mut stream = connect(address, left)?;
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        let mut greeting = GREETING.to_vec();
        for number in [rank.0, self.world.ranks, self.program.len()] {
            greeting.extend((number as u64).to_le_bytes());
        }
        greeting.extend(self.program.as_bytes());
        stream.write_all(&greeting)?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        Ok((kind[0], text(&mut stream)?))
    }
}

/// A connection to the first address of a host that takes one.
fn connect(address: (&str, u16), left: Duration) -> std::io::Result<TcpStream> {
    let mut refused = std::io::Error::other("the host has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Rank, number of ranks and program of a caller that speaks this language.
fn greeting(stream: &mut TcpStream) -> Option<(usize, usize, String)> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(GREETING_TIME)).ok()?;
    stream.set_write_timeout(Some(GREETING_TIME)).ok()?;
    let mut word = [0; 8];
    stream.read_exact(&mut word).ok()?;
    if word != GREETING {
        return None;
    }
    let (rank, ranks) = (number(stream).ok()?, number(stream).ok()?);
    let program = text(stream).ok()?;
    Some((rank, ranks, String::from_utf8(program).ok()?))
}

fn answer(stream: &mut TcpStream, kind: u8, bytes: &[u8]) -> std::io::Result<()> {
    let mut message = vec![kind];
    message.extend((bytes.len() as u64).to_le_bytes());
    message.extend(bytes);
    stream.write_all(&message)
}

fn number(stream: &mut TcpStream) -> std::io::Result<usize> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    usize::try_from(u64::from_le_bytes(bytes)).map_err(std::io::Error::other)
}

/// A length and as many bytes.
fn text(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let len = number(stream)?;
    if len > LONGEST {
        return Err(std::io::Error::other(
            "a text of more bytes than there can be",
        ));
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
