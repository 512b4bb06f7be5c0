//! Looks at a video of one shape that moves over a plain background, and says what it shows.
//!
//! Background: the median colour. Shape: the pixels far from it. Colour: the nearest of the six names.
//! Direction: the track of the shape's centroid, which must go one way, mostly along one axis.
//! A video that cannot be read so is refused with the reason.

use terrace::video::Video;

/// The colours that the shipped checkpoint knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Purple,
    Orange,
}

/// The backgrounds that the shipped checkpoint knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    Black,
    White,
    Grey,
    Navy,
}

/// Where the shape goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Left,
    Right,
    Up,
    Down,
}

/// What a video shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub colour: Colour,
    pub direction: Direction,
    pub background: Background,
}

/// Distance in RGB from which a pixel belongs to the shape.
const FAR: f32 = 55.0;
/// Most difference of a channel between the background and its name.
const BACKGROUND_ERROR: f32 = 40.0;
/// Pixels of the shape in every frame: at least this, and at most this share of the frame.
const AREA: (usize, f32) = (60, 0.4);
/// Pixels that the centroid moves at least from the first frame to the last.
const TRAVEL: f32 = 12.0;
/// Most movement across the direction, as a share of that along it.
const ACROSS: f32 = 0.3;
/// Share of the steps from frame to frame that go the same way, to be exceeded.
const ONE_WAY: f32 = 0.8;

impl Colour {
    pub const ALL: [Self; 6] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Purple,
        Self::Orange,
    ];

    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [226, 38, 38],
            Self::Green => [40, 180, 70],
            Self::Blue => [50, 105, 240],
            Self::Yellow => [245, 220, 50],
            Self::Purple => [165, 60, 210],
            Self::Orange => [250, 135, 25],
        }
    }

    /// The word in a prompt.
    pub fn word(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Purple => "purple",
            Self::Orange => "orange",
        }
    }
}

impl Background {
    pub const ALL: [Self; 4] = [Self::Black, Self::White, Self::Grey, Self::Navy];

    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Black => [10, 10, 12],
            Self::White => [243, 243, 243],
            Self::Grey => [128, 128, 128],
            Self::Navy => [20, 30, 84],
        }
    }

    /// The word in a prompt.
    pub fn word(self) -> &'static str {
        match self {
            Self::Black => "black",
            Self::White => "white",
            Self::Grey => "gray",
            Self::Navy => "navy",
        }
    }
}

