//! Reads an mp4 file of one H.264 track back: its times, its index and its decoded frames.

use openh264::decoder::Decoder;
use openh264::formats::YUVSource;
use terrace::video::Video;

/// An mp4 file, taken apart.
pub struct Mp4 {
    /// Boxes at the top level, in order.
    pub order: Vec<String>,
    pub height: usize,
    pub width: usize,
    /// Units of time per second, of the movie and of the track.
    pub time_scales: [u32; 2],
    /// Length in units of time: of the movie, of the track in the movie, and of the media.
    pub durations: [u32; 3],
    /// Length of each frame in units of time.
    pub frame_durations: Vec<u32>,
    /// Frames at which decoding can begin, counted from 1.
    pub keys: Vec<u32>,
    /// Primaries, transfer and matrix, and whether the range is full.
    pub colours: ([u16; 3], bool),
    /// The H.264 stream with start codes, one per frame.
    stream: Vec<Vec<u8>>,
}

impl Mp4 {
    /// Takes the file apart; panics where it is not what a reader expects.
    pub fn parse(file: &[u8]) -> Self {
        let top = boxes(file);
        let movie = inside(&top, "moov");
        let header = find(&movie, "mvhd");
        let track = inside(&movie, "trak");
        let track_header = find(&track, "tkhd");
        let media = inside(&track, "mdia");
        let media_header = find(&media, "mdhd");
        assert_eq!(&find(&media, "hdlr")[8..12], b"vide");
        let table = inside(&inside(&media, "minf"), "stbl");
        let description = find(&table, "stsd");
        let entry = &boxes(&description[8..])[0];
        assert_eq!(entry.0, "avc1");
        let (size, inner) = entry.1.split_at(78);
        let inner = boxes(inner);
        let colour = find(&inner, "colr");
        assert_eq!(&colour[..4], b"nclx");
        Self {
            order: top.iter().map(|(kind, _)| kind.clone()).collect(),
            height: usize::from(u16::from_be_bytes([size[26], size[27]])),
            width: usize::from(u16::from_be_bytes([size[24], size[25]])),
            time_scales: [word(header, 3), word(media_header, 3)],
            durations: [
                word(header, 4),
                word(track_header, 5),
                word(media_header, 4),
            ],
            frame_durations: runs(find(&table, "stts")),
            keys: words(find(&table, "stss")).skip(2).collect(),
            colours: (
                [4, 6, 8].map(|at: usize| u16::from_be_bytes([colour[at], colour[at + 1]])),
                colour[10] & 0x80 != 0,
            ),
            stream: stream(file, &table, find(&inner, "avcC")),
        }
    }

    /// The decoded frames, as the colours of the stream say; `fps` must be the file's own.
    pub fn decode(&self, fps: u32) -> Video {
        for (&duration, scale) in self.frame_durations.iter().zip(self.time_scales) {
            assert_eq!(duration * fps, scale, "frames per second");
        }
        let mut decoder = Decoder::new().unwrap();
        let mut data = Vec::new();
        for picture in &self.stream {
            let frame = decoder
                .decode(picture)
                .unwrap()
                .expect("one frame per sample");
            assert_eq!(frame.dimensions(), (self.width, self.height));
            let mut rgb = vec![0; frame.rgb8_len()];
            frame.write_rgb8(&mut rgb);
            data.extend(rgb);
        }
        Video::from_rgb(self.stream.len(), self.height, self.width, fps, data).unwrap()
    }
}

/// The samples with start codes, the parameter sets before the first.
fn stream(file: &[u8], table: &[(String, &[u8])], configuration: &[u8]) -> Vec<Vec<u8>> {
    let sizes: Vec<u32> = words(find(table, "stsz")).skip(3).collect();
    assert_eq!(
        words(find(table, "stsc")).collect::<Vec<_>>()[2..],
        [1, sizes.len() as u32, 1]
    );
    let mut at = word(find(table, "stco"), 2) as usize;
    let mut stream = Vec::new();
    for size in sizes {
        let mut sample = &file[at..at + size as usize];
        let mut picture = if stream.is_empty() {
            parameter_sets(configuration)
        } else {
            Vec::new()
        };
        while !sample.is_empty() {
            let (length, rest) = sample.split_at(4);
            let (unit, rest) = rest.split_at(word(length, 0) as usize);
            picture.extend([0, 0, 0, 1]);
            picture.extend(unit);
            sample = rest;
        }
        stream.push(picture);
        at += size as usize;
    }
    assert_eq!(at, file.len(), "the data ends with the file");
    stream
}

/// ISO/IEC 14496-15, 5.3.3.1: one sequence and one picture parameter set.
fn parameter_sets(configuration: &[u8]) -> Vec<u8> {
    assert_eq!(
        [configuration[0], configuration[4], configuration[5]],
        [1, 0xff, 0xe1]
    );
    let length = |at: usize| {
        usize::from(u16::from_be_bytes([
            configuration[at],
            configuration[at + 1],
        ]))
    };
    let sequence = &configuration[8..8 + length(6)];
    let picture_at = 8 + sequence.len() + 1;
    let picture = &configuration[picture_at + 2..picture_at + 2 + length(picture_at)];
    assert_eq!(sequence[1..4], configuration[1..4], "profile and level");
    [&[0, 0, 0, 1], sequence, &[0, 0, 0, 1], picture].concat()
}

/// Types and contents of the boxes that follow one another.
fn boxes(mut bytes: &[u8]) -> Vec<(String, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (this, rest) = bytes.split_at(word(bytes, 0) as usize);
        found.push((String::from_utf8(this[4..8].to_vec()).unwrap(), &this[8..]));
        bytes = rest;
    }
    found
}

fn find<'a>(boxes: &[(String, &'a [u8])], kind: &str) -> &'a [u8] {
    boxes
        .iter()
        .find(|(found, _)| found == kind)
        .unwrap_or_else(|| panic!("no box {kind}"))
        .1
}

fn inside<'a>(outer: &[(String, &'a [u8])], kind: &str) -> Vec<(String, &'a [u8])> {
    boxes(find(outer, kind))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&word| u32::from_be_bytes(word))
}

fn word(bytes: &[u8], index: usize) -> u32 {
    words(bytes).nth(index).unwrap()
}

/// A table of pairs of count and value, written out.
fn runs(table: &[u8]) -> Vec<u32> {
    let values: Vec<u32> = words(table).skip(2).collect();
    let pairs = values.as_chunks::<2>().0.iter();
    pairs
        .flat_map(|&[count, value]| vec![value; count as usize])
        .collect()
}
