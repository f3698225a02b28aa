//! The uncut layers: sizes, heads, dtype, biases, scales and norm. Pure arithmetic.

use crate::dtype::WeightDtype;
use crate::error::{Error, Status, ensure};

/// One of the three projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// decoder · Wqᵀ
    Query,
    /// encoder · Wkᵀ
    Key,
    /// encoder · Wvᵀ
    Value,
}

impl Part {
    /// In the order in which fused weights stack them.
    pub const ALL: [Part; 3] = [Part::Query, Part::Key, Part::Value];

    /// The word for messages.
    pub fn name(self) -> &'static str {
        match self {
            Part::Query => "query",
            Part::Key => "key",
            Part::Value => "value",
        }
    }
}

/// One thing for each of the three projections.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts<T> {
    /// The query's.
    pub query: T,
    /// The key's.
    pub key: T,
    /// The value's.
    pub value: T,
}

impl<T> std::ops::Index<Part> for Parts<T> {
    type Output = T;

    fn index(&self, part: Part) -> &T {
        match part {
            Part::Query => &self.query,
            Part::Key => &self.key,
            Part::Value => &self.value,
        }
    }
}

impl<T> std::ops::IndexMut<Part> for Parts<T> {
    fn index_mut(&mut self, part: Part) -> &mut T {
        match part {
            Part::Query => &mut self.query,
            Part::Key => &mut self.key,
            Part::Value => &mut self.value,
        }
    }
}

/// The uncut layers, as a model's configuration gives them. `check` before use.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Layers that have cross-attention.
    pub layer_count: i64,
    /// Columns of the decoder's hidden states.
    pub decoder_width: i64,
    /// Columns of the encoder's hidden states.
    pub encoder_width: i64,
    /// Heads of Q; 0 for a projection of K and V only.
    pub query_heads: i64,
    /// Heads of K and of V; 0 for a projection of Q only.
    pub key_value_heads: i64,
    /// Columns of one head of Q and of K.
    pub head_width: i64,
    /// Columns of one head of V.
    pub value_head_width: i64,
    /// What the weights are kept in.
    pub weight_dtype: WeightDtype,
    /// Which of bq, bk and bv exist.
    pub bias: Parts<bool>,
    /// What each projection's result is multiplied by.
    pub scale: Parts<f32>,
    /// What is done to each head of Q and of K before that.
    pub norm: Option<Norm>,
}

/// Inputs whose products with 8-bit integers have a sum of 32 bits: 127 · 128 · 2^17 < 2^31.
const MOST_INTEGER_INPUTS: i64 = 1 << 17;

/// Root mean square norm of a head, with a weight of one element for each of its columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Added to the mean square before its root is taken.
    pub epsilon: f32,
    /// Whether the quotient is rounded to the weights' dtype before it meets the norm's weight.
    pub rounds_first: bool,
}

impl Spec {
    /// Refuses sizes that make no layer, or whose bytes cannot be counted in 63 bits.
    pub fn check(&self) -> Result<(), Error> {
        self.check_signs()?;
        self.check_sides()?;
        self.check_scales()?;
        self.check_norm()?;
        self.check_quantised()?;
        self.weight_bytes(self.layer_count).map(|_| ())
    }

    /// Heads of a part.
    pub fn heads(&self, part: Part) -> i64 {
        match part {
            Part::Query => self.query_heads,
            Part::Key | Part::Value => self.key_value_heads,
        }
    }

    /// Columns of one head of a part.
    pub fn width(&self, part: Part) -> i64 {
        match part {
            Part::Query | Part::Key => self.head_width,
            Part::Value => self.value_head_width,
        }
    }

    /// Rows of a part's weight, which are columns of its result.
    pub fn outputs(&self, part: Part) -> i64 {
        self.heads(part) * self.width(part)
    }

    /// Columns of a part's weight, which are columns of its input.
    pub fn inputs(&self, part: Part) -> i64 {
        match part {
            Part::Query => self.decoder_width,
            Part::Key | Part::Value => self.encoder_width,
        }
    }

