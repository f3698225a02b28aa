//! The CPU's rounding and flush-to-zero modes belong to the engine's thread. A row's bits must not
//! depend on them, so work runs in the default mode and the thread gets its own back.

/// Runs the body with rounding to nearest even and denormals kept.
pub(super) fn in_default_mode<T>(body: impl FnOnce() -> T) -> T {
    let _restored = Restored { mode: mode::read() };
    mode::write(mode::DEFAULT);
    body()
}

struct Restored {
    mode: mode::Mode,
}

impl Drop for Restored {
    fn drop(&mut self) {
        mode::write(self.mode);
    }
}

#[cfg(target_arch = "x86_64")]
mod mode {
    use std::arch::asm;

    pub(super) type Mode = u32;
    /// All exceptions masked, nearest even, no flush (Intel SDM volume 1, section 10.2.3).
    pub(super) const DEFAULT: Mode = 0x1f80;

    pub(super) fn read() -> Mode {
        let mut mode: Mode = 0;
        // SAFETY: stores the register into a local.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mode, options(nostack, preserves_flags)) };
        mode
    }

    pub(super) fn write(mode: Mode) {
        // SAFETY: a value that was read before, or the default.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mode, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod mode {
    use std::arch::asm;

    pub(super) type Mode = u64;
    /// Nearest even, no flush (Arm ARM, FPCR).
    pub(super) const DEFAULT: Mode = 0;

    pub(super) fn read() -> Mode {
        let mode: Mode;
        // SAFETY: reads a register that user code may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) mode, options(nomem, nostack)) };
        mode
    }

    pub(super) fn write(mode: Mode) {
        // SAFETY: a value that was read before, or the default.
        unsafe { asm!("msr fpcr, {}", in(reg) mode, options(nomem, nostack)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod mode {
    pub(super) type Mode = ();
    pub(super) const DEFAULT: Mode = ();

    pub(super) fn read() -> Mode {}

    pub(super) fn write((): Mode) {}
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_threads_own_mode_comes_back() {
        const FLUSH_AND_ROUND_DOWN: u32 = 0x1f80 | 1 << 15 | 1 << 6 | 1 << 13;
        mode::write(FLUSH_AND_ROUND_DOWN);
        let inside = in_default_mode(mode::read);
        let after = mode::read();
        mode::write(mode::DEFAULT);
        assert_eq!((inside, after & !0x3f), (mode::DEFAULT, FLUSH_AND_ROUND_DOWN));
    }
}
