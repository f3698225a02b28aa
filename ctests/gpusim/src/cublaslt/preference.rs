//! What the heuristic is to look for, `cublasLtMatmulPreference*`.

use super::descriptor::{Attribute, Kind};
use super::status::answer;
use std::ffi::{c_int, c_void};

const SEARCH_MODE: c_int = 0;
const MAX_WORKSPACE_BYTES: c_int = 1;
const REDUCTION_SCHEME_MASK: c_int = 3;
/// A, B, C and D follow one another.
const MIN_ALIGNMENT_BYTES: c_int = 5;
const MAX_WAVES_COUNT: c_int = 9;
const IMPLEMENTATION_MASK: c_int = 12;

/// Sizes: 64 bytes in the headers of CUDA 12 and 13.0, 96 with the grouped averages. The header
/// calls those 32-bit; the library takes 8 bytes and nothing else.
static PREFERENCE: Kind = Kind {
    name: "cublasLtMatmulPreference",
    magic: 0x5052_4546,
    sizes: &[64, 96],
    attributes: &[
        Attribute::new(MAX_WORKSPACE_BYTES, 8, 0),
        Attribute::new(IMPLEMENTATION_MASK, 8, u64::MAX),
        Attribute::new(SEARCH_MODE, 4, 0),
        Attribute::new(REDUCTION_SCHEME_MASK, 4, 7),
        Attribute::new(5, 4, 256),
        Attribute::new(6, 4, 256),
        Attribute::new(7, 4, 256),
        Attribute::new(8, 4, 256),
        Attribute::new(MAX_WAVES_COUNT, 4, 0),
        Attribute::since(130_401, 13, 8, 0),
        Attribute::since(130_401, 14, 8, 0),
        Attribute::since(130_401, 15, 8, 0),
    ],
};

/// What a preference says, still unchecked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preference {
    pub search_mode: u32,
    pub max_workspace_bytes: u64,
    pub reduction_scheme_mask: u32,
    /// Of A, B, C and D.
    pub min_alignment_bytes: [u32; 4],
    /// 0 is any.
    pub max_waves_count: f32,
    pub implementation_mask: u64,
}

impl Preference {
    /// # Safety
    /// `source` must be NULL or a descriptor.
    pub unsafe fn read(source: *const c_void) -> Result<Preference, c_int> {
        // SAFETY: as promised.
        let descriptor = unsafe { PREFERENCE.read(source)? };
        let get = |id| descriptor.get(&PREFERENCE, id);
        let alignment = |matrix| get(MIN_ALIGNMENT_BYTES + matrix) as u32;
        Ok(Preference {
            search_mode: get(SEARCH_MODE) as u32,
            max_workspace_bytes: get(MAX_WORKSPACE_BYTES),
            reduction_scheme_mask: get(REDUCTION_SCHEME_MASK) as u32,
            min_alignment_bytes: [alignment(0), alignment(1), alignment(2), alignment(3)],
            max_waves_count: f32::from_bits(get(MAX_WAVES_COUNT) as u32),
            implementation_mask: get(IMPLEMENTATION_MASK),
        })
    }

    /// What a matmul without an algorithm looks for.
    pub fn of_launch(max_workspace_bytes: u64, addresses: [u64; 4]) -> Preference {
        Preference {
            search_mode: 0,
            max_workspace_bytes,
            reduction_scheme_mask: 7,
            min_alignment_bytes: addresses.map(|address| 1 << address.trailing_zeros().min(8)),
            max_waves_count: 0.0,
            implementation_mask: u64::MAX,
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceInit_internal(
    preference: *mut c_void,
    bytes: usize,
) -> c_int {
    // SAFETY: the caller's memory, as the header asks.
    let init = || unsafe { PREFERENCE.init(preference, bytes, &[]) };
    answer("cublasLtMatmulPreferenceInit_internal", init)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceCreate(preference: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's memory, as the header asks.
    let create = || unsafe { PREFERENCE.create(preference, &[]) };
    answer("cublasLtMatmulPreferenceCreate", create)
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtMatmulPreferenceDestroy(preference: *mut c_void) -> c_int {
    answer("cublasLtMatmulPreferenceDestroy", || PREFERENCE.destroy(preference))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    preference: *mut c_void,
    attribute: c_int,
    buffer: *const c_void,
    bytes: usize,
) -> c_int {
    // SAFETY: the caller's memory, as the header asks.
    let set = || unsafe { PREFERENCE.set(preference, attribute, buffer, bytes) };
    answer("cublasLtMatmulPreferenceSetAttribute", set)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceGetAttribute(
    preference: *const c_void,
    attribute: c_int,
    buffer: *mut c_void,
    bytes: usize,
    written: *mut usize,
) -> c_int {
    // SAFETY: the caller's memory, as the header asks.
    let get = || unsafe { PREFERENCE.get(preference, attribute, buffer, bytes, written) };
    answer("cublasLtMatmulPreferenceGetAttribute", get)
}
