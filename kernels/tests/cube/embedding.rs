//! Embeddings, position tables and the joint sequence.

use terrace_kernels::cpu;
use terrace_kernels::cube::*;

use crate::arena::{Arena, FLOATS, close, rounded};
use crate::common::{bits, values};

#[test]
fn tokens_are_looked_up() {
    let (vocabulary, ids) = (40, [3, 39, 0, 3, 40, u32::MAX]);
    for (width, skew) in [(1, 0), (12, 0), (12, 2), (7, 1)] {
        let table = values(vocabulary * width, 1);
        for (element, stored) in FLOATS.into_iter().zip([Element::F16, Element::F32]) {
            let mut arena = Arena::new(skew);
            let (words, table_at) = (arena.words(&ids), arena.put(stored, &table));
            let y = arena.poison(element, ids.len() * width);
            let on = arena.upload();
            let call = TokenEmbedding {
                vocabulary,
                width,
                ids: on.at(words),
                table: on.at(table_at),
                y: on.at(y),
            };
            let found = on.run(call.calls(on.device()), y);
            let table = rounded(element, &rounded(stored, &table));
            for (row, &id) in found.chunks_exact(width).zip(&ids) {
                // Ids behind the table read its last row and nothing else.
                let at = (id as usize).min(vocabulary - 1) * width;
                assert_eq!(row, &table[at..][..width]);
            }
        }
    }
}

#[test]
fn relative_biases_are_those_of_the_cpu() {
    for (heads, queries, keys) in [(1, 1, 1), (3, 5, 300), (2, 226, 226), (4, 17, 1)] {
        for (buckets, max_distance) in [(32, 128), (4, 2), (10, 9)] {
            let shape = RelativeShape {
                heads,
                queries,
                keys,
                buckets,
                max_distance,
            };
            let table = values(buckets * heads, 1);
            let mut arena = Arena::new(0);
            let table_at = arena.put(Element::F32, &table);
            let distances = arena.words(&shape.buckets().unwrap());
            let mut expected = vec![0.0; heads * queries * keys];
            let y = arena.poison(Element::F32, expected.len());
            let on = arena.upload();
            let call = RelativeBias {
                shape,
                table: on.at(table_at),
                buckets: on.at(distances),
                y: on.at(y),
            };
            let found = on.run(call.calls(on.device()), y);
            cpu::RelativeBias {
                heads,
                queries,
                keys,
                buckets,
                max_distance,
                table: &table,
                y: &mut expected,
            }
            .run()
            .unwrap();
            assert_eq!(bits(&found), bits(&expected));
        }
    }
}

/// More cubes than one side of a grid has.
#[test]
fn a_bias_may_need_a_grid_of_two_sides() {
    let shape = RelativeShape {
        heads: 1,
        queries: 2900,
        keys: 2900,
        buckets: 32,
        max_distance: 128,
    };
    let table = values(32, 1);
    let mut arena = Arena::new(0);
    let table_at = arena.put(Element::F32, &table);
    let buckets = shape.buckets().unwrap();
    let distances = arena.words(&buckets);
    let y = arena.poison(Element::F32, 2900 * 2900);
    let on = arena.upload();
    let call = RelativeBias {
        shape,
        table: on.at(table_at),
        buckets: on.at(distances),
        y: on.at(y),
    };
    let calls = call.calls(on.device()).unwrap();
    assert!(calls[0].grid()[1] > 1);
    let found = on.run(Ok(calls), y);
    for (query, row) in found.chunks_exact(2900).enumerate() {
        for (key, &value) in row.iter().enumerate() {
            assert_eq!(value, table[buckets[key + 2899 - query] as usize]);
        }
    }
}

