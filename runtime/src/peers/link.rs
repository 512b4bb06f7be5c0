//! A connection to one peer: a thread that reads it and one that writes it.
//!
//! Everything that a peer sends is read at once and kept until somebody asks for it, so two ranks that send each
//! other more than the network holds never wait for each other. What is kept is bounded by the plan: a rank sends
//! for an exchange only that it has begun, and ends its wait only when its peers have put what it sent in place.
//!
//! A frame is a kind, a number, a length, and as many bytes. Refused: frames of other kinds.

use super::bytes::Bytes;
use super::hub::{Hub, Tag};
use std::io::{BufReader, BufWriter, Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use terrace_plan::Rank;

/// Bytes of a buffer in front of the network.
const BUFFER: usize = 1 << 16;
/// Bytes that are read at a time; the others hear of progress in between.
const CHUNK: usize = 1 << 20;
/// Bytes of a text at most.
const LONGEST: usize = 1 << 20;
/// Kind, number, length.
const HEAD: usize = 17;

const MESSAGE: u8 = 0;
const TAKEN: u8 = 1;
const POSITION: u8 = 2;
const FAILURE: u8 = 3;

/// What is sent.
pub(super) enum Frame {
    /// Bytes that belong to something.
    Message(Tag, Bytes),
    /// A message of a collective is where it belongs.
    Taken,
    /// Where this rank is.
    Position(u64),
    /// This rank has failed.
    Failure(String),
    /// Nothing more.
    Close,
}

/// The connection to one peer.
pub(super) struct Link {
    pub(super) outbox: Sender<Frame>,
    stream: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl Link {
    /// Begins to read and write.
    pub(super) fn open(stream: TcpStream, peer: Rank, hub: &Arc<Hub>) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        let (outbox, frames) = channel();
        let (input, output) = (stream.try_clone()?, stream.try_clone()?);
        let mut link = Self {
            outbox: outbox.clone(),
            stream,
            threads: Vec::new(),
        };
        let hub_of_writer = Arc::clone(hub);
        let name = |verb: &str| std::thread::Builder::new().name(format!("{verb} {peer}"));
        let writer = name("to").spawn(move || write(&output, &frames, &hub_of_writer))?;
        link.threads.push(writer);
        let hub = Arc::clone(hub);
        let reader = name("from").spawn(move || {
            let reason = read(&input, peer, &hub);
            hub.gone(peer, reason);
            // There is nobody left to write to.
            let _ = outbox.send(Frame::Close);
        })?;
        link.threads.push(reader);
        Ok(link)
    }

    /// Sends a frame; a peer that is gone does not get it, and is missed by those who wait for it.
    pub(super) fn send(&self, frame: Frame) {
        let _ = self.outbox.send(frame);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.send(Frame::Close);
        // Wakes threads that are stuck in the network; one that has ended is not disturbed.
        let _ = self.stream.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            // It ends without a result.
            let _ = thread.join();
        }
    }
}

/// Writes what is put into the outbox, until it is closed or the peer is gone.
fn write(stream: &TcpStream, frames: &Receiver<Frame>, hub: &Hub) {
    let mut out = BufWriter::with_capacity(BUFFER, stream);
    while let Ok(first) = frames.recv() {
        let mut next = Some(first);
        while let Some(frame) = next {
            match put(&mut out, frame, hub) {
                Ok(true) => next = frames.try_recv().ok(),
                Ok(false) | Err(_) => {
                    let _ = out.flush();
                    let _ = stream.shutdown(Shutdown::Write);
                    return;
                }
            }
        }
        // A failure shows at the next frame.
        let _ = out.flush();
    }
}

/// Writes a frame. Whether there may be another one.
fn put(out: &mut impl Write, frame: Frame, hub: &Hub) -> Result<bool> {
    match frame {
        Frame::Message(tag, bytes) => {
            out.write_all(&head(MESSAGE, tag.0, bytes.len()))?;
            out.write_all(bytes.bytes())?;
            hub.spares.give(bytes);
        }
        Frame::Taken => out.write_all(&head(TAKEN, 0, 0))?,
        Frame::Position(word) => out.write_all(&head(POSITION, word, 0))?,
        Frame::Failure(text) => {
            let text = text.as_bytes();
            let text = &text[..text.len().min(LONGEST)];
            out.write_all(&head(FAILURE, 0, text.len()))?;
            out.write_all(text)?;
        }
        Frame::Close => return Ok(false),
    }
    Ok(true)
}

fn head(kind: u8, number: u64, len: usize) -> [u8; HEAD] {
    let mut head = [kind; HEAD];
    head[1..9].copy_from_slice(&number.to_le_bytes());
    head[9..].copy_from_slice(&(len as u64).to_le_bytes());
    head
}

/// Reads until nothing more comes, and says why.
fn read(stream: &TcpStream, peer: Rank, hub: &Hub) -> String {
    let mut from = BufReader::with_capacity(BUFFER, stream);
    loop {
        if let Err(error) = take(&mut from, peer, hub) {
            return match error.kind() {
                ErrorKind::UnexpectedEof => "its connection has ended".to_owned(),
                _ => error.to_string(),
            };
        }
    }
}

/// Reads a frame.
fn take(from: &mut impl Read, peer: Rank, hub: &Hub) -> Result<()> {
    let mut head = [0; HEAD];
    from.read_exact(&mut head)?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let number = word(1);
    let len = usize::try_from(word(9)).map_err(Error::other)?;
    match head[0] {
        MESSAGE => {
            let bytes = message(from, len, peer, hub)?;
            hub.heard(peer, |door| door.inbox.push_back((Tag(number), bytes)));
        }
        TAKEN => hub.heard(peer, |door| door.taken += 1),
        POSITION => hub.at(peer, number),
        FAILURE if len <= LONGEST => {
            let mut text = vec![0; len];
            from.read_exact(&mut text)?;
            hub.failed(String::from_utf8_lossy(&text).into_owned());
        }
        kind => return Err(Error::other(format!("it sent a frame of kind {kind}"))),
    }
    Ok(())
}

/// Bytes of a length that is only believed as they come.
fn message(from: &mut impl Read, len: usize, peer: Rank, hub: &Hub) -> Result<Bytes> {
    let mut bytes = hub.spares.take(0);
    while bytes.len() < len {
        let begin = bytes.len();
        bytes.resize(begin + CHUNK.min(len - begin));
        from.read_exact(&mut bytes.bytes_mut()[begin..])?;
        hub.heard(peer, |_| {});
    }
    Ok(bytes)
}