    /// The norm of a part's heads. V has none.
    pub fn norm_of(&self, part: Part) -> Option<Norm> {
        match part {
            Part::Query | Part::Key => self.norm,
            Part::Value => None,
        }
    }

    /// Rows and columns of a part's weight.
    pub fn shape(&self, part: Part) -> [i64; 2] {
        [self.outputs(part), self.inputs(part)]
    }

    fn check_signs(&self) -> Result<(), Error> {
        for (name, value, least) in [
            ("layer_count", self.layer_count, 1),
            ("decoder_width", self.decoder_width, 0),
            ("encoder_width", self.encoder_width, 0),
            ("query_heads", self.query_heads, 0),
            ("key_value_heads", self.key_value_heads, 0),
            ("head_width", self.head_width, 1),
            ("value_head_width", self.value_head_width, 1),
        ] {
            ensure!(value >= least, InvalidArgument, "{name} is {value}; it must be >= {least}");
        }
        Ok(())
    }

    fn check_sides(&self) -> Result<(), Error> {
        let (query, key_value) = (self.query_heads, self.key_value_heads);
        ensure!(
            query > 0 || key_value > 0,
            InvalidArgument,
            "query_heads and key_value_heads are both 0; a projection needs one of them"
        );
        ensure!(
            query == 0 || self.decoder_width > 0,
            InvalidArgument,
            "decoder_width is 0, but query_heads is {query}; give the decoder's hidden size"
        );
        ensure!(
            key_value == 0 || self.encoder_width > 0,
            InvalidArgument,
            "encoder_width is 0, but key_value_heads is {key_value}; give the encoder's hidden size"
        );
        ensure!(
            query == 0 || key_value == 0 || query % key_value == 0,
            InvalidArgument,
            "query_heads is {query}, not a multiple of key_value_heads {key_value}; each \
             key/value head must serve the same number of query heads"
        );
        Ok(())
    }

    fn check_scales(&self) -> Result<(), Error> {
        for part in Part::ALL {
            let (name, scale) = (part.name(), self.scale[part]);
            ensure!(
                scale.is_finite(),
                InvalidArgument,
                "{name}_scale is {scale}; it must be finite"
            );
        }
        Ok(())
    }

    fn check_norm(&self) -> Result<(), Error> {
        let epsilon = self.norm.map_or(1.0, |norm| norm.epsilon);
        ensure!(
            epsilon.is_finite() && epsilon > 0.0,
            InvalidArgument,
            "norm_epsilon is {epsilon}; it must be finite and above 0, since a head of zeros would \
             be divided by 0; give the model's, such as 1e-5"
        );
        Ok(())
    }

    fn check_quantised(&self) -> Result<(), Error> {
        if self.weight_dtype.element().is_some() {
            return Ok(());
        }
        for part in Part::ALL.into_iter().filter(|&part| self.heads(part) > 0) {
            let inputs = self.inputs(part);
            ensure!(
                inputs <= MOST_INTEGER_INPUTS,
                NotSupported,
                "{} has {inputs} inputs, and sums of integers hold {MOST_INTEGER_INPUTS} products; \
                 use a weight_dtype of floating-point numbers",
                part.name()
            );
        }
        ensure!(
            !self.norm.is_some_and(|norm| norm.rounds_first),
            InvalidArgument,
            "norm_rounds_first is 1, but there is no rounding to XQKV_DTYPE_INT8; use 0"
        );
        Ok(())
    }

    /// Bytes of the weights of so many uncut layers, with biases and norms in f32.
    fn weight_bytes(&self, layer_count: i64) -> Result<i64, Error> {
        bytes_of(self, |part| self.heads(part), layer_count).ok_or_else(|| {
            let message = format!(
                "{layer_count} layers of {} query and {} key/value heads of width {} and {} over \
                 inputs of {} and {} columns exceed 2^63 bytes; check the sizes",
                self.query_heads,
                self.key_value_heads,
                self.head_width,
                self.value_head_width,
                self.decoder_width,
                self.encoder_width
            );
            Error::new(Status::SizeOverflow, message)
        })
    }
}

