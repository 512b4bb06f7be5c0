//! RGB frames to an H.264 stream: 4:2:0, limited range, the ITU-R BT.601 matrix.
//!
//! Invariants: constrained baseline profile, so pictures are stored in the order in which they are
//! shown; every picture has the same quantiser; the stream itself says how to turn it back into RGB.
//! BT.601 because players that ignore those words assume it at the sizes of these models; primaries and
//! transfer are those of sRGB, which is what the models were trained on.

use super::{Video, VideoError};
use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, ColorPrimaries, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod,
    QpRange, RateControlMode, TransferCharacteristics, VuiConfig,
};
use openh264::formats::YUVSlices;

/// A whole stream, without the parameter sets in its pictures.
#[derive(Debug)]
pub(super) struct Stream {
    /// Sequence parameter set, a NAL unit without start code.
    pub(super) sequence: Vec<u8>,
    /// Picture parameter set, a NAL unit without start code.
    pub(super) picture: Vec<u8>,
    /// One per frame.
    pub(super) samples: Vec<Sample>,
}

/// One coded picture.
#[derive(Debug)]
pub(super) struct Sample {
    /// NAL units, each after its length in 4 bytes.
    pub(super) data: Vec<u8>,
    /// Whether decoding can begin here.
    pub(super) is_key: bool,
}

/// Quantiser: at 14 flat colours return within the rounding of 8-bit 4:2:0.
const QUANTISER: u8 = 14;
/// Seconds between pictures at which a player can begin.
const KEY_SECONDS: u32 = 2;
/// Bits per pixel that the level in the stream allows for. The quantiser decides, not this.
const BITS_PER_PIXEL: u64 = 2;

/// Types of NAL units, ITU-T H.264 table 7-1.
const SEQUENCE_SET: u8 = 7;
const PICTURE_SET: u8 = 8;

/// Encodes all frames. Height and width are even.
pub(super) fn encode(video: &Video) -> Result<Stream, VideoError> {
    let mut encoder = Encoder::with_api_config(OpenH264API::from_source(), config(video))
        .map_err(|source| VideoError::H264 { frame: 0, source })?;
    let mut stream = Stream {
        sequence: Vec::new(),
        picture: Vec::new(),
        samples: Vec::with_capacity(video.frames()),
    };
    let mut planes = Planes::new(video.height(), video.width());
    for (frame, rgb) in video.iter().enumerate() {
        planes.fill(rgb);
        let coded = encoder
            .encode(&planes.slices())
            .map_err(|source| VideoError::H264 { frame, source })?;
        let is_key = matches!(coded.frame_type(), FrameType::IDR);
        let data = stream.take(&coded.to_vec());
        if data.is_empty() {
            return Err(VideoError::Stream {
                frame,
                expected: "a picture",
            });
        }
        stream.samples.push(Sample { data, is_key });
    }
    if stream.sequence.len() < 4 || stream.picture.is_empty() {
        return Err(VideoError::Stream {
            frame: 0,
            expected: "parameter sets",
        });
    }
    Ok(stream)
}

/// One thread and one slice, and nothing that adapts: the bytes depend on the frames alone. Of the modes
/// that take a range of quantisers, this one alone does not warn on stderr that no frame may be skipped.
fn config(video: &Video) -> EncoderConfig {
    let pixels = (video.height() * video.width()) as u64;
    let bits = pixels * u64::from(video.fps()) * BITS_PER_PIXEL;
    EncoderConfig::new()
        .vui(
            VuiConfig::bt601()
                .color_primaries(ColorPrimaries::Bt709)
                .transfer_characteristics(TransferCharacteristics::Srgb),
        )
        .rate_control_mode(RateControlMode::Bufferbased)
        .qp(QpRange::new(QUANTISER, QUANTISER))
        .bitrate(BitRate::from_bps(bits.clamp(100_000, 200_000_000) as u32))
        .max_frame_rate(FrameRate::from_hz(video.fps() as f32))
        .intra_frame_period(IntraFramePeriod::from_num_frames(KEY_SECONDS * video.fps()))
        .skip_frames(false)
        .adaptive_quantization(false)
        .background_detection(false)
        .scene_change_detect(false)
        .num_threads(1)
}

impl Stream {
    /// Splits the units of one picture from the parameter sets, which the container holds once.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut data = Vec::with_capacity(bytes.len() + 4);
        for unit in units(bytes) {
            match unit.first().map(|header| header & 31) {
                Some(SEQUENCE_SET) => self.sequence = unit.to_vec(),
                Some(PICTURE_SET) => self.picture = unit.to_vec(),
                Some(_) => {
                    data.extend((unit.len() as u32).to_be_bytes());
                    data.extend(unit);
                }
                None => {}
            }
        }
        data
    }
}

/// The NAL units between start codes (ITU-T H.264 annex B): `00 00 01`, with one zero more before it or
/// without.
fn units(bytes: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = bytes
        .windows(3)
        .enumerate()
        .filter(|(_, window)| *window == [0, 0, 1])
        .map(|(at, _)| at)
        .collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| {
            let unit = &bytes[start + 3..end];
            // A unit never ends with a zero byte, so zeros before the next start code belong to that.
            let length = unit
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |at| at + 1);
            &unit[..length]
        })
        .collect()
}

/// One frame as luma and two chroma planes of half its height and width.
struct Planes {
    height: usize,
    width: usize,
    luma: Vec<u8>,
    blue: Vec<u8>,
    red: Vec<u8>,
}

impl Planes {
    fn new(height: usize, width: usize) -> Self {
        Self {
            height,
            width,
            luma: vec![0; height * width],
            blue: vec![0; height * width / 4],
            red: vec![0; height * width / 4],
        }
    }

    fn slices(&self) -> YUVSlices<'_> {
        let half = self.width / 2;
        let planes = (
            self.luma.as_slice(),
            self.blue.as_slice(),
            self.red.as_slice(),
        );
        YUVSlices::new(planes, (self.width, self.height), (self.width, half, half))
    }

    /// ITU-R BT.601 with limited range; chroma is that of the mean colour of 2 x 2 pixels.
    fn fill(&mut self, rgb: &[u8]) {
        let pixels = rgb.as_chunks::<3>().0;
        for (luma, &pixel) in self.luma.iter_mut().zip(pixels) {
            *luma = (16.0 + 219.0 * grey(pixel.map(f32::from)) / 255.0).round() as u8;
        }
        let half = self.width / 2;
        for (index, (blue, red)) in self.blue.iter_mut().zip(&mut self.red).enumerate() {
            let at = 2 * (index / half) * self.width + 2 * (index % half);
            let square = [at, at + 1, at + self.width, at + self.width + 1];
            let sum = |channel| {
                square
                    .iter()
                    .map(|&at| f32::from(pixels[at][channel]))
                    .sum::<f32>()
            };
            let mean = [sum(0) / 4.0, sum(1) / 4.0, sum(2) / 4.0];
            let grey = grey(mean);
            *blue = (128.0 + 224.0 * (mean[2] - grey) / (1.772 * 255.0)).round() as u8;
            *red = (128.0 + 224.0 * (mean[0] - grey) / (1.402 * 255.0)).round() as u8;
        }
    }
}

/// Luma of a colour, in the unit of its channels.
fn grey([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}
