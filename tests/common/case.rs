//! A projection over random weights, its inputs in any dtype, and what it should give.

use super::reference::{Finish, Reference};
use std::sync::Arc;
use xqkv::backend::{self, Backend, Choice, InstructionSet, Lane, Numerics};
use xqkv::dtype::{Dtype, Element, WeightDtype, bf16, f16};
use xqkv::projection::{Call, DecoderSide, EncoderSide, Membership, Projection};
use xqkv::shard::{Range, Shard, Split};
use xqkv::spec::{Part, Parts, Spec};
use xqkv::stats::Counts;
use xqkv::view::{Base, Rows, Shape, Strides, Target, View};
use xqkv::weights::{Data, Extent, FusedOrder, Kind, Layout, Numbers, Source};

/// Numbers that are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// In [-1, 1), with 24 bits.
    pub fn number(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }
}

/// Elements of some dtype, and the numbers that they are.
#[derive(Clone)]
pub struct Elements {
    pub dtype: Dtype,
    pub bytes: Vec<u8>,
}

impl Elements {
    /// Numbers rounded to a dtype.
    pub fn rounded(numbers: &[f32], dtype: Dtype) -> Self {
        let mut bytes = Vec::new();
        for &number in numbers {
            match dtype {
                Dtype::F32 => number.append_to(&mut bytes),
                Dtype::F16 => f16::round(number).append_to(&mut bytes),
                Dtype::Bf16 => bf16::round(number).append_to(&mut bytes),
            }
        }
        Self { dtype, bytes }
    }

    /// All bits set: NaN in every dtype.
    pub fn poisoned(count: usize, dtype: Dtype) -> Self {
        Self { dtype, bytes: vec![0xff; count * dtype.bytes()] }
    }

    pub fn numbers(&self) -> Vec<f32> {
        let widen = |element: &[u8]| match self.dtype {
            Dtype::F32 => f32::from_bytes(element),
            Dtype::F16 => f16::from_bytes(element).to_f32(),
            Dtype::Bf16 => bf16::from_bytes(element).to_f32(),
        };
        self.bytes.chunks_exact(self.dtype.bytes()).map(widen).collect()
    }
}

/// A layer's weights and biases as they are stored, or f32 where integers are made of them; all
/// layers have the same.
pub struct Case {
    pub spec: Spec,
    weights: Parts<Elements>,
    biases: Parts<Vec<f32>>,
}

pub fn host(
    thread_count: usize,
    instruction_set: Option<InstructionSet>,
) -> Option<Arc<dyn Backend>> {
    backend::open(Choice::Host { thread_count, instruction_set, parallel_for: None }).ok()
}

/// The instruction sets that this CPU has; says which of the target's it lacks.
pub fn instruction_sets() -> Vec<InstructionSet> {
    let (has, lacks) = InstructionSet::all().into_iter().partition(|set| set.is_available());
    let lacks: Vec<InstructionSet> = lacks;
    println!("NOT RUN: this CPU does not have {lacks:?}");
    has
}

/// A spec of one layer with as many key/value as query heads.
pub fn square(
    inner: i64,
    heads: i64,
    head_width: i64,
    weight_dtype: impl Into<WeightDtype>,
) -> Spec {
    Spec {
        layer_count: 1,
        decoder_width: inner,
        encoder_width: inner,
        query_heads: heads,
        key_value_heads: heads,
        head_width,
        value_head_width: head_width,
        weight_dtype: weight_dtype.into(),
        bias: Parts { query: true, key: false, value: true },
        scale: Parts { query: 1.0, key: 1.0, value: 1.0 },
        norm: None,
    }
}

impl Case {
    pub fn new(spec: Spec, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut weight = |part: Part| {
            let count = (spec.outputs(part) * spec.inputs(part)) as usize;
            Elements::rounded(
                &random.numbers(count),
                spec.weight_dtype.element().unwrap_or(Dtype::F32),
            )
        };
        let weights = Parts {
            query: weight(Part::Query),
            key: weight(Part::Key),
            value: weight(Part::Value),
        };
        let mut bias = |part: Part| random.numbers(spec.outputs(part) as usize);
        let biases =
            Parts { query: bias(Part::Query), key: bias(Part::Key), value: bias(Part::Value) };
        Self { spec, weights, biases }
    }

    /// A rank's projection, loaded from the whole tensors.
    pub fn projection(&self, backend: &Arc<dyn Backend>, split: Split) -> Projection {
        self.member(backend, split, Membership::default())
    }

