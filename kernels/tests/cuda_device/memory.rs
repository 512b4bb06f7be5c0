//! Memory and queues: uploads in pieces, copies of rows, order by marks, recorded work.

use crate::gpu::gpu;
use terrace_kernels::cuda::{ByteRows, CudaFault, Priority, Uploader};

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31 + seed) % 251) as u8).collect()
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn what_is_uploaded_in_pieces_arrives_whole() {
    let mut uploader = Uploader::new(gpu(), 1000).unwrap();
    for len in [0, 1, 1000, 1001, 2000, 12_345] {
        let host = bytes(len, len);
        let mut memory = gpu().allocate("a test", len).unwrap();
        let make = |range: std::ops::Range<usize>, piece: &mut [u8]| -> Result<(), CudaFault> {
            piece.copy_from_slice(&host[range]);
            Ok(())
        };
        uploader.fill(&mut memory, len, make).unwrap();
        assert_eq!(memory.read().unwrap(), host, "{len} bytes");
    }
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn rows_are_copied_in_the_order_of_marks_and_records_repeat() {
    let host = bytes(600, 3);
    let mut src = gpu().allocate("a test", 600).unwrap();
    src.fill(&host).unwrap();
    let (middle, dst) = (
        gpu().allocate("a test", 600).unwrap(),
        gpu().allocate("a test", 300).unwrap(),
    );
    let (first, second) = (
        gpu().stream(Priority::Normal).unwrap(),
        gpu().stream(Priority::High).unwrap(),
    );
    let rows = ByteRows {
        width: 6,
        rows: 40,
        src_pitch: 14,
        dst_pitch: 7,
    };
    let mut expected = vec![0; 300];
    for row in 0..40 {
        expected[row * 7..row * 7 + 6].copy_from_slice(&host[row * 14..row * 14 + 6]);
    }
    let mark = gpu().event().unwrap();
    // SAFETY: all memory is allocated until both queues have been waited for; the mark orders them.
    unsafe {
        first.copy(src.address(), middle.address(), 600).unwrap();
        first.record(&mark).unwrap();
        second.wait(&mark).unwrap();
        second
            .copy_rows(middle.address(), dst.address(), rows)
            .unwrap();
    }
    second.synchronize().unwrap();
    assert_eq!(dst.read().unwrap(), expected);

    first.begin_capture().unwrap();
    // SAFETY: as above; the record is launched while all memory is allocated.
    let told = unsafe { first.copy_rows(src.address(), dst.address(), rows) };
    let mut graph = first.end_capture().unwrap();
    told.unwrap();
    for seed in [4, 5] {
        let host = bytes(600, seed);
        src.fill(&host).unwrap();
        // SAFETY: all memory is still allocated, and the queue is waited for before it is touched.
        unsafe { graph.launch() }.unwrap();
        first.synchronize().unwrap();
        for row in 0..40 {
            expected[row * 7..row * 7 + 6].copy_from_slice(&host[row * 14..row * 14 + 6]);
        }
        assert_eq!(dst.read().unwrap(), expected);
    }
}
