//! Which instruction sets there are, and which this CPU has.

use super::{Kernels, portable};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512bf16, avx512f, avx512vnni};
use crate::error::{Error, Status};

/// The vector instructions that a kernel was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// What every CPU of the target has; multiplies and adds round separately.
    Portable,
    /// 256-bit vectors with fused multiply-add, and conversions of binary16.
    Avx2,
    /// 512-bit vectors with fused multiply-add.
    Avx512,
    /// The same, with dot products of bfloat16, which take denormals for zero.
    Avx512Bf16,
    /// 128-bit vectors of 64-bit ARM, with fused multiply-add.
    Neon,
}

/// What the bits of a product depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Each multiplication rounds, and so does each addition.
    RoundsTwice = 0,
    /// Each step rounds once.
    Fused = 1,
    /// Two steps of bfloat16 at once, denormals taken for zero; other products as fused.
    PairedDot = 2,
}

impl InstructionSet {
    /// All there are, the best first.
    pub fn all() -> [InstructionSet; 5] {
        [
            InstructionSet::Avx512Bf16,
            InstructionSet::Avx512,
            InstructionSet::Avx2,
            InstructionSet::Neon,
            InstructionSet::Portable,
        ]
    }

    /// The one that XQKV_ISA names, or else the best that this CPU has.
    pub(in crate::backend::host) fn by_default() -> Result<Self, Error> {
        let Some(name) = std::env::var_os("XQKV_ISA").filter(|name| !name.is_empty()) else {
            return Ok(Self::best());
        };
        let named = Self::all().into_iter().find(|set| name == set.name());
        named.ok_or_else(|| {
            let names = Self::all().map(Self::name).join(", ");
            let message = format!("XQKV_ISA is {name:?}; use one of {names}, or unset it");
            Error::new(Status::InvalidArgument, message)
        })
    }

    /// Its name in the environment.
    fn name(self) -> &'static str {
        match self {
            InstructionSet::Portable => "portable",
            InstructionSet::Avx2 => "avx2",
            InstructionSet::Avx512 => "avx512",
            InstructionSet::Avx512Bf16 => "avx512_bf16",
            InstructionSet::Neon => "neon",
        }
    }

    /// The best that this CPU has.
    pub(in crate::backend::host) fn best() -> Self {
        let best = Self::all().into_iter().find(|set| set.is_available());
        best.unwrap_or(InstructionSet::Portable)
    }

    /// Outputs that are multiplied together, those of padding included.
    pub fn lanes(self) -> usize {
        self.kernels().map_or(0, |kernels| kernels.lanes)
    }

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        self.kernels().is_some()
    }

    /// What it does to the bits of a product.
    pub fn arithmetic(self) -> Arithmetic {
        match self {
            InstructionSet::Portable => Arithmetic::RoundsTwice,
            InstructionSet::Avx2 | InstructionSet::Avx512 | InstructionSet::Neon => {
                Arithmetic::Fused
            }
            InstructionSet::Avx512Bf16 => Arithmetic::PairedDot,
        }
    }

    /// Its kernels, if this CPU has it.
    #[cfg(target_arch = "x86_64")]
    pub(in crate::backend::host) fn kernels(self) -> Option<&'static Kernels> {
        match self {
            InstructionSet::Portable => Some(&portable::KERNELS),
            InstructionSet::Avx2 => has_avx2().then_some(&avx2::KERNELS),
            InstructionSet::Avx512 if has_avx512vnni() => Some(&avx512vnni::KERNELS),
            InstructionSet::Avx512 => has_avx512().then_some(&avx512f::KERNELS),
            InstructionSet::Avx512Bf16 => has_avx512bf16().then_some(&avx512bf16::KERNELS),
            InstructionSet::Neon => None,
        }
    }

    /// Its kernels, if this CPU has it.
    #[cfg(target_arch = "aarch64")]
    pub(in crate::backend::host) fn kernels(self) -> Option<&'static Kernels> {
        match self {
            InstructionSet::Portable => Some(&portable::KERNELS),
            InstructionSet::Neon => Some(&super::neon::KERNELS),
            _ => None,
        }
    }

    /// Its kernels, if this CPU has it.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(in crate::backend::host) fn kernels(self) -> Option<&'static Kernels> {
        (self == InstructionSet::Portable).then_some(&portable::KERNELS)
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512vnni() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512bf16() -> bool {
    has_avx512vnni() && is_x86_feature_detected!("avx512bf16")
}