/// Bytes of the weights, and of biases and norms in f32, when a part has so many heads; None beyond
/// 63 bits.
pub(crate) fn bytes_of(spec: &Spec, heads: impl Fn(Part) -> i64, layer_count: i64) -> Option<i64> {
    let mut layer: i64 = 0;
    for part in Part::ALL {
        let outputs = heads(part).checked_mul(spec.width(part))?;
        let weight = outputs.checked_mul(spec.weight_dtype.row_bytes(spec.inputs(part))?)?;
        let bias = if spec.bias[part] { outputs.checked_mul(4)? } else { 0 };
        let has_norm = spec.norm_of(part).is_some() && outputs > 0;
        let norm = if has_norm { spec.width(part).checked_mul(4)? } else { 0 };
        layer = layer.checked_add(weight)?.checked_add(bias)?.checked_add(norm)?;
    }
    layer.checked_mul(layer_count)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whisper tiny: 6 heads of 64, no bias on K.
    pub(crate) fn whisper_tiny() -> Spec {
        Spec {
            layer_count: 4,
            decoder_width: 384,
            encoder_width: 384,
            query_heads: 6,
            key_value_heads: 6,
            head_width: 64,
            value_head_width: 64,
            weight_dtype: WeightDtype::Bf16,
            bias: Parts { query: true, key: false, value: true },
            scale: Parts { query: 1.0, key: 1.0, value: 1.0 },
            norm: None,
        }
    }

    fn refused(change: impl Fn(&mut Spec)) -> Error {
        let mut spec = whisper_tiny();
        change(&mut spec);
        spec.check().unwrap_err()
    }

    #[test]
    fn a_real_model_passes_and_its_bytes_are_known() {
        let spec = whisper_tiny();
        spec.check().unwrap();
        assert_eq!(spec.weight_bytes(1).unwrap(), 3 * 384 * 384 * 2 + 2 * 384 * 4);
    }

    #[test]
    fn zero_and_negative_sizes_are_refused() {
        assert_eq!(refused(|spec| spec.layer_count = 0).status, Status::InvalidArgument);
        assert_eq!(refused(|spec| spec.head_width = 0).status, Status::InvalidArgument);
        assert_eq!(refused(|spec| spec.query_heads = -6).status, Status::InvalidArgument);
        assert_eq!(refused(|spec| spec.encoder_width = 0).status, Status::InvalidArgument);
        assert_eq!(refused(|spec| spec.key_value_heads = 4).status, Status::InvalidArgument);
        assert_eq!(refused(|spec| spec.scale.key = f32::NAN).status, Status::InvalidArgument);
    }

    #[test]
    fn a_norm_takes_its_weights_bytes_and_needs_an_epsilon() {
        let norm = |epsilon| Some(Norm { epsilon, rounds_first: true });
        let spec = Spec { norm: norm(1e-6), ..whisper_tiny() };
        spec.check().unwrap();
        let without = whisper_tiny().weight_bytes(1).unwrap();
        assert_eq!(spec.weight_bytes(1).unwrap(), without + 2 * 64 * 4);
        assert!(spec.norm_of(Part::Value).is_none());
        for epsilon in [0.0, -1e-6, f32::NAN, f32::INFINITY] {
            let error = refused(|spec| spec.norm = norm(epsilon));
            assert_eq!(error.status, Status::InvalidArgument);
            assert!(error.message.contains("norm_epsilon"), "{error}");
        }
    }

    #[test]
    fn products_near_two_to_the_63_are_refused_and_near_two_to_the_31_are_not() {
        assert_eq!(refused(|spec| spec.decoder_width = i64::MAX).status, Status::SizeOverflow);
        assert_eq!(refused(|spec| spec.layer_count = 1 << 44).status, Status::SizeOverflow);
        let mut spec = whisper_tiny();
        spec.decoder_width = (1 << 31) + 1;
        spec.check().unwrap();
    }
}
