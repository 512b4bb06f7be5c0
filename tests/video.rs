//! Every format of video files is written, read back and compared; what cannot be written is refused
//! before and after, with nothing left behind.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::clips;
use common::mp4::Mp4;
use common::watch::{Background, Colour, Direction};
use image::AnimationDecoder;
use image::codecs::gif::GifDecoder;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use terrace::video::{self, Video, VideoError};

/// Frames in which every pixel differs from its neighbours, smoothly.
fn ramps(frames: usize, height: usize, width: usize, fps: u32) -> Video {
    let mut data = Vec::new();
    for frame in 0..frames {
        for y in 0..height {
            for x in 0..width {
                let red = 255 * x / (width - 1);
                let green = 255 * y / (height - 1);
                let blue = (20 * frame + x + y) % 256;
                data.extend([red as u8, green as u8, blue as u8]);
            }
        }
    }
    Video::from_rgb(frames, height, width, fps, data).unwrap()
}

/// Mean difference of all bytes.
fn error(a: &Video, b: &Video) -> f64 {
    assert_eq!(
        (a.frames(), a.height(), a.width()),
        (b.frames(), b.height(), b.width())
    );
    let sum: u64 = a
        .data()
        .iter()
        .zip(b.data())
        .map(|(&a, &b)| u64::from(a.abs_diff(b)))
        .sum();
    sum as f64 / a.data().len() as f64
}

/// Writes to `name` in a new folder and returns the folder, which holds nothing else, and the files.
fn write(name: &str, video: &Video) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    video::check_writable(&path).unwrap();
    assert_eq!(list(folder.path()), [""; 0], "a check leaves nothing");
    video::check_encodable(&path, video.height(), video.width(), video.fps()).unwrap();
    let files = video::write(&path, video).unwrap();
    (folder, files)
}

fn list(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mp4(video: &Video) -> Mp4 {
    let (folder, files) = write("out.mp4", video);
    assert_eq!(files, [folder.path().join("out.mp4")]);
    assert_eq!(list(folder.path()), ["out.mp4"]);
    Mp4::parse(&fs::read(&files[0]).unwrap())
}

#[test]
fn mp4_keeps_frames_colours_and_time() {
    for background in Background::ALL {
        for colour in Colour::ALL {
            let video = clips::disc(colour, Direction::Right, background);
            let decoded = mp4(&video).decode(8);
            let found = error(&video, &decoded);
            assert!(
                found < 2.0,
                "{colour:?} on {background:?}: mean error {found}"
            );
            // The middle of the disc at half time, and a corner.
            let middle = 3 * ((8 * 96 + 48) * 144 + 72);
            for (at, expected) in [(middle, colour.rgb()), (0, background.rgb())] {
                let pixel = &decoded.data()[at..at + 3];
                let worst = pixel
                    .iter()
                    .zip(expected)
                    .map(|(&a, b)| a.abs_diff(b))
                    .max();
                assert!(worst <= Some(3), "expected {expected:?}, found {pixel:?}");
            }
        }
    }
}

#[test]
fn mp4_keeps_smooth_pictures() {
    let video = ramps(9, 480, 720, 8);
    let found = error(&video, &mp4(&video).decode(8));
    assert!(found < 2.0, "mean error {found}");
}

#[test]
fn mp4_has_its_index_first_and_exact_times() {
    for (frames, fps) in [(1, 8), (17, 8), (49, 8), (3, 7), (5, 30), (2, 240), (2, 1)] {
        let file = mp4(&ramps(frames, 32, 48, fps));
        assert_eq!(file.order, ["ftyp", "moov", "mdat"]);
        assert_eq!((file.height, file.width), (32, 48));
        assert_eq!(file.time_scales[0], file.time_scales[1]);
        assert_eq!(file.frame_durations.len(), frames);
        for duration in file.durations {
            assert_eq!(
                duration * fps,
                frames as u32 * file.time_scales[0],
                "{frames} at {fps}"
            );
        }
        assert_eq!(file.decode(fps).frames(), frames);
    }
}

#[test]
fn mp4_can_be_entered_every_two_seconds() {
    assert_eq!(mp4(&ramps(49, 32, 48, 8)).keys, [1, 17, 33, 49]);
}

#[test]
fn mp4_says_that_it_is_bt_601_of_limited_range() {
    assert_eq!(mp4(&ramps(1, 16, 16, 8)).colours, ([1, 13, 6], false));
}

#[test]
fn the_same_frames_give_the_same_bytes() {
    let video = clips::disc(Colour::Red, Direction::Up, Background::Navy);
    for name in ["a.mp4", "a.gif", "a.png"] {
        let ((_one, first), (_two, second)) = (write(name, &video), write(name, &video));
        for (first, second) in first.iter().zip(&second) {
            assert!(
                fs::read(first).unwrap() == fs::read(second).unwrap(),
                "{name}"
            );
        }
    }
}

fn gif(video: &Video) -> (Video, Vec<u32>) {
    let (folder, files) = write("out.GIF", video);
    assert_eq!(list(folder.path()), ["out.GIF"]);
    let decoder = GifDecoder::new(Cursor::new(fs::read(&files[0]).unwrap())).unwrap();
    let (mut data, mut delays) = (Vec::new(), Vec::new());
    for frame in decoder.into_frames() {
        let frame = frame.unwrap();
        let (numerator, denominator) = frame.delay().numer_denom_ms();
        delays.push(numerator / denominator);
        data.extend(
            frame
                .buffer()
                .pixels()
                .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]),
        );
    }
    let [height, width, fps] = [video.height(), video.width(), video.fps() as usize];
    let decoded = Video::from_rgb(delays.len(), height, width, fps as u32, data).unwrap();
    (decoded, delays)
}

