//! NVIDIA's libraries: what is said of a missing one, and, where `.ci/cuda` has brought them, that they
//! load.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

use terrace_kernels::cuda::{CudaFault, Device, Library, UniqueId};

#[test]
fn a_missing_library_is_one_error_that_says_what_to_install() {
    for library in Library::ALL {
        let missing = CudaFault::Missing { library }.to_string();
        assert!(missing.contains(library.file()), "{missing}");
        assert!(missing.contains(library.package()), "{missing}");
        match library.require() {
            Ok(()) => assert!(library.is_present()),
            Err(CudaFault::Missing { library: named }) => {
                assert_eq!(named, library);
                assert!(!library.is_present());
            }
            Err(fault) => assert!(fault.to_string().contains("install"), "{fault}"),
        }
    }
}

#[test]
fn without_a_driver_there_is_no_device() {
    if Library::Driver.is_present() {
        // The devices of a machine are numbered from 0.
        let count = Device::count().unwrap();
        let expected = Err(CudaFault::NoDevice {
            ordinal: count,
            devices: count,
        });
        assert_eq!(Device::open(count).map(|_| ()), expected);
    } else {
        let library = Library::Driver;
        assert_eq!(Device::count(), Err(CudaFault::Missing { library }));
    }
}

#[test]
#[ignore = "needs NVIDIA's libraries: `.ci/cuda --libraries` brings them"]
fn the_libraries_load_and_are_new_enough() {
    for library in [
        Library::Nvrtc,
        Library::CublasLt,
        Library::Cudnn,
        Library::Nccl,
    ] {
        library.require().unwrap();
    }
    // The only work of these libraries that needs no GPU.
    assert_ne!(UniqueId::new().unwrap(), UniqueId::new().unwrap());
}
