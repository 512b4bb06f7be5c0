//! Videos of the shipped checkpoint show what their prompts say, on every number of ranks alike.

use crate::common::watch::{Background, Colour, Direction, Seen, watch};
use crate::support::{demo, error};
use terrace::video::Video;
use terrace::{Degrees, GenerateRequest, Generated, Granularity, Pipeline, Solver};

fn generate(pipeline: &Pipeline, change: impl FnOnce(&mut GenerateRequest)) -> Generated {
    let prompt = "a red circle moving right on a black background";
    let mut request = GenerateRequest::new(pipeline.model(), prompt).unwrap();
    request.sampling.steps = 3;
    change(&mut request);
    pipeline.generate(&request, &mut |_| {}).unwrap()
}

#[test]
fn videos_show_colour_background_and_direction_of_their_prompts() {
    let pipeline = demo();
    let wanted = [
        ("circle", Colour::Red, Direction::Right, Background::Black),
        ("triangle", Colour::Green, Direction::Up, Background::White),
        ("square", Colour::Yellow, Direction::Left, Background::Navy),
        ("circle", Colour::Purple, Direction::Down, Background::Grey),
        (
            "triangle",
            Colour::Orange,
            Direction::Down,
            Background::Black,
        ),
    ];
    for (seed, (shape, colour, direction, background)) in wanted.into_iter().enumerate() {
        let seen = Seen {
            colour,
            direction,
            background,
        };
        let generated = generate(&pipeline, |request| {
            request.prompt = seen.prompt(shape);
            request.sampling.steps = 20;
            request.sampling.guidance_scale = 4.0;
            request.sampling.seed = seed as u64;
            request.degrees.ranks = Some(seed + 1);
        });
        let &[_, frames, channels, height, width] = generated.frames.shape() else {
            panic!("frames have five dimensions");
        };
        let size = [frames, channels, height, width];
        let video = Video::from_model(size, 8, generated.frames.as_f32().unwrap()).unwrap();
        assert_eq!(watch(&video), Ok(seen), "{}", seen.prompt(shape));
    }
}

#[test]
fn every_number_of_ranks_gives_the_same_video() {
    let pipeline = demo();
    for solver in [Solver::Ddim, Solver::Dpm] {
        let one = generate(&pipeline, |request| request.solver = Some(solver));
        for ranks in [2, 3, 4, 5, 6, 7, 8, 12, 16] {
            for granularity in [Granularity::Row, Granularity::Cell] {
                // Rows are few: 6 of them on each of at most two cfg positions.
                if granularity == Granularity::Row && !matches!(ranks, 2..=6 | 8 | 12) {
                    continue;
                }
                let many = generate(&pipeline, |request| {
                    request.solver = Some(solver);
                    request.degrees.ranks = Some(ranks);
                    request.granularity = granularity;
                });
                let label = format!("{} {granularity:?}", many.mesh);
                let (found, expected) =
                    (many.frames.as_f32().unwrap(), one.frames.as_f32().unwrap());
                if many.mesh.ring == 1 {
                    assert!(found == expected, "{label}");
                } else {
                    let error = error(found, expected);
                    assert!(error < 1e-4, "{label}: {error}");
                }
            }
        }
    }
}

#[test]
fn without_guidance_one_prediction_is_made() {
    let pipeline = demo();
    let one = generate(&pipeline, |request| request.sampling.guidance_scale = 1.0);
    let three = generate(&pipeline, |request| {
        request.sampling.guidance_scale = 1.0;
        request.degrees = Degrees {
            ulysses: Some(3),
            ..Degrees::default()
        };
    });
    assert_eq!(three.mesh.to_string(), "cfg=1 ring=1 ulysses=3");
    assert!(one.frames == three.frames);
}