impl Direction {
    pub const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Up, Self::Down];

    /// The word in a prompt.
    pub fn word(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl Seen {
    /// The prompt that asks for this.
    pub fn prompt(self, shape: &str) -> String {
        let Self {
            colour,
            direction,
            background,
        } = self;
        format!(
            "a {} {shape} moving {} on a {} background",
            colour.word(),
            direction.word(),
            background.word()
        )
    }
}

/// What the video shows, or why that cannot be said.
pub fn watch(video: &Video) -> Result<Seen, String> {
    let frames: Vec<Vec<[f32; 3]>> = video
        .iter()
        .map(|frame| {
            frame
                .as_chunks()
                .0
                .iter()
                .map(|pixel| pixel.map(f32::from))
                .collect()
        })
        .collect();
    let plain = median(frames.iter().flatten().copied());
    let (background, error) = nearest(plain, Background::ALL, Background::rgb);
    if error > BACKGROUND_ERROR {
        return Err(format!(
            "background {plain:?} is {error} away from {background:?}"
        ));
    }
    let shapes: Vec<Vec<usize>> = frames.iter().map(|frame| shape(frame, plain)).collect();
    check_areas(&shapes, video.height() * video.width())?;
    let colour = colour(&frames, &shapes, plain);
    let track = shapes
        .iter()
        .map(|shape| centroid(shape, video.width()))
        .collect::<Vec<_>>();
    Ok(Seen {
        colour,
        direction: direction(&track)?,
        background,
    })
}

/// Positions of the pixels far from the background.
fn shape(frame: &[[f32; 3]], plain: [f32; 3]) -> Vec<usize> {
    (0..frame.len())
        .filter(|&at| distance(frame[at], plain) > FAR)
        .collect()
}

fn check_areas(shapes: &[Vec<usize>], pixels: usize) -> Result<(), String> {
    let most = (AREA.1 * pixels as f32) as usize;
    for (frame, shape) in shapes.iter().enumerate() {
        if shape.len() < AREA.0 || shape.len() > most {
            let area = shape.len();
            return Err(format!(
                "frame {frame} has {area} pixels of a shape, expected {} to {most}",
                AREA.0
            ));
        }
    }
    Ok(())
}

/// Soft outlines and trails are mixtures: only the pixels farthest from the background count.
fn colour(frames: &[Vec<[f32; 3]>], shapes: &[Vec<usize>], plain: [f32; 3]) -> Colour {
    let mut pixels: Vec<[f32; 3]> = frames
        .iter()
        .zip(shapes)
        .flat_map(|(frame, shape)| shape.iter().map(|&at| frame[at]))
        .collect();
    pixels.sort_by(|a, b| distance(*a, plain).total_cmp(&distance(*b, plain)));
    let core = 0.7 * distance(pixels[pixels.len() * 4 / 5], plain);
    let core = pixels
        .into_iter()
        .filter(|pixel| distance(*pixel, plain) > core);
    nearest(median(core), Colour::ALL, Colour::rgb).0
}

fn direction(track: &[[f32; 2]]) -> Result<Direction, String> {
    let [first, last] = [track[0], track[track.len() - 1]];
    let [dx, dy] = [last[0] - first[0], last[1] - first[1]];
    let (axis, along, across) = if dx.abs() >= dy.abs() {
        (0, dx, dy)
    } else {
        (1, dy, dx)
    };
    if along.abs() < TRAVEL || across.abs() > ACROSS * along.abs() {
        return Err(format!(
            "the shape moves by {dx} to the right and {dy} down"
        ));
    }
    let same = track
        .windows(2)
        .filter(|pair| (pair[1][axis] - pair[0][axis]) * along > 0.0);
    let share = same.count() as f32 / (track.len() - 1) as f32;
    if share <= ONE_WAY {
        return Err(format!("only {share} of the steps go the way of the whole"));
    }
    Ok(match (axis, along > 0.0) {
        (0, false) => Direction::Left,
        (0, true) => Direction::Right,
        (_, false) => Direction::Up,
        (_, true) => Direction::Down,
    })
}

fn centroid(shape: &[usize], width: usize) -> [f32; 2] {
    let count = shape.len() as f32;
    let sum =
        |part: fn(usize, usize) -> usize| shape.iter().map(|&at| part(at, width)).sum::<usize>();
    [
        sum(|at, width| at % width) as f32 / count,
        sum(|at, width| at / width) as f32 / count,
    ]
}

/// The nearest name and the largest difference of a channel.
fn nearest<T: Copy, const N: usize>(
    colour: [f32; 3],
    names: [T; N],
    rgb: fn(T) -> [u8; 3],
) -> (T, f32) {
    let differences = |name: T| {
        let named = rgb(name).map(f32::from);
        [0, 1, 2].map(|channel: usize| (named[channel] - colour[channel]).abs())
    };
    let total = |name: &T| differences(*name).iter().sum::<f32>();
    let name = names
        .into_iter()
        .min_by(|a, b| total(a).total_cmp(&total(b)))
        .unwrap();
    (name, differences(name).into_iter().fold(0.0, f32::max))
}

fn median(pixels: impl Iterator<Item = [f32; 3]>) -> [f32; 3] {
    let mut pixels: Vec<[f32; 3]> = pixels.collect();
    let middle = pixels.len() / 2;
    [0, 1, 2].map(|channel: usize| {
        pixels
            .select_nth_unstable_by(middle, |a, b| a[channel].total_cmp(&b[channel]))
            .1[channel]
    })
}

fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    (0..3)
        .map(|channel| (a[channel] - b[channel]).powi(2))
        .sum::<f32>()
        .sqrt()
}
