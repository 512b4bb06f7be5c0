//! H.264 in an mp4 file (ISO/IEC 14496-12 and -15): one track, the index before the data.
//!
//! Invariants: all frames last equally long, and exactly: a second is `fps * TICKS` units of time. Dates
//! are zero, so the same stream gives the same file.

use super::h264::{self, Sample, Stream};
use super::{Video, VideoError};
use std::path::Path;

/// Units of time per frame.
const TICKS: u32 = 1000;
/// The only track.
const TRACK: u32 = 1;
/// A transformation that changes nothing: fixed point 16.16, the last column 2.30.
const IDENTITY: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// The bytes of the file.
pub(super) fn encode(path: &Path, video: &Video) -> Result<Vec<u8>, VideoError> {
    let stream = h264::encode(video)?;
    let data: Vec<u8> = stream
        .samples
        .iter()
        .flat_map(|sample| &sample.data)
        .copied()
        .collect();
    let kind = make_box(
        b"ftyp",
        &[b"isom".as_slice(), &[0, 0, 2, 0], b"isomiso2avc1mp41"],
    );
    // The index holds the position of the data, which lies behind the index: its length comes first.
    let index_length = index(video, &stream, 0).len();
    let start = kind.len() + index_length + 8;
    let end = (start + data.len()) as u64;
    if end > u64::from(u32::MAX) {
        return Err(VideoError::TooLong {
            path: path.to_owned(),
            found: end,
        });
    }
    let index = index(video, &stream, start as u32);
    Ok([kind, index, make_box(b"mdat", &[&data])].concat())
}

/// A box: its length, its type, its content.
fn make_box(kind: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
    let length = 8 + content.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend(kind);
    for part in content {
        bytes.extend(*part);
    }
    bytes
}

/// A box of version 0 whose content is 32-bit numbers after the flags.
fn table(kind: &[u8; 4], flags: u32, values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    make_box(kind, &[&flags.to_be_bytes(), &words(values)])
}

fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_be_bytes).collect()
}

/// Everything but the data, which begins at `start` in the file.
fn index(video: &Video, stream: &Stream, start: u32) -> Vec<u8> {
    let duration = video.frames() as u32 * TICKS;
    let scale = video.fps() * TICKS;
    let header = table(
        b"mvhd",
        0,
        [0, 0, scale, duration, 0x1_0000, 0x100_0000, 0, 0]
            .into_iter()
            .chain(IDENTITY)
            .chain([0; 6])
            .chain([TRACK + 1]),
    );
    let (width, height) = ((video.width() as u32) << 16, (video.height() as u32) << 16);
    // Flags: enabled, in the movie, in the preview.
    let track_header = table(
        b"tkhd",
        7,
        [0, 0, TRACK, 0, duration, 0, 0, 0, 0]
            .into_iter()
            .chain(IDENTITY)
            .chain([width, height]),
    );
    // Language `und`: three letters of five bits.
    let media_header = table(b"mdhd", 0, [0, 0, scale, duration, 0x55c4_0000]);
    let handler = make_box(b"hdlr", &[&[0; 8], b"vide", &[0; 12], b"Terrace video\0"]);
    let content = media_information(video, stream, start);
    let media = make_box(b"mdia", &[&media_header, &handler, &content]);
    make_box(
        b"moov",
        &[&header, &make_box(b"trak", &[&track_header, &media])],
    )
}

fn media_information(video: &Video, stream: &Stream, start: u32) -> Vec<u8> {
    let header = table(b"vmhd", 1, [0, 0]);
    // Flag: the data is in this file.
    let place = make_box(b"dref", &[&words([0, 1]), &table(b"url ", 1, [])]);
    let samples = sample_table(video, stream, start);
    make_box(b"minf", &[&header, &make_box(b"dinf", &[&place]), &samples])
}

fn sample_table(video: &Video, stream: &Stream, start: u32) -> Vec<u8> {
    let count = stream.samples.len() as u32;
    let keys = stream
        .samples
        .iter()
        .enumerate()
        .filter(|(_, sample)| sample.is_key);
    let keys: Vec<u32> = keys.map(|(index, _)| index as u32 + 1).collect();
    let length = |sample: &Sample| sample.data.len() as u32;
    let description = make_box(b"stsd", &[&words([0, 1]), &sample_entry(video, stream)]);
    let durations = table(b"stts", 0, [1, count, TICKS]);
    let keys = table(b"stss", 0, [keys.len() as u32].into_iter().chain(keys));
    // One chunk holds everything.
    let chunks = table(b"stsc", 0, [1, 1, count, 1]);
    let sizes = table(
        b"stsz",
        0,
        [0, count]
            .into_iter()
            .chain(stream.samples.iter().map(length)),
    );
    let places = table(b"stco", 0, [1, start]);
    make_box(
        b"stbl",
        &[&description, &durations, &keys, &chunks, &sizes, &places],
    )
}

/// Size, 72 dots per inch, 24 bits of colour, the decoder's configuration and the colours.
fn sample_entry(video: &Video, stream: &Stream) -> Vec<u8> {
    let mut entry = vec![0; 6];
    entry.extend([0, 1]);
    entry.extend([0; 16]);
    entry.extend((video.width() as u16).to_be_bytes());
    entry.extend((video.height() as u16).to_be_bytes());
    entry.extend(words([0x48_0000, 0x48_0000, 0]));
    entry.extend([0, 1]);
    entry.extend([0; 32]);
    entry.extend([0, 24, 0xff, 0xff]);
    entry.extend(decoder_configuration(stream));
    entry.extend(make_box(b"colr", &[b"nclx", &COLOURS]));
    make_box(b"avc1", &[&entry])
}

/// Primaries of BT.709, transfer of sRGB, matrix of BT.601, limited range: what the stream says as well.
const COLOURS: [u8; 7] = [0, 1, 0, 13, 0, 6, 0];

/// ISO/IEC 14496-15, 5.3.3.1: profile and level from the sequence parameter set, lengths of 4 bytes.
fn decoder_configuration(stream: &Stream) -> Vec<u8> {
    let set = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let sequence = set(&stream.sequence);
    let profile_and_level = &stream.sequence[1..4];
    make_box(
        b"avcC",
        &[
            &[1],
            profile_and_level,
            &[0xff, 0xe1],
            &sequence,
            &[1],
            &set(&stream.picture),
        ],
    )
}
