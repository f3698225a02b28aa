//! The simulated algorithms: what each needs and costs, and the 64 bytes that name one, which can
//! be kept and used again with the same version of the library.

use super::problem::{COMPUTE_32F_FAST_TF32, Problem};
use super::status::{INVALID_VALUE, NOT_SUPPORTED, version};
use crate::reference::Format;
use std::ffi::{c_int, c_void};
use std::ptr;

pub const REDUCTION_NONE: u32 = 0;
pub const REDUCTION_COMPUTE_TYPE: u32 = 2;
const MAGIC: u32 = 0x5349_4D41;
/// Processors of the simulated device.
const PROCESSORS: u64 = 132;
/// The least of k that a part is worth.
const PART_MINIMUM: u64 = 64;

/// A family of algorithms. `rate` is multiply-adds per nanosecond and processor.
pub struct Family {
    pub id: c_int,
    pub tile_id: u32,
    pub tile: (u64, u64),
    /// Bytes to which all matrices must be aligned; 0 is one element.
    pub alignment: u64,
    pub rate: u64,
}

/// The tile ids are those of the header for the same tile.
pub static FAMILIES: [Family; 5] = [
    Family { id: 66, tile_id: 20, tile: (128, 128), alignment: 16, rate: 1024 },
    Family { id: 67, tile_id: 15, tile: (64, 64), alignment: 16, rate: 800 },
    Family { id: 68, tile_id: 13, tile: (64, 32), alignment: 16, rate: 600 },
    Family { id: 20, tile_id: 15, tile: (64, 64), alignment: 0, rate: 128 },
    Family { id: 21, tile_id: 11, tile: (32, 32), alignment: 0, rate: 100 },
];

/// An algorithm: a family, and into how many parts k is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm {
    pub id: c_int,
    pub splits: u32,
    pub reduction: u32,
    /// What it was made for: types, and by the heuristic also the epilogue.
    pub types: u64,
    pub epilogue: u32,
}

impl Algorithm {
    /// Every algorithm that there is for the problem, whether it fits or not.
    pub fn all(problem: &Problem) -> impl Iterator<Item = Algorithm> {
        let types = types(problem);
        let epilogue = problem.operation.epilogue;
        FAMILIES.iter().flat_map(move |family| {
            [1, 2, 4, 8].map(|splits| Algorithm {
                id: family.id,
                splits,
                reduction: if splits == 1 { REDUCTION_NONE } else { REDUCTION_COMPUTE_TYPE },
                types,
                epilogue,
            })
        })
    }

