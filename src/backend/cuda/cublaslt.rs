//! cuBLASLt: the functions we call, and its descriptors as plain bytes.
//!
//! A descriptor is made once, in memory of ours, by the `_internal` functions that its header's
//! inline ones call. It holds no pointer into itself, so a copy of its bytes is a descriptor as
//! well: a forward copies a plan's onto its stack, and sets there what differs between calls. The
//! libraries of 12.1, 12.8 and 13.10 take these sizes for every kind, and leave what they do not
//! use.

use crate::dtype::Dtype;
use crate::error::{Error, Status, ensure};
use crate::library::{Library, Names, function_table};
use cudarc::cublaslt::sys;
use once_cell::sync::OnceCell;
use std::ffi::{CStr, c_char, c_int, c_void};

const NAMES: Names = Names {
    title: "cuBLASLt",
    variable: "XQKV_CUBLASLT_LIBRARY",
    sonames: &[c"libcublasLt.so.13", c"libcublasLt.so.12"],
};

/// Every attribute we set is in the headers of 12.0.
const OLDEST: usize = 120_000;

type Set<D> = unsafe extern "C" fn(*mut D, c_int, *const c_void, usize) -> c_int;

function_table! {
    /// Functions of libcublasLt, by the names they have in cublasLt.h.
    Functions {
        create = c"cublasLtCreate" (*mut *mut c_void);
        destroy = c"cublasLtDestroy" (*mut c_void);
        operation_init =
            c"cublasLtMatmulDescInit_internal" (*mut Operation, usize, c_int, c_int);
        operation_set =
            c"cublasLtMatmulDescSetAttribute" (*mut Operation, c_int, *const c_void, usize);
        layout_init =
            c"cublasLtMatrixLayoutInit_internal" (*mut Layout, usize, c_int, u64, u64, i64);
        layout_set =
            c"cublasLtMatrixLayoutSetAttribute" (*mut Layout, c_int, *const c_void, usize);
        preference_init = c"cublasLtMatmulPreferenceInit_internal" (*mut Preference, usize);
        preference_set =
            c"cublasLtMatmulPreferenceSetAttribute" (*mut Preference, c_int, *const c_void, usize);
        heuristic = c"cublasLtMatmulAlgoGetHeuristic" (
            *mut c_void, *const Operation, *const Layout, *const Layout,
            *const Layout, *const Layout, *const Preference, c_int, *mut Candidate,
            *mut c_int,
        );
        check = c"cublasLtMatmulAlgoCheck" (
            *mut c_void, *const Operation, *const Layout, *const Layout,
            *const Layout, *const Layout, *const Algorithm, *mut Candidate,
        );
        matmul = c"cublasLtMatmul" (
            *mut c_void, *const Operation, *const c_void, *const c_void, *const Layout,
            *const c_void, *const Layout, *const c_void, *const c_void, *const Layout,
            *mut c_void, *const Layout, *const Algorithm, *mut c_void, usize, *mut c_void,
        );
    }
}

/// A descriptor of so many words, which is at least what any header has for its kind.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub(super) struct Descriptor<const WORDS: usize>([u64; WORDS]);

/// What a matmul computes.
pub(super) type Operation = Descriptor<32>;
/// How a matrix lies in memory.
pub(super) type Layout = Descriptor<16>;
/// What the heuristic goes by.
pub(super) type Preference = Descriptor<16>;

/// How a matmul is carried out; opaque.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Algorithm([u64; 8]);

/// An answer of the heuristic: cublasLtMatmulHeuristicResult_t, with its status as an integer.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) algorithm: Algorithm,
    pub(super) workspace_bytes: usize,
    pub(super) status: c_int,
    pub(super) waves: f32,
    reserved: [c_int; 4],
}

impl Candidate {
    pub(super) const NONE: Candidate = Candidate {
        algorithm: Algorithm([0; 8]),
        workspace_bytes: 0,
        status: 0,
        waves: 0.0,
        reserved: [0; 4],
    };
}

/// The loaded library.
pub(super) struct CublasLt {
    pub(super) functions: Functions,
    status_name: unsafe extern "C" fn(c_int) -> *const c_char,
    pub(super) version: usize,
}

/// The library, loaded at its first use.
pub(super) fn cublaslt() -> Result<&'static CublasLt, Error> {
    static CUBLASLT: OnceCell<CublasLt> = OnceCell::new();
    CUBLASLT.get_or_try_init(|| {
        let library = Library::open(&NAMES)?;
        let functions = Functions::load(&library)?;
        let get_version = library.symbol(c"cublasLtGetVersion")?;
        let status_name = library.symbol(c"cublasLtGetStatusName")?;
        // SAFETY: documented as size_t cublasLtGetVersion(void).
        let version = unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> usize>(get_version)()
        };
        ensure!(
            version >= OLDEST,
            LibraryUnsuitable,
            "{} is of version {version}, and {OLDEST} is needed; install a newer cuBLAS",
            library.name()
        );
        // SAFETY: documented as const char *cublasLtGetStatusName(cublasStatus_t).
        let status_name = unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> *const c_char>(
                status_name,
            )
        };
        Ok(CublasLt { functions, status_name, version })
    })
}

