//! Forward on the host against f64: every mix of dtypes, shapes at the edges of tiles, and what
//! must not change.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/case.rs"]
mod case;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/reference.rs"]
mod reference;

use case::{Case, Elements, Random, host, instruction_sets, prefill, square};
use xqkv::backend::{Arithmetic, InstructionSet};
use xqkv::dtype::{Dtype, WeightDtype};
use xqkv::spec::{Part, Spec};

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];
fn rows(count: i64, width: i64, dtype: Dtype, seed: u64) -> Elements {
    Elements::rounded(&Random::new(seed).numbers((count * width) as usize), dtype)
}

/// Runs prefill and checks each output's error against its bound, and the counts against shapes.
fn check(case: &Case, set: InstructionSet, counts: (i64, i64), input: Dtype, out: Dtype) {
    let spec = &case.spec;
    let projection = case.whole(&host(2, Some(set)).unwrap());
    let decoder = rows(counts.0, spec.decoder_width, input, 1);
    let encoder = rows(counts.1, spec.encoder_width, input, 2);
    let (outputs, executed) = prefill(&[projection], &decoder, &encoder, out);
    for part in Part::ALL {
        let given = if part == Part::Query { &decoder } else { &encoder };
        let exact = case.exact(part, given);
        for (index, number) in outputs.0[part].numbers().into_iter().enumerate() {
            let error = exact.error_over_bound(index, f64::from(number), out);
            assert!(error <= 1.0, "{part:?} {index}: {number}, {error} of the bound, {spec:?}");
        }
    }
    let rows = |part: Part| if part == Part::Query { counts.0 } else { counts.1 };
    let necessary = |part: Part| rows(part) * spec.inputs(part) * spec.outputs(part);
    let lanes = set.lanes() as i64;
    // Dot products of bfloat16 take steps in pairs.
    let is_paired = set.arithmetic() == Arithmetic::PairedDot
        && (spec.weight_dtype, input) == (WeightDtype::Bf16, Dtype::Bf16);
    let group = if is_paired { 2 } else { 1 };
    let multiplied = |part: Part| {
        let steps = spec.inputs(part) + (-spec.inputs(part)).rem_euclid(group);
        rows(part) * steps * (spec.outputs(part) + (-spec.outputs(part)).rem_euclid(lanes))
    };
    let multiply_adds: i64 = Part::ALL.map(necessary).iter().sum();
    let with_padding: i64 = Part::ALL.map(multiplied).iter().sum();
    assert_eq!(executed[0].multiply_adds, multiply_adds as u64);
    assert_eq!(executed[0].padding_multiply_adds, (with_padding - multiply_adds) as u64);
}

#[test]
fn every_mix_of_dtypes_is_within_its_bound_on_every_instruction_set() {
    for set in instruction_sets() {
        for weights in DTYPES {
            let case = Case::new(square(300, 3, 36, weights), 3);
            for input in DTYPES {
                for out in DTYPES {
                    check(&case, set, (3, 21), input, out);
                }
            }
        }
    }
}

#[test]
fn shapes_at_the_edges_of_tiles_are_within_their_bounds() {
    for set in instruction_sets() {
        for inner in [1, 2, 3, 255, 256, 257, 384] {
            for head_width in [1, 15, 16, 31, 32, 33, 64, 128, 160] {
                let case = Case::new(square(inner, 2, head_width, Dtype::Bf16), inner as u64);
                for counts in [(1, 2), (3, 4), (5, 7), (13, 25), (63, 64), (96, 97), (65, 129)] {
                    check(&case, set, counts, Dtype::F32, Dtype::F32);
                }
                check(&case, set, (14, 2), Dtype::Bf16, Dtype::F32);
            }
        }
    }
}

