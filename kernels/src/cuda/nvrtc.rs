//! From CUDA C++ to machine code, by NVRTC, for one architecture.
//!
//! NVRTC needs the headers of the CUDA runtime. They are looked for beside the library, as the toolkit
//! and the PyPI packages lay them, then in CUDA_PATH, CUDA_HOME and /usr/local/cuda.

use super::fault::CudaFault;
use super::library::{Library, nvrtc_version};
use cudarc::nvrtc::result as nvrtc;
use cudarc::nvrtc::result::NvrtcError;
use cudarc::nvrtc::sys;
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};

/// A header that every kernel of half precision includes.
const HEADER: &str = "cuda_fp16.h";
/// Where maintained systems put the toolkit.
const TOOLKIT: &str = "/usr/local/cuda";

/// NVRTC with what it needs.
#[derive(Clone, Debug)]
pub struct Nvrtc {
    include: PathBuf,
    version: usize,
}

/// Machine code of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cubin {
    /// What the driver loads.
    pub code: Vec<u8>,
    /// What the compiler said, e.g. registers and spills when asked for.
    pub log: String,
}

impl Nvrtc {
    /// Finds the library and its headers.
    ///
    /// # Errors
    /// When one of them is absent, or the library is too old.
    pub fn open() -> Result<Self, CudaFault> {
        Library::Nvrtc.require()?;
        let version = nvrtc_version()?;
        let folders = folders();
        let found = folders.iter().find(|folder| folder.join(HEADER).is_file());
        let include = found.cloned().ok_or_else(|| CudaFault::Call {
            library: Library::Nvrtc,
            call: "looking for its headers",
            reason: format!(
                "{HEADER} is in none of {}; install {}",
                list(&folders),
                Library::Nvrtc.package()
            ),
        })?;
        Ok(Self { include, version })
    }

    /// The version, e.g. 13020 for 13.2.
    pub const fn version(&self) -> usize {
        self.version
    }

    /// Compiles `source` for `architecture`, e.g. `sm_90a`. `more` are further options of NVRTC.
    ///
    /// # Errors
    /// [`CudaFault::Compile`] with what the compiler said about `kernel`.
    pub fn compile(
        &self,
        kernel: &str,
        source: &str,
        architecture: &str,
        more: &[&str],
    ) -> Result<Cubin, CudaFault> {
        let text = CString::new(source).map_err(|_| CudaFault::Compile {
            kernel: kernel.to_owned(),
            log: "the source holds a zero byte".to_owned(),
        })?;
        let program = Program::new(&text)?;
        let mut options = vec![
            format!("--gpu-architecture={architecture}"),
            format!("--include-path={}", self.include.display()),
        ];
        options.extend(more.iter().map(|&option| option.to_owned()));
        // SAFETY: the program is alive.
        let compiled = unsafe { nvrtc::compile_program(program.0, &options) };
        let log = program.log();
        compiled.map_err(|error| CudaFault::Compile {
            kernel: kernel.to_owned(),
            log: format!("{:?}: {log}", error.0),
        })?;
        let code = program.code()?;
        Ok(Cubin { code, log })
    }
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn new(source: &CStr) -> Result<Self, CudaFault> {
        nvrtc::create_program(source, None)
            .map(Self)
            .map_err(|error| failed("nvrtcCreateProgram", error))
    }

    fn log(&self) -> String {
        // SAFETY: the program is alive.
        let log = unsafe { nvrtc::get_program_log(self.0) };
        let bytes = log
            .unwrap_or_default()
            .into_iter()
            .map(c_char::cast_unsigned);
        let bytes: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn code(&self) -> Result<Vec<u8>, CudaFault> {
        let mut size = 0;
        // SAFETY: the program is alive and compiled; the pointer is valid.
        let status = unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) };
        status
            .result()
            .map_err(|error| failed("nvrtcGetCUBINSize", error))?;
        let mut code = vec![0u8; size];
        // SAFETY: as above; the buffer has the size that the library asks for.
        let status = unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()) };
        status
            .result()
            .map_err(|error| failed("nvrtcGetCUBIN", error))?;
        Ok(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { nvrtc::destroy_program(self.0) };
    }
}

/// Folders that may hold the headers, the best first.
fn folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(library) = loaded("libnvrtc.so") {
        // lib -> include, lib64 -> include, targets/*/lib -> include.
        let parents = library.ancestors().skip(2).take(2);
        folders.extend(parents.map(|parent| parent.join("include")));
    }
    let variables = ["CUDA_PATH", "CUDA_HOME"]
        .into_iter()
        .filter_map(std::env::var_os);
    folders.extend(variables.map(|root| Path::new(&root).join("include")));
    folders.push(Path::new(TOOLKIT).join("include"));
    folders
}

/// The path of a library of this process whose file name begins with `name`.
fn loaded(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| library_of(line, name))
}

/// The path in a line of the memory map, if it is that of the library.
fn library_of(line: &str, name: &str) -> Option<PathBuf> {
    let path = Path::new(line.get(line.find('/')?..)?);
    let file = path.file_name()?.to_str()?;
    file.starts_with(name).then(|| path.to_owned())
}

fn list(folders: &[PathBuf]) -> String {
    let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    folders.join(", ")
}

fn failed(call: &'static str, error: NvrtcError) -> CudaFault {
    CudaFault::Call {
        library: Library::Nvrtc,
        call,
        reason: format!("{:?}", error.0),
    }
}

#[cfg(test)]
mod tests {
    use super::library_of;
    use std::path::Path;

    #[test]
    fn libraries_are_found_in_the_memory_map() {
        let line = "7f00-7f01 r-xp 00000000 fe:00 42   /opt/cuda 13/lib/libnvrtc.so.13.0.88";
        let found = library_of(line, "libnvrtc.so");
        assert_eq!(
            found.as_deref(),
            Some(Path::new("/opt/cuda 13/lib/libnvrtc.so.13.0.88"))
        );
        assert_eq!(library_of(line, "libnvrtc-builtins.so"), None);
        assert_eq!(
            library_of("7f00-7f01 rw-p 00000000 00:00 0", "libnvrtc.so"),
            None
        );
    }
}