impl CublasLt {
    /// An error for any status but success, in the library's words.
    #[inline]
    pub(super) fn check(&self, function: &str, status: c_int) -> Result<(), Error> {
        match status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS as c_int {
            true => Ok(()),
            false => Err(self.failure(function, status)),
        }
    }

    #[cold]
    fn failure(&self, function: &str, status: c_int) -> Error {
        let kind = match status == sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED as c_int {
            true => Status::OutOfMemory,
            false => Status::DeviceRefused,
        };
        // SAFETY: takes any number, and answers a static text.
        let name = unsafe { (self.status_name)(status) };
        let name = match name.is_null() {
            true => "no name".into(),
            // SAFETY: as above.
            false => unsafe { CStr::from_ptr(name) }.to_string_lossy(),
        };
        Error::new(kind, format!("{function} answered {status} ({name})"))
    }

    /// D = alpha · op(A) · op(B) + beta · C with accumulation in f32.
    pub(super) fn operation(&self, allows_tensor_float: bool) -> Result<Operation, Error> {
        use sys::cublasComputeType_t as compute;
        let compute = match allows_tensor_float {
            true => compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => compute::CUBLAS_COMPUTE_32F,
        };
        let mut made = Descriptor([0; 32]);
        let bytes = size_of::<Operation>();
        let scale = sys::cudaDataType_t::CUDA_R_32F as c_int;
        // SAFETY: as many writable bytes as the size says.
        let status =
            unsafe { (self.functions.operation_init)(&mut made, bytes, compute as c_int, scale) };
        self.check("cublasLtMatmulDescInit", status).map(|()| made)
    }

    /// A matrix in column order: `rows` neighbouring elements, columns `stride` elements apart.
    pub(super) fn layout(
        &self,
        dtype: Dtype,
        rows: usize,
        columns: usize,
        stride: i64,
    ) -> Result<Layout, Error> {
        let mut made = Descriptor([0; 16]);
        let (bytes, rows, columns) = (size_of::<Layout>(), rows as u64, columns as u64);
        // SAFETY: as many writable bytes as the size says.
        let status = unsafe {
            (self.functions.layout_init)(&mut made, bytes, data_type(dtype), rows, columns, stride)
        };
        self.check("cublasLtMatrixLayoutInit", status).map(|()| made)
    }

    /// What the heuristic is to go by; empty so far.
    pub(super) fn preference(&self) -> Result<Preference, Error> {
        let mut made = Descriptor([0; 16]);
        // SAFETY: as many writable bytes as the size says.
        let status =
            unsafe { (self.functions.preference_init)(&mut made, size_of::<Preference>()) };
        self.check("cublasLtMatmulPreferenceInit", status).map(|()| made)
    }

    pub(super) fn set_operation<T: Copy>(
        &self,
        operation: &mut Operation,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: T,
    ) -> Result<(), Error> {
        let status = set(self.functions.operation_set, operation, attribute as c_int, value);
        self.check("cublasLtMatmulDescSetAttribute", status)
    }

    pub(super) fn set_layout<T: Copy>(
        &self,
        layout: &mut Layout,
        attribute: sys::cublasLtMatrixLayoutAttribute_t,
        value: T,
    ) -> Result<(), Error> {
        let status = set(self.functions.layout_set, layout, attribute as c_int, value);
        self.check("cublasLtMatrixLayoutSetAttribute", status)
    }

    pub(super) fn set_preference<T: Copy>(
        &self,
        preference: &mut Preference,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: T,
    ) -> Result<(), Error> {
        let status = set(self.functions.preference_set, preference, attribute as c_int, value);
        self.check("cublasLtMatmulPreferenceSetAttribute", status)
    }
}

fn set<D, T: Copy>(function: Set<D>, descriptor: &mut D, attribute: c_int, value: T) -> c_int {
    // SAFETY: an initialised descriptor of the function's kind, and a value of as many bytes as
    // are named; a wrong size is refused.
    unsafe { function(descriptor, attribute, (&raw const value).cast(), size_of::<T>()) }
}

fn data_type(dtype: Dtype) -> c_int {
    let data_type = match dtype {
        Dtype::F32 => sys::cudaDataType_t::CUDA_R_32F,
        Dtype::F16 => sys::cudaDataType_t::CUDA_R_16F,
        Dtype::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    };
    data_type as c_int
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn a_candidate_lies_as_the_header_has_it() {
        type Theirs = sys::cublasLtMatmulHeuristicResult_t;
        assert_eq!(size_of::<Candidate>(), size_of::<Theirs>());
        assert_eq!(offset_of!(Candidate, workspace_bytes), offset_of!(Theirs, workspaceSize));
        assert_eq!(offset_of!(Candidate, status), offset_of!(Theirs, state));
        assert_eq!(offset_of!(Candidate, waves), offset_of!(Theirs, wavesCount));
        assert!(size_of::<Operation>() >= size_of::<sys::cublasLtMatmulDescOpaque_t>());
        // The headers of 13.1 and later have 14 words for a layout and 12 for a preference.
        assert!(size_of::<Layout>() >= 14 * 8 && size_of::<Preference>() >= 12 * 8);
    }
}