#[test]
fn gif_keeps_few_colours_exactly_and_many_nearly() {
    let few = clips::disc(Colour::Orange, Direction::Left, Background::White);
    assert!(gif(&few).0 == few);
    let many = ramps(3, 64, 96, 8);
    let found = error(&many, &gif(&many).0);
    assert!(found < 8.0, "mean error {found}");
}

#[test]
fn gif_delays_add_up_to_the_duration() {
    // 12.5 hundredths of a second per frame, in milliseconds here.
    assert_eq!(gif(&ramps(5, 8, 9, 8)).1, [130, 120, 130, 120, 130]);
    for fps in [1, 7, 24, 30, 100] {
        let total: u32 = gif(&ramps(fps, 4, 4, fps as u32)).1.iter().sum();
        assert_eq!(total, 1000, "one second at {fps} frames per second");
    }
}

#[test]
fn png_frames_are_exact_and_numbered() {
    let video = ramps(3, 7, 5, 8);
    for (name, expected) in [
        ("out.png", ["out-0000.png", "out-0001.png", "out-0002.png"]),
        ("f%02d.png", ["f00.png", "f01.png", "f02.png"]),
        ("%d-x.PNG", ["0-x.PNG", "1-x.PNG", "2-x.PNG"]),
        ("sub/%04d.png", ["0000.png", "0001.png", "0002.png"]),
        ("sub/", ["0000.png", "0001.png", "0002.png"]),
        ("a.folder/", ["0000.png", "0001.png", "0002.png"]),
    ] {
        let (_folder, files) = write(name, &video);
        let parent = files[0].parent().unwrap();
        assert_eq!(list(parent), expected, "{name}");
        assert_eq!(files, expected.map(|file| parent.join(file)), "{name}");
        for (file, frame) in files.iter().zip(video.iter()) {
            let picture = image::open(file).unwrap().into_rgb8();
            assert_eq!(picture.dimensions(), (5, 7));
            assert!(picture.into_raw() == frame);
        }
    }
}

#[test]
fn an_existing_folder_takes_frames_and_existing_files_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let video = ramps(2, 16, 16, 8);
    for _ in 0..2 {
        video::check_writable(folder.path()).unwrap();
        video::write(folder.path(), &video).unwrap();
        for name in ["a.mp4", "a.gif"] {
            fs::write(folder.path().join(name), "old").unwrap();
            video::write(&folder.path().join(name), &video).unwrap();
            assert!(fs::read(folder.path().join(name)).unwrap() != b"old");
        }
    }
    assert_eq!(
        list(folder.path()),
        ["0000.png", "0001.png", "a.gif", "a.mp4"]
    );
}

#[cfg(unix)]
#[test]
fn files_get_the_usual_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, files) = write("a.mp4", &ramps(1, 16, 16, 8));
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&files[0]), mode(&plain));
}

/// The error of the check and of writing, which agree, after both left the folder as it was.
fn refused(folder: &Path, name: &str) -> String {
    let before = list(folder);
    let path = folder.join(name);
    let early = video::check_writable(&path).unwrap_err().to_string();
    let late = video::write(&path, &ramps(2, 16, 16, 8))
        .unwrap_err()
        .to_string();
    assert_eq!(early, late);
    assert_eq!(list(folder), before);
    early.replace(&format!("{}/", folder.display()), "")
}

