//! What only moves frames: the cache of a convolution, up-sampling.

use terrace_kernels::cpu;
use terrace_kernels::cube::*;

use crate::arena::{Arena, FLOATS, rounded};
use crate::common::{bits, values};

#[test]
fn caches_are_those_of_the_cpu() {
    for (batch, frames, frame, keep) in [
        (1, 1, 1, 2),
        (2, 3, 12, 2),
        (2, 1, 7, 2),
        (3, 4, 8, 1),
        (1, 0, 4, 2),
    ] {
        for (cached, skew) in [(false, 0), (true, 0), (true, 3)] {
            if !cached && frames == 0 {
                continue;
            }
            for element in FLOATS {
                let (x, cache) = (
                    values(batch * frames * frame, 1),
                    values(batch * keep * frame, 2),
                );
                let mut arena = Arena::new(skew);
                let (x_at, cache_at) = (arena.put(element, &x), arena.put(element, &cache));
                let y = arena.poison(element, batch * keep * frame);
                let on = arena.upload();
                let call = ConvCache {
                    batch,
                    frames,
                    frame,
                    keep,
                    cache: cached.then(|| on.at(cache_at)),
                    x: on.at(x_at),
                    y: on.at(y),
                };
                let found = on.run(call.calls(on.device()), y);
                let (x, cache) = (rounded(element, &x), rounded(element, &cache));
                let mut expected = vec![0.0; batch * keep * frame];
                cpu::ConvCache {
                    batch,
                    frames,
                    frame,
                    keep,
                    cache: cached.then_some(&cache[..]),
                    x: &x,
                    y: &mut expected,
                }
                .run()
                .unwrap();
                assert_eq!(bits(&found), bits(&expected));
            }
        }
    }
}

#[test]
fn upsampling_is_that_of_the_cpu() {
    for (batch, frames, height, width, channels, skew) in [
        (1, 1, 1, 1, 1, 0),
        (2, 3, 5, 7, 8, 0),
        (2, 2, 3, 4, 6, 1),
        (1, 5, 4, 3, 16, 2),
    ] {
        for time in [cpu::TimeMode::Keep, cpu::TimeMode::Double] {
            for element in FLOATS {
                let x = values(batch * frames * height * width * channels, 1);
                let mut expected = vec![0.0; 4 * x.len() / frames * time.frames(frames).unwrap()];
                let mut arena = Arena::new(skew);
                let (from, to) = (
                    arena.put(element, &x),
                    arena.poison(element, expected.len()),
                );
                let on = arena.upload();
                let call = Upsample {
                    batch,
                    frames,
                    height,
                    width,
                    channels,
                    time,
                    x: on.at(from),
                    y: on.at(to),
                };
                let found = on.run(call.calls(on.device()), to);
                cpu::Upsample {
                    batch,
                    frames,
                    height,
                    width,
                    channels,
                    time,
                    x: &rounded(element, &x),
                    y: &mut expected,
                }
                .run()
                .unwrap();
                assert_eq!(bits(&found), bits(&expected));
            }
        }
    }
}