#[test]
fn widths_heads_and_biases_may_differ_as_models_do() {
    for (query_heads, key_value_heads, bias) in [
        (8, 2, [false; 3]),
        (4, 4, [true; 3]),
        (6, 6, [true, false, true]),
        (5, 1, [false, true, false]),
    ] {
        let mut spec = square(144, query_heads, 36, Dtype::F16);
        (spec.encoder_width, spec.value_head_width) = (200, 52);
        spec.key_value_heads = key_value_heads;
        (spec.bias.query, spec.bias.key, spec.bias.value) = (bias[0], bias[1], bias[2]);
        let case = Case::new(spec, 9);
        for set in instruction_sets() {
            check(&case, set, (5, 77), Dtype::Bf16, Dtype::F32);
        }
    }
}

/// Runs prefill of three rows, the middle one with this number at its fifth place.
fn with_planted(number: f32) -> Vec<f32> {
    let case = Case::new(square(64, 2, 20, Dtype::F32), 4);
    let mut decoder = Random::new(5).numbers(3 * 64);
    decoder[64 + 5] = number;
    let decoder = Elements::rounded(&decoder, Dtype::F32);
    let encoder = rows(1, 64, Dtype::F32, 6);
    let projection = case.whole(&host(1, None).unwrap());
    prefill(&[projection], &decoder, &encoder, Dtype::F32).0.0.query.numbers()
}

#[test]
fn infinity_and_not_a_number_stay_in_their_row() {
    let ordinary = with_planted(0.5);
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (index, result) in with_planted(number).into_iter().enumerate() {
            let is_planted = (40..80).contains(&index);
            assert_eq!(result.is_finite(), !is_planted);
            assert!(is_planted || result.to_bits() == ordinary[index].to_bits());
        }
    }
}

#[test]
fn denormals_are_kept_and_the_thread_s_modes_neither_matter_nor_change() {
    let spec = Spec { query_heads: 1, key_value_heads: 1, ..square(2, 1, 1, Dtype::F16) };
    let case = Case::new(spec, 8);
    let projection = || vec![case.whole(&host(1, None).unwrap())];
    let tiny = Elements::rounded(&[1.0e-40, 2.0e-40], Dtype::F32);
    let run = || prefill(&projection(), &tiny, &tiny, Dtype::F32).0.0.key.numbers()[0].to_bits();
    let plain = run();
    assert!((1..0x0080_0000).contains(&(plain & 0x7fff_ffff)), "not a denormal");
    #[cfg(target_arch = "x86_64")]
    {
        // Flush to zero, denormals are zero, round down: Intel SDM volume 1, section 10.2.3.
        const MODE: u32 = 0x1f80 | 1 << 15 | 1 << 6 | 1 << 13;
        set_mode(MODE);
        let (bits, mode) = (run(), mode());
        set_mode(0x1f80);
        assert_eq!((bits, mode & !0x3f), (plain, MODE));
    }
}

#[cfg(target_arch = "x86_64")]
fn mode() -> u32 {
    let mut mode = 0u32;
    // SAFETY: stores the register into a local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mode, options(nostack)) };
    mode
}

#[cfg(target_arch = "x86_64")]
fn set_mode(mode: u32) {
    // SAFETY: a mode without reserved bits.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const mode, options(nostack)) };
}

#[test]
fn scales_multiply_the_sum_and_its_bias() {
    let mut spec = square(96, 2, 24, Dtype::F32);
    let plain = Case::new(spec.clone(), 10);
    (spec.scale.query, spec.scale.key, spec.scale.value) = (0.125, -2.0, 4.0);
    let scaled = Case::new(spec, 10);
    let backend = host(1, None).unwrap();
    let input = rows(4, 96, Dtype::F32, 11);
    let run = |case: &Case| prefill(&[case.whole(&backend)], &input, &input, Dtype::F32).0;
    let (plain, scaled) = (run(&plain), run(&scaled));
    for (part, scale) in Part::ALL.into_iter().zip([0.125f32, -2.0, 4.0]) {
        let expected: Vec<f32> = plain.0[part].numbers().iter().map(|x| x * scale).collect();
        assert_eq!(scaled.0[part].numbers(), expected);
    }
}