#[test]
fn unwritable_outputs_are_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    fs::create_dir(folder.path().join("taken.mp4")).unwrap();
    let formats = "use .mp4, .gif, or png frames (`frames/%04d.png`, `out.png`, or a folder that ends with `/`)";
    let pattern =
        "a pattern needs one number such as `%04d` (1 to 9 digits) in its file name, found";
    for (name, expected) in [
        ("out.webm", format!("unknown extension `.webm`; {formats}")),
        ("out", format!("unknown extension (none); {formats}")),
        ("a%4d.png", format!("{pattern} `%4d.png`")),
        ("%d%d.png", format!("{pattern} `%d%d.png`")),
        ("%010d.png", format!("{pattern} `%010d.png`")),
        ("taken.mp4", "it is a folder; name a file in it".to_owned()),
        (
            "no/out.gif",
            "the folder no does not exist; create it or choose another".to_owned(),
        ),
        (
            "file/a.mp4",
            "the folder file does not exist; create it or choose another".to_owned(),
        ),
    ] {
        assert_eq!(
            refused(folder.path(), name),
            format!("cannot write {name}: {expected}")
        );
    }
    // Only the last folder of frames is made.
    let deep = refused(folder.path(), "a/b/%04d.png");
    assert_eq!(
        deep,
        "cannot write a/b: the folder a does not exist; create it or choose another"
    );
}

#[test]
fn frames_that_cannot_all_be_named_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("b-0001.png")).unwrap();
    let path = folder.path().join("b.png");
    let error = video::write(&path, &ramps(2, 4, 4, 8)).unwrap_err();
    assert!(matches!(error, VideoError::IsFolder { .. }), "{error}");
    assert_eq!(list(folder.path()), ["b-0001.png"]);
}

#[test]
fn sizes_and_frame_rates_that_a_format_cannot_hold_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let size = "even heights and widths from 16 to 3840 x 2160 pixels in either orientation";
    let advice = "choose another size or write png frames";
    for (name, height, width, fps, expected) in [
        (
            "a.mp4",
            17,
            32,
            8,
            format!("mp4 needs {size}, found 17 x 32 pixels (height x width); {advice}"),
        ),
        (
            "a.mp4",
            8,
            32,
            8,
            format!("mp4 needs {size}, found 8 x 32 pixels (height x width); {advice}"),
        ),
        (
            "a.mp4",
            2162,
            16,
            0,
            "mp4 needs a frame rate of 1 to 240 frames per second, found 0".to_owned(),
        ),
        (
            "a.gif",
            4,
            4,
            101,
            "gif needs a frame rate of 1 to 100 frames per second, found 101".to_owned(),
        ),
        (
            "a.png",
            4,
            4,
            0,
            "png needs a frame rate of 1 or more frames per second, found 0".to_owned(),
        ),
    ] {
        let path = folder.path().join(name);
        let early = video::check_encodable(&path, height, width, fps).unwrap_err();
        assert_eq!(early.to_string(), expected);
        let late = video::write(&path, &ramps(1, height, width, fps)).unwrap_err();
        assert_eq!(late.to_string(), expected);
        assert_eq!(list(folder.path()), [""; 0]);
    }
    let large = video::check_encodable(&folder.path().join("a.mp4"), 2162, 2162, 8).unwrap_err();
    assert!(matches!(large, VideoError::Size { .. }), "{large}");
    video::check_encodable(&folder.path().join("a.mp4"), 3840, 2160, 8).unwrap();
}

#[test]
fn values_of_the_model_become_colours_as_in_the_reference() {
    let planes = [[-1.0, 1.0, 0.0], [-7.0, 2.0, 0.5], [-0.5, 0.25, -0.001]];
    let values: Vec<f32> = planes.into_iter().flatten().collect();
    let video = Video::from_model([1, 3, 1, 3], 8, &values).unwrap();
    // 127.5 goes to the even neighbour.
    assert_eq!(video.data(), [0, 0, 64, 255, 255, 159, 128, 191, 127]);
}

#[test]
fn values_that_are_no_video_are_refused() {
    let refused =
        |shape, values: &[f32]| Video::from_model(shape, 8, values).unwrap_err().to_string();
    assert_eq!(
        refused([1, 3, 2, 2], &[0.0; 11]),
        "a video of the shape [1, 3, 2, 2] needs 12 values, found 11"
    );
    for shape in [[1, 4, 2, 2], [0, 3, 2, 2], [1, 3, 0, 2]] {
        assert_eq!(
            refused(shape, &[]),
            format!(
                "a video needs the shape [frames, 3, height, width] without a zero, found {shape:?}"
            )
        );
    }
    let mut values = [0.0; 6];
    values[4] = f32::NAN;
    assert_eq!(
        refused([2, 3, 1, 1], &values),
        "frame 1 holds a value that is not finite (NaN); the weights or the latents are damaged, or the arithmetic overflowed"
    );
}
