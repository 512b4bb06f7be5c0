//! How the ranks meet: rank 0 hears from each at which port it waits, and tells all of them.
//!
//! A rank calls and says its rank, the number of ranks, what it runs and its port. Rank 0 answers when all have
//! come, so either all learn the addresses or all get an error. Every wait ends at one point in time. Callers that
//! do not speak this language are hung up on; they hold rank 0 up for a moment each at most.
//!
//! A rank's host is the one that rank 0 saw it call from. One that called from the loopback is on the host of rank 0,
//! which everybody else knows by another name.

use super::{World, WorldFault};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{Error, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use terrace_plan::Rank;

/// What a call begins with.
const GREETING: [u8; 8] = *b"terrace2";
/// Time between two looks for callers, or two calls.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a caller may take for its greeting.
pub(crate) const GREETING_TIME: Duration = Duration::from_secs(2);
/// Bytes of a text at most: an answer has an address per rank.
const LONGEST: usize = 1 << 20;

/// What comes before the answer.
const ADDRESSES: u8 = 0;
const REFUSAL: u8 = 1;

/// What the ranks know when they have met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    /// A number that only these ranks know.
    pub(crate) token: u64,
    /// Where each rank waits.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl World {
    /// Tells every rank where all wait, each at a `port` of its own. All ranks call it with the same
    /// `program`, which says what they run.
    ///
    /// # Errors
    /// What keeps the ranks from coming together within `timeout`, on each of them.
    pub(crate) fn meet(
        &self,
        program: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<Met, WorldFault> {
        let meeting = Meeting {
            world: self,
            program,
            port,
            end: Instant::now() + timeout,
            timeout,
        };
        match (self.ranks, self.rank) {
            (1, _) => Ok(meeting.met(&BTreeMap::new())),
            (_, Rank(0)) => meeting.host(),
            (_, rank) => meeting.call(rank),
        }
    }
}

struct Meeting<'a> {
    world: &'a World,
    program: &'a str,
    port: u16,
    end: Instant,
    timeout: Duration,
}

/// A rank that has called.
struct Guest {
    stream: TcpStream,
    address: SocketAddr,
}

/// What a rank says of itself.
struct Greeting {
    rank: usize,
    ranks: usize,
    port: usize,
    program: String,
}