    /// One of several ranks' projections, which are made at the same time.
    pub fn member(
        &self,
        backend: &Arc<dyn Backend>,
        split: Split,
        membership: Membership,
    ) -> Projection {
        let (spec, numerics) = (self.spec.clone(), Numerics::default());
        let shard = Shard::cut(&spec, split, Range::default()).unwrap();
        let projection =
            Projection::new(backend.clone(), spec, shard, numerics, membership).unwrap();
        let mut update = projection.begin();
        let places = (0..self.spec.layer_count)
            .flat_map(|layer| Part::ALL.into_iter().map(move |part| (layer, part)));
        for (layer, part) in places {
            let columns = self.spec.inputs(part);
            let weight = &self.weights[part];
            update.put(layer, &[part], Kind::Weight, &source(weight, columns)).unwrap();
            if self.spec.bias[part] {
                let bias = Elements::rounded(&self.biases[part], Dtype::F32);
                update.put(layer, &[part], Kind::Bias, &source(&bias, 1)).unwrap();
            }
        }
        projection.commit(&update).unwrap();
        projection
    }

    pub fn whole(&self, backend: &Arc<dyn Backend>) -> Projection {
        self.projection(backend, Split::Even { rank: 0, rank_count: 1 })
    }

    /// The exact result of a part, before its scale.
    pub fn exact(&self, part: Part, rows: &Elements) -> Reference {
        let bias = self.spec.bias[part].then_some(&self.biases[part][..]);
        let inner = self.spec.inputs(part) as usize;
        let (weights, width) = (self.weights[part].numbers(), self.spec.width(part) as usize);
        let finish = Finish { scale: 1.0, norm: None };
        Reference::new(&rows.numbers(), inner, &weights, bias, width, &finish)
    }
}

fn source(elements: &Elements, columns: i64) -> Source<'_> {
    Source {
        numbers: Numbers::Plain(elements.dtype),
        data: Data::Copied(&elements.bytes),
        rows: (elements.bytes.len() / elements.dtype.bytes()) as i64 / columns,
        columns,
        row_stride: columns,
        layout: Layout::OutIn,
        order: FusedOrder::Concatenated,
        extent: Extent::Whole,
        // Of no effect where dtypes agree; numbers become integers.
        convert: true,
    }
}

/// Results of one call, all ranks' heads side by side.
pub struct Outputs(pub Parts<Elements>);

/// Runs prefill with packed outputs on the ranks' projections, poisoned before.
pub fn prefill(
    ranks: &[Projection],
    decoder: &Elements,
    encoder: &Elements,
    out: Dtype,
) -> (Outputs, Vec<Counts>) {
    let spec = ranks[0].spec();
    let rows = |part: Part| {
        let input = if part == Part::Query { decoder } else { encoder };
        input.bytes.len() / input.dtype.bytes() / spec.inputs(part) as usize
    };
    let poisoned = |part: Part| Elements::poisoned(rows(part) * spec.outputs(part) as usize, out);
    let mut outputs = Parts {
        query: poisoned(Part::Query),
        key: poisoned(Part::Key),
        value: poisoned(Part::Value),
    };
    let counts = ranks.iter().map(|rank| run(rank, decoder, encoder, &mut outputs)).collect();
    (Outputs(outputs), counts)
}

fn run(
    rank: &Projection,
    decoder: &Elements,
    encoder: &Elements,
    outputs: &mut Parts<Elements>,
) -> Counts {
    let spec = rank.spec();
    let input = |elements: &Elements, width: i64| {
        let count = (elements.bytes.len() / elements.dtype.bytes()) as i64 / width;
        let address = elements.bytes.as_ptr().expose_provenance();
        Rows::new("rows", address, elements.dtype, count, width, 0, None).unwrap()
    };
    let mut view = |part: Part, rows: i64| {
        let heads = rank.shard().heads(part);
        let output = &mut outputs[part];
        let offset = (heads.begin * spec.width(part)) as usize * output.dtype.bytes();
        let address = output.bytes.as_mut_ptr().expose_provenance() + offset;
        let shape = Shape { layers: 1, rows, heads: heads.count, width: spec.width(part) };
        let strides = Strides { row: spec.outputs(part), ..Strides::default() };
        View::new(part.name(), shape, target(address, output.dtype, strides)).unwrap()
    };
    let decoder = input(decoder, spec.decoder_width);
    let encoder = input(encoder, spec.encoder_width);
    let has = |part: Part| rank.shard().heads(part).count > 0;
    let call = Call {
        layer: 0,
        layer_count: 1,
        decoder: has(Part::Query).then(|| {
            let query = view(Part::Query, decoder.count());
            DecoderSide { rows: decoder, query }
        }),
        encoder: has(Part::Key).then(|| {
            let (key, value) =
                (view(Part::Key, encoder.count()), view(Part::Value, encoder.count()));
            EncoderSide { rows: encoder, key, value }
        }),
        lane: Lane::default(),
        collective: None,
    };
    // SAFETY: inputs and outputs are as long as their shapes say, and this call's alone.
    unsafe { rank.forward(&call, None) }.unwrap().counts
}

/// Elements at these strides.
pub fn target(address: usize, dtype: Dtype, strides: Strides) -> Target<'static> {
    let base = Base::First(address);
    Target { base, dtype, strides, group_rows: 0, slots: None, accumulates: false }
}
