//! The judge of generated videos is judged: it reads clips with known contents, and refuses others.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::clips;
use common::watch::{Background, Colour, Direction, Seen, watch};

#[test]
fn every_clip_is_read_as_what_it_shows() {
    for colour in Colour::ALL {
        for direction in Direction::ALL {
            for background in Background::ALL {
                let shown = Seen {
                    colour,
                    direction,
                    background,
                };
                let video = clips::disc(colour, direction, background);
                assert_eq!(watch(&video), Ok(shown), "{}", shown.prompt("circle"));
            }
        }
    }
}

#[test]
fn a_prompt_names_all_that_is_seen() {
    let seen = Seen {
        colour: Colour::Purple,
        direction: Direction::Up,
        background: Background::Grey,
    };
    assert_eq!(
        seen.prompt("square"),
        "a purple square moving up on a gray background"
    );
}

#[test]
fn a_shape_that_does_not_go_one_way_is_refused() {
    let refused = |offset: fn(f32) -> [f32; 2]| {
        watch(&clips::path(Colour::Red, Background::Black, offset)).unwrap_err()
    };
    assert!(refused(|_| [0.0, 0.0]).starts_with("the shape moves by"));
    assert!(refused(|time| [2.0 * time, 2.0 * time]).starts_with("the shape moves by"));
    // It jumps forward at half time and creeps back otherwise.
    let back = refused(|time| [20.0 * time.signum() - 0.5 * time, 0.0]);
    assert!(
        back.contains("of the steps go the way of the whole"),
        "{back}"
    );
}

#[test]
fn a_frame_without_a_shape_is_refused() {
    let gone = clips::path(Colour::Red, Background::Black, |time| {
        if time > 4.0 {
            [1000.0, 0.0]
        } else {
            [time, 0.0]
        }
    });
    let error = watch(&gone).unwrap_err();
    assert_eq!(
        error,
        "frame 13 has 0 pixels of a shape, expected 60 to 5529"
    );
}