impl Meeting<'_> {
    fn left(&self) -> Option<Duration> {
        self.end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    /// Rank 0.
    fn host(&self) -> Result<Met, WorldFault> {
        let port = self.world.port;
        let listener = listen(port).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = listener.map_err(|source| WorldFault::Listen { port, source })?;
        let mut guests = BTreeMap::new();
        let gathered = self.gather(&listener, &mut guests);
        let met = gathered.map(|()| self.met(&guests));
        let (kind, text) = match &met {
            Ok(met) => (ADDRESSES, met.text()),
            Err(fault) => (REFUSAL, fault.to_string()),
        };
        for guest in guests.values_mut() {
            // A guest that is gone says so itself, or is missed later.
            let _ = answer(&mut guest.stream, kind, &text);
        }
        met
    }

    fn met(&self, guests: &BTreeMap<usize, Guest>) -> Met {
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let others = guests.values().map(|guest| guest.address);
        Met {
            token: RandomState::new().hash_one(self.port),
            addresses: std::iter::once(own).chain(others).collect(),
        }
    }

    /// Waits for all others.
    fn gather(
        &self,
        listener: &TcpListener,
        guests: &mut BTreeMap<usize, Guest>,
    ) -> Result<(), WorldFault> {
        while guests.len() + 1 < self.world.ranks {
            if self.left().is_none() {
                let missing = (1..self.world.ranks).filter(|rank| !guests.contains_key(rank));
                return Err(WorldFault::Absent {
                    missing: missing.collect(),
                    after: self.timeout,
                });
            }
            let Ok((mut stream, from)) = listener.accept() else {
                std::thread::sleep(PAUSE);
                continue;
            };
            let Some(greeting) = greeting(&mut stream) else {
                continue;
            };
            let rank = greeting.rank;
            let port = self.same(greeting).inspect_err(|fault| {
                // The one that differs hears it as well.
                let _ = answer(&mut stream, REFUSAL, &fault.to_string());
            })?;
            let address = SocketAddr::from((from.ip().to_canonical(), port));
            if guests.insert(rank, Guest { stream, address }).is_some() {
                return Err(WorldFault::Twice { rank });
            }
        }
        Ok(())
    }

    /// The port of a rank that runs the same.
    fn same(&self, greeting: Greeting) -> Result<u16, WorldFault> {
        let Greeting {
            rank,
            ranks,
            port,
            program,
        } = greeting;
        let same = ranks == self.world.ranks && program == self.program;
        match u16::try_from(port) {
            Ok(port) if same && (1..ranks).contains(&rank) => Ok(port),
            _ => Err(WorldFault::Differs {
                rank,
                expected: format!("{} on {} ranks", self.program, self.world.ranks),
                found: format!("{program} on {ranks} ranks"),
            }),
        }
    }

    /// Any other rank.
    fn call(&self, rank: Rank) -> Result<Met, WorldFault> {
        let (host, port) = (self.world.host.as_str(), self.world.port);
        let mut reason = "it does not answer".to_owned();
        while let Some(left) = self.left() {
            match self.ask((host, port), rank, left) {
                Ok((ADDRESSES, met, text)) => {
                    let met = met.filter(|met| met.addresses.len() == self.world.ranks);
                    return met.ok_or(WorldFault::GivenUp { reason: text });
                }
                Ok((_, _, reason)) => return Err(WorldFault::GivenUp { reason }),
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

    /// Kind and text of rank 0's answer, and what it says when it holds addresses.
    fn ask(
        &self,
        address: (&str, u16),
        rank: Rank,
        left: Duration,
    ) -> std::io::Result<(u8, Option<Met>, String)> {
        let mut stream = dial(address, left)?;
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        let mut greeting = GREETING.to_vec();
        let numbers = [
            rank.0,
            self.world.ranks,
            self.port.into(),
            self.program.len(),
        ];
        for number in numbers {
            greeting.extend((number as u64).to_le_bytes());
        }
        greeting.extend(self.program.as_bytes());
        stream.write_all(&greeting)?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        let text = text(&mut stream)?;
        let met = Met::read(&text, stream.peer_addr()?.ip());
        Ok((kind[0], met, text))
    }
}

impl Met {
    /// One line per number.
    fn text(&self) -> String {
        let mut text = self.token.to_string();
        for address in &self.addresses {
            text.push('\n');
            text.push_str(&address.to_string());
        }
        text
    }

    /// What [`Met::text`] wrote on the host `first` of rank 0.
    fn read(text: &str, first: IpAddr) -> Option<Self> {
        let mut lines = text.lines();
        let token = lines.next()?.parse().ok()?;
        let addresses = lines.map(|line| line.parse().ok());
        let mut addresses: Vec<SocketAddr> = addresses.collect::<Option<_>>()?;
        let here = addresses
            .iter_mut()
            .filter(|address| address.ip().is_loopback());
        here.for_each(|address| address.set_ip(first));
        Some(Self { token, addresses })
    }
}

/// Waits for callers on all addresses of this host.
pub(crate) fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// A connection to the first address of a host that takes one.
pub(crate) fn dial(address: impl ToSocketAddrs, left: Duration) -> std::io::Result<TcpStream> {
    let mut refused = Error::other("the host has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// What a caller that speaks this language says.
fn greeting(stream: &mut TcpStream) -> Option<Greeting> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(GREETING_TIME)).ok()?;
    stream.set_write_timeout(Some(GREETING_TIME)).ok()?;
    let mut word = [0; 8];
    stream.read_exact(&mut word).ok()?;
    if word != GREETING {
        return None;
    }
    Some(Greeting {
        rank: number(stream).ok()?,
        ranks: number(stream).ok()?,
        port: number(stream).ok()?,
        program: text(stream).ok()?,
    })
}

fn answer(stream: &mut TcpStream, kind: u8, text: &str) -> std::io::Result<()> {
    let mut message = vec![kind];
    message.extend((text.len() as u64).to_le_bytes());
    message.extend(text.as_bytes());
    stream.write_all(&message)
}

fn number(stream: &mut TcpStream) -> std::io::Result<usize> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    usize::try_from(u64::from_le_bytes(bytes)).map_err(Error::other)
}

/// A length and as many bytes of text.
fn text(stream: &mut TcpStream) -> std::io::Result<String> {
    let len = number(stream)?;
    if len > LONGEST {
        return Err(Error::other("a text of more bytes than there can be"));
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes)?;
    String::from_utf8(bytes).map_err(Error::other)
}
