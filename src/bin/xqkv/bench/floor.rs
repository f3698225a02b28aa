//! What the machine can do at this moment: bytes that threads read from memory, and multiply-adds
//! of f32 or of integers that they make, each with loops that do nothing else.

use std::hint::black_box;
use std::thread;
use std::time::Instant;
use xqkv::dtype::WeightDtype;

/// Rounds of one measurement of arithmetic: about 2 ms.
const ARITHMETIC_ROUNDS: usize = 400_000;
/// Sums of a round: more than an addition takes in cycles on all units.
const SUMS: usize = 12;
const HUGE_PAGE: usize = 2 << 20;

/// Memory to read, and how many threads share it.
pub struct Floor {
    threads: usize,
    words: Vec<u64>,
    /// Of f32.
    arithmetic: Arithmetic,
    /// Of 8-bit integers, whose sums have 32 bits.
    integers: Arithmetic,
}

/// Seconds for a byte and for a multiply-add.
#[derive(Clone, Copy)]
pub struct Rates {
    byte: f64,
    multiply_add: f64,
}

/// What a call cannot do without.
#[derive(Clone, Copy)]
pub struct Necessary {
    pub bytes: f64,
    pub multiply_adds: f64,
}

/// Makes so many multiply-adds that wait for none of each other.
#[derive(Clone, Copy)]
struct Arithmetic {
    run: fn(),
    count: usize,
}

impl Floor {
    pub fn new(threads: usize, bytes: usize) -> Self {
        let mut words = Vec::with_capacity((bytes + HUGE_PAGE) / 8);
        // SAFETY: advice about memory of ours; where it is not known nothing changes.
        unsafe { libc::madvise(aligned(words.as_mut_ptr()).cast(), bytes, libc::MADV_HUGEPAGE) };
        words.resize(bytes / 8, 1);
        Floor { threads, words, arithmetic: arithmetic(), integers: integers() }
    }

    /// What there is for weights of a dtype.
    pub fn measure(&self, weights: WeightDtype) -> Rates {
        let each = self.words.len().div_ceil(self.threads);
        let parts = self.words.chunks(each);
        let reading = seconds(parts.map(|part| move || _ = black_box(sum(part))));
        let is_integer = weights.element().is_none();
        let Arithmetic { run, count } = if is_integer { self.integers } else { self.arithmetic };
        let adding = seconds((0..self.threads).map(|_| run));
        Rates {
            byte: reading / (8 * self.words.len()) as f64,
            multiply_add: adding / (count * self.threads) as f64,
        }
    }
}

impl Rates {
    /// The slower of the two.
    pub fn seconds(self, necessary: Necessary) -> f64 {
        (self.byte * necessary.bytes).max(self.multiply_add * necessary.multiply_adds)
    }
}

/// The first huge page's beginning.
fn aligned(words: *mut u64) -> *mut u64 {
    words.map_addr(|address| address.next_multiple_of(HUGE_PAGE))
}

/// How long bodies take on a thread each, of which this is one.
fn seconds(mut bodies: impl Iterator<Item = impl FnOnce() + Send>) -> f64 {
    let own = bodies.next();
    thread::scope(|scope| {
        let threads: Vec<_> = bodies.map(|body| scope.spawn(body)).collect();
        let begun = Instant::now();
        own.into_iter().for_each(|body| body());
        threads.into_iter().for_each(|thread| thread.join().expect("it only reads and adds"));
        begun.elapsed().as_secs_f64()
    })
}

/// Reads all words, eight sums at a time.
fn sum(words: &[u64]) -> u64 {
    let (chunks, _) = words.as_chunks::<32>();
    let mut sums = [0_u64; 32];
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

#[cfg(target_arch = "x86_64")]
fn arithmetic() -> Arithmetic {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has it.
        Arithmetic { run: || unsafe { avx512() }, count: ARITHMETIC_ROUNDS * SUMS * 16 }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: as above.
        Arithmetic { run: || unsafe { avx2() }, count: ARITHMETIC_ROUNDS * SUMS * 8 }
    } else {
        PORTABLE
    }
}

#[cfg(target_arch = "x86_64")]
fn integers() -> Arithmetic {
    let has_bytes = is_x86_feature_detected!("avx512bw");
    let (run, lanes): (fn(), _) = if has_bytes && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the CPU has it.
        (|| unsafe { integers_avx512vnni() }, 64)
    } else if has_bytes {
        // SAFETY: as above.
        (|| unsafe { integers_avx512() }, 32)
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        (|| unsafe { integers_avx2() }, 16)
    } else {
        return PORTABLE;
    };
    Arithmetic { run, count: ARITHMETIC_ROUNDS * SUMS * lanes }
}

#[cfg(not(target_arch = "x86_64"))]
fn arithmetic() -> Arithmetic {
    PORTABLE
}

#[cfg(not(target_arch = "x86_64"))]
fn integers() -> Arithmetic {
    PORTABLE
}

/// Sums that wait for none of each other, in the vectors of one instruction set.
macro_rules! sums {
    ($name:ident, $features:literal, $vector:ty, $splat:expr, $add:expr) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name() {
            use std::arch::x86_64::*;
            let (factor, mut sums) = (black_box($splat), [$splat; SUMS]);
            for _ in 0..ARITHMETIC_ROUNDS {
                for sum in &mut sums {
                    *sum = $add(*sum, factor, factor);
                }
            }
            black_box::<[$vector; SUMS]>(sums);
        }
    };
}

sums!(avx2, "avx2,fma", __m256, _mm256_set1_ps(0.999), _mm256_fmadd_ps);
sums!(avx512, "avx512f", __m512, _mm512_set1_ps(0.999), _mm512_fmadd_ps);
// A product of the sum: one of two constants would be made once, before the loop.
sums!(integers_avx2, "avx2", __m256i, _mm256_set1_epi16(3), |sum, factor, _| {
    _mm256_add_epi32(sum, _mm256_madd_epi16(sum, factor))
});
sums!(integers_avx512, "avx512f,avx512bw", __m512i, _mm512_set1_epi16(3), |sum, factor, _| {
    _mm512_add_epi32(sum, _mm512_madd_epi16(sum, factor))
});
sums!(
    integers_avx512vnni,
    "avx512f,avx512bw,avx512vnni",
    __m512i,
    _mm512_set1_epi8(3),
    _mm512_dpbusd_epi32
);

const PORTABLE: Arithmetic = Arithmetic { run: portable, count: ARITHMETIC_ROUNDS * SUMS * 4 };

fn portable() {
    let (factor, mut sums) = (black_box(0.999_f32), [[1.0_f32; 4]; SUMS]);
    for _ in 0..ARITHMETIC_ROUNDS {
        sums.iter_mut().flatten().for_each(|sum| *sum = *sum * factor + factor);
    }
    black_box(sums);
}