#[test]
fn timestep_embeddings_match_those_of_the_cpu() {
    use cpu::SinCosOrder::{CosSin, SinCos};
    let timesteps: Vec<f32> = (0..1000).step_by(13).map(|t| t as f32 + 0.25).collect();
    for (dim, order, shift) in [
        (1, SinCos, 0.0),
        (7, CosSin, 0.0),
        (256, SinCos, 1.0),
        (64, CosSin, 0.0),
    ] {
        let shape = TimestepShape {
            dim,
            order,
            downscale_freq_shift: shift - f32::from(u8::from(dim == 1)),
            max_period: 10_000.0,
        };
        for element in FLOATS {
            let mut arena = Arena::new(0);
            let (times, rates) = (
                arena.put(Element::F32, &timesteps),
                arena.put(Element::F32, &shape.frequencies().unwrap()),
            );
            let mut expected = vec![0.0; timesteps.len() * dim];
            let y = arena.poison(element, expected.len());
            let on = arena.upload();
            let call = TimestepEmbedding {
                shape,
                timesteps: on.at(times),
                frequencies: on.at(rates),
                y: on.at(y),
            };
            let found = on.run(call.calls(on.device()), y);
            cpu::TimestepEmbedding {
                dim,
                order,
                downscale_freq_shift: shape.downscale_freq_shift,
                max_period: shape.max_period,
                timesteps: &timesteps,
                y: &mut expected,
            }
            .run()
            .unwrap();
            close(element, &found, &expected, 3e-7);
        }
    }
}

#[test]
fn position_tables_have_the_bits_of_the_cpu() {
    use cpu::{Axis, GridAxis, PositionKind};
    let axes = [(GridAxis::T, 4), (GridAxis::W, 6), (GridAxis::H, 6)];
    let columns = axes.map(|(axis, dim)| Axis {
        axis,
        dim,
        start: 0.5,
        step: 1.0 / 1.875,
    });
    let (t, grid_w) = (3, 6);
    for kind in [PositionKind::SinCos, PositionKind::Rotary { theta: 500.0 }] {
        for (cells, zero_rows) in [
            (0..42, 0),
            (4..5, 2),
            (5..17, 0),
            (7..42, 5),
            (3..3, 4),
            (0..3, 1),
        ] {
            let shape = PositionShape {
                kind,
                columns: columns.to_vec(),
                t,
                grid_w,
                cells: cells.clone(),
                zero_rows,
            };
            let halves = if kind == PositionKind::SinCos { 1 } else { 2 };
            let mut expected = vec![1.0; (zero_rows + t * cells.len()) * 16 * halves];
            let constants = shape.constants().unwrap();
            let mut arena = Arena::new(0);
            let map = arena.words(&constants.map);
            let entries = arena.put(Element::F32, &constants.entries);
            let y = arena.poison(Element::F32, expected.len());
            let on = arena.upload();
            let call = PositionTable {
                shape,
                map: on.at(map),
                entries: on.at(entries),
                y: on.at(y),
            };
            let found = on.run(call.calls(on.device()), y);
            cpu::PositionTable {
                kind,
                columns: &columns,
                t,
                grid_w,
                cells,
                zero_rows,
                out: &mut expected,
            }
            .run()
            .unwrap();
            assert_eq!(bits(&found), bits(&expected));
        }
    }
}

#[test]
fn joint_sequences_match_those_of_the_cpu() {
    for (batch, text_rows, video_rows, width, skew) in [
        (1, 1, 1, 1, 0),
        (2, 5, 9, 12, 0),
        (2, 0, 3, 7, 1),
        (2, 4, 0, 8, 3),
    ] {
        let rows = text_rows + video_rows;
        let text = values(batch * text_rows * width, 1);
        let video = values(batch * video_rows * width, 2);
        let table = values(rows * width, 3);
        for (element, placed) in FLOATS.into_iter().flat_map(|e| [(e, false), (e, true)]) {
            let mut arena = Arena::new(skew);
            let (text_at, video_at) = (arena.put(element, &text), arena.put(element, &video));
            let table_at = arena.put(Element::F32, &table);
            let mut expected = vec![0.0; batch * rows * width];
            let y = arena.poison(element, expected.len());
            let on = arena.upload();
            let call = Join {
                batch,
                text_rows,
                video_rows,
                width,
                text: on.at(text_at),
                video: on.at(video_at),
                positions: placed.then(|| on.at(table_at)),
                y: on.at(y),
            };
            let found = on.run(call.calls(on.device()), y);
            cpu::Join {
                batch,
                text_rows,
                video_rows,
                width,
                text: &rounded(element, &text),
                video: &rounded(element, &video),
                positions: placed.then_some(&table[..]),
                y: &mut expected,
            }
            .run()
            .unwrap();
            assert_eq!(bits(&found), bits(&rounded(element, &expected)));
        }
    }
}
