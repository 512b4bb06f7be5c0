//! Where a video goes: the format that a path stands for, and what can be refused before writing.

use super::VideoError;
use super::file;
use std::path::{Path, PathBuf};

/// A path, read as one of the formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// H.264 in an mp4 file.
    Mp4(PathBuf),
    /// An animated gif.
    Gif(PathBuf),
    /// One png file per frame.
    Pictures(Pattern),
}

/// Names of png frames: `folder/{prefix}{number}{suffix}`, the number filled with zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    pub(super) folder: PathBuf,
    prefix: String,
    digits: usize,
    suffix: String,
}

/// Digits when a path does not say them.
const DIGITS: usize = 4;

impl Destination {
    /// Reads a path; see [`check_writable`](super::check_writable) for its forms.
    pub(super) fn new(path: &Path) -> Result<Self, VideoError> {
        let folder = path.is_dir() || path.to_string_lossy().ends_with(std::path::is_separator);
        let extension = path
            .extension()
            .map(|extension| extension.to_string_lossy());
        match extension.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("mp4") => Ok(Self::Mp4(path.to_owned())),
            Some("gif") => Ok(Self::Gif(path.to_owned())),
            Some("png") => Ok(Self::Pictures(Pattern::new(path)?)),
            _ if folder => Ok(Self::Pictures(Pattern {
                folder: path.to_owned(),
                prefix: String::new(),
                digits: DIGITS,
                suffix: ".png".to_owned(),
            })),
            _ => Err(VideoError::Extension {
                path: path.to_owned(),
                found: extension.map_or("(none)".to_owned(), |found| format!("`.{found}`")),
            }),
        }
    }

    /// Refuses a path that cannot be written, by making and deleting a temporary file beside it.
    pub(super) fn check_writable(&self) -> Result<(), VideoError> {
        match self {
            Self::Mp4(path) | Self::Gif(path) => file::check_writable(path),
            Self::Pictures(pattern) => {
                if pattern.folder.is_dir() {
                    file::check_writable(&pattern.path(0))
                } else {
                    file::check_writable(&pattern.folder)
                }
            }
        }
    }

    /// Refuses a size or frame rate that the format cannot hold.
    pub(super) fn check_encodable(
        &self,
        height: usize,
        width: usize,
        fps: u32,
    ) -> Result<(), VideoError> {
        let (format, sizes, fits, rates, highest) = match self {
            Self::Mp4(_) => (
                "mp4",
                "even heights and widths from 16 to 3840 x 2160 pixels in either orientation",
                fits_h264(height, width),
                "1 to 240",
                240,
            ),
            // Delays are in hundredths of a second, so no frame can be shorter than that.
            Self::Gif(_) => (
                "gif",
                "heights and widths from 1 to 65535 pixels",
                fits_within(height, width, usize::from(u16::MAX)),
                "1 to 100",
                100,
            ),
            Self::Pictures(_) => (
                "png",
                "heights and widths from 1 to 2147483647 pixels",
                fits_within(height, width, i32::MAX as usize),
                "1 or more",
                u32::MAX,
            ),
        };
        if !fits {
            return Err(VideoError::Size {
                format,
                expected: sizes,
                height,
                width,
            });
        }
        if fps == 0 || fps > highest {
            return Err(VideoError::FrameRate {
                format,
                expected: rates,
                found: fps,
            });
        }
        Ok(())
    }
}

/// Chroma has half the size, and the encoder has these limits.
fn fits_h264(height: usize, width: usize) -> bool {
    let even = height.is_multiple_of(2) && width.is_multiple_of(2);
    even && height.min(width) >= 16 && height.min(width) <= 2160 && height.max(width) <= 3840
}

fn fits_within(height: usize, width: usize, most: usize) -> bool {
    (1..=most).contains(&height) && (1..=most).contains(&width)
}

impl Pattern {
    /// Reads a path that ends with `.png`. A `%` in the folder is an ordinary character.
    fn new(path: &Path) -> Result<Self, VideoError> {
        let fail = |found: &str| VideoError::Pattern {
            path: path.to_owned(),
            found: found.to_owned(),
        };
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| fail("a name that is not UTF-8"))?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let (prefix, digits, suffix) = match name.split_once('%') {
            Some((prefix, rest)) => {
                let (digits, suffix) = number(rest).ok_or_else(|| fail(&format!("`%{rest}`")))?;
                (prefix.to_owned(), digits, suffix)
            }
            None => {
                let (stem, extension) =
                    name.rsplit_once('.').ok_or_else(|| fail("no extension"))?;
                (format!("{stem}-"), DIGITS, format!(".{extension}"))
            }
        };
        Ok(Self {
            folder,
            prefix,
            digits,
            suffix,
        })
    }

    /// The file of one frame, counted from 0.
    pub(super) fn path(&self, frame: usize) -> PathBuf {
        self.folder.join(self.name(frame))
    }

    /// The file name of one frame, counted from 0.
    pub(super) fn name(&self, frame: usize) -> String {
        let digits = self.digits;
        format!("{}{frame:0digits$}{}", self.prefix, self.suffix)
    }
}

/// Digits and suffix of what follows the `%` of `%04d.png`; `%d` stands for one digit or more.
fn number(rest: &str) -> Option<(usize, String)> {
    let (width, suffix) = rest.split_once('d')?;
    let digits = match width.strip_prefix('0') {
        Some(width) => width
            .parse()
            .ok()
            .filter(|digits| (1..=9).contains(digits))?,
        None if width.is_empty() => 1,
        None => return None,
    };
    (!suffix.contains('%')).then(|| (digits, suffix.to_owned()))
}