    pub fn family(&self) -> &'static Family {
        FAMILIES.iter().find(|family| family.id == self.id).unwrap_or(&FAMILIES[0])
    }

    /// Bytes to which a matrix of such elements must be aligned.
    pub fn alignment(&self, element_bytes: u64) -> u64 {
        self.family().alignment.max(element_bytes)
    }

    /// Sums of all parts, kept until they are added.
    pub fn workspace_bytes(&self, problem: &Problem) -> u64 {
        match self.splits {
            1 => 0,
            splits => problem.batch * problem.m * problem.n * 4 * u64::from(splits),
        }
    }

    /// Whether the problem's strides and k suit it.
    pub fn suits(&self, problem: &Problem) -> bool {
        let aligned = problem
            .matrices()
            .iter()
            .all(|matrix| matrix.keeps_alignment(self.alignment(matrix.format.bytes())));
        let bias_bytes =
            problem.operation.bias_batch_stride.unsigned_abs() * problem.d.format.bytes();
        let bias = !problem.biased
            || (bias_bytes.is_multiple_of(self.bias_alignment(problem))
                && problem.operation.bias.is_multiple_of(self.bias_alignment(problem)));
        let parts = self.splits == 1 || problem.k >= PART_MINIMUM * u64::from(self.splits);
        aligned && bias && parts
    }

    pub fn bias_alignment(&self, problem: &Problem) -> u64 {
        self.alignment(problem.d.format.bytes())
    }

    fn tiles(&self, problem: &Problem) -> u64 {
        let (rows, columns) = self.family().tile;
        problem.m.div_ceil(rows)
            * problem.n.div_ceil(columns)
            * problem.batch
            * u64::from(self.splits)
    }

    /// How often the device is filled.
    pub fn waves(&self, problem: &Problem) -> f32 {
        let target = problem.operation.processors;
        let processors = if target > 0 { target as u64 } else { PROCESSORS };
        self.tiles(problem) as f32 / processors as f32
    }

    /// The duration that the heuristic expects, in nanoseconds.
    pub fn estimate_ns(&self, problem: &Problem) -> u64 {
        let (rows, columns) = self.family().tile;
        let part = problem.k.div_ceil(u64::from(self.splits));
        let rounds = self.waves(problem).ceil() as u64;
        let reduction =
            self.workspace_bytes(problem) / 1000 + if self.splits == 1 { 0 } else { 1000 };
        2000 + rounds * rows * columns * part / self.family().rate + reduction
    }

    /// The duration that events measure. It differs from the estimate by up to a fifth, the same
    /// for the same problem, so that measuring can find better than the heuristic's first.
    pub fn cost_ns(&self, problem: &Problem) -> u64 {
        let seed = [problem.m, problem.n, problem.k, self.id as u64, u64::from(self.splits)];
        let mixed = seed.iter().fold(0x9E37_79B9_7F4A_7C15u64, |mixed, value| {
            (mixed ^ value).wrapping_mul(0xBF58_476D_1CE4_E5B9).rotate_left(29)
        });
        self.estimate_ns(problem) * (80 + mixed % 41) / 100
    }

    /// How it multiplies and adds, in the header's flags.
    pub fn numerics(&self) -> u64 {
        const FMA: u64 = 1;
        const HMMA: u64 = 2;
        const SUM_32F: u64 = 2 << 8;
        let narrow = if self.family().alignment > 0 { HMMA } else { FMA };
        let tf32 = self.types & 0xFF == COMPUTE_32F_FAST_TF32 as u64;
        SUM_32F
            | match self.format_of(0) {
                Format::F16 => narrow | 1 << 16,
                Format::Bf16 => narrow | 2 << 16,
                Format::F32 if tf32 => HMMA | 4 << 16,
                Format::F32 => FMA | 8 << 16,
            }
    }

    /// The format of the matrix, 0 to 3 for A to D.
    pub fn format_of(&self, matrix: u32) -> Format {
        Format::from_cuda((self.types >> (16 + 8 * matrix)) as u32 & 0xFF).unwrap_or(Format::F32)
    }

    pub fn to_words(self) -> [u64; 8] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            pair(MAGIC, self.id as u32),
            pair(self.splits, self.reduction),
            self.types,
            pair(self.epilogue, version() as u32),
            0,
            0,
            0,
            0,
        ]
    }

    /// The algorithm in the caller's 64 bytes, if this version made them.
    ///
    /// # Safety
    /// `source` must be NULL or have 64 readable bytes.
    pub unsafe fn read(source: *const c_void) -> Result<Algorithm, c_int> {
        if source.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: as promised; the caller's bytes need no alignment here.
        let words = unsafe { ptr::read_unaligned(source.cast::<[u64; 8]>()) };
        let (low, high) = (|word: u64| word as u32, |word: u64| (word >> 32) as u32);
        let known = FAMILIES.iter().any(|family| family.id == high(words[0]) as c_int);
        let ours = low(words[0]) == MAGIC && high(words[3]) == version() as u32;
        match ours && known {
            true => Ok(Algorithm {
                id: high(words[0]) as c_int,
                splits: low(words[1]),
                reduction: high(words[1]),
                types: words[2],
                epilogue: low(words[3]),
            }),
            false => Err(INVALID_VALUE),
        }
    }

    /// Whether it was made for such a problem and can do it.
    pub fn check(&self, problem: &Problem) -> Result<(), c_int> {
        let epilogue = self.epilogue == 0 || self.epilogue == problem.operation.epilogue;
        if self.types != types(problem) || !epilogue {
            return Err(INVALID_VALUE);
        }
        let whole = self.splits == 1 && self.reduction == REDUCTION_NONE;
        let cut = [2, 4, 8].contains(&self.splits) && self.reduction == REDUCTION_COMPUTE_TYPE;
        match (whole || cut) && self.suits(problem) {
            true => Ok(()),
            false => Err(NOT_SUPPORTED),
        }
    }
}

/// The types in one number: compute, scale, and those of the four matrices.
pub fn pack_types(compute: c_int, scale: c_int, matrices: [u32; 4]) -> u64 {
    let head = (compute as u64 & 0xFF) | (scale as u64 & 0xFF) << 8;
    let matrices = matrices.iter().rev().fold(0, |packed, kind| packed << 8 | u64::from(*kind));
    head | matrices << 16
}

/// The types of a problem.
fn types(problem: &Problem) -> u64 {
    let matrices = problem.matrices().map(|matrix| matrix.layout.data_type);
    pack_types(problem.operation.compute_type, problem.operation.scale_type, matrices)
}
