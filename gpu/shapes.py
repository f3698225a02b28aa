"""What the benchmark measures: three models' cross-attention layers, from their public configurations, and what a rank
of so many has of them."""

from dataclasses import dataclass

ELEMENT_BYTES = 2
DECODE_ROWS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Model:
    """A model's cross-attention layers, uncut. `encoder_rows` are those of one and of four encoder inputs."""

    name: str
    width: int
    query_heads: int
    key_value_heads: int
    head_width: int
    layers: int
    encoder_rows: tuple[int, int]
    has_bias: bool = False


WHISPER = Model("whisper-large-v3", 1280, 20, 20, 64, 32, (1500, 4 * 1500), has_bias=True)
# An image is up to four tiles of 1601 patches.
MLLAMA = Model("mllama-11b", 4096, 32, 8, 128, 8, (1601, 4 * 1601))
T5 = Model("t5-xxl", 4096, 64, 64, 64, 24, (512, 4 * 512))
CELLS = tuple((model, ranks) for model, most in ((WHISPER, 4), (MLLAMA, 8), (T5, 8)) for ranks in (1, most))


@dataclass(frozen=True)
class Cell:
    """One rank's share of a model: columns of Q, and of K, which are as many as of V."""

    model: Model
    ranks: int

    @property
    def query_columns(self) -> int:
        return self.model.query_heads // self.ranks * self.model.head_width

    @property
    def key_columns(self) -> int:
        """Ranks beyond the key/value heads share them."""
        return max(1, self.model.key_value_heads // self.ranks) * self.model.head_width

    @property
    def all_columns(self) -> int:
        return self.query_columns + 2 * self.key_columns

    def multiply_adds(self, decoder_rows: int, encoder_rows: int) -> int:
        """What is necessary: Q of the decoder's rows, K and V of the encoder's."""
        return self.model.width * (decoder_rows * self.query_columns + encoder_rows * 2 * self.key_columns)

    def necessary_bytes(self, decoder_rows: int, encoder_rows: int) -> int:
        """Weights, inputs and outputs, once each."""
        query = (self.query_columns * (self.model.width + decoder_rows)) if decoder_rows else 0
        keys = (2 * self.key_columns * (self.model.width + encoder_rows)) if encoder_rows else 0
        return ELEMENT_BYTES * (query + keys + self.model.width * (decoder_rows + encoder_rows))

    def workaround_multiply_adds(self, decoder_rows: int, encoder_rows: int) -> int:
        """With one fused layer applied to each side, of which the other side's columns are dropped."""
        return self.model.width * self.all_columns * (decoder_rows + encoder_rows)

    def cold_sets(self, columns: int, cache_bytes: int) -> int:
        """How many sets of weights to go around, for each to have left the cache when its turn comes again."""
        set_bytes = ELEMENT_BYTES * columns * self.model.width
        return max(2, -(-2 * cache_bytes // set_bytes))


def floor_seconds(multiply_adds: int, moved_bytes: int, matmul_rate: float, copy_rate: float) -> float:
    """The least time at the measured rates, of multiply-adds and of bytes per second."""
    return max(multiply_adds / matmul_rate, moved_bytes / copy_rate)
