"""What is compared: Q of a few decoder rows, and K and V of an encoder's whole result, of four models."""

from __future__ import annotations

from dataclasses import dataclass

# Bytes of distinct weights that decode steps go through: eight times a last cache of 32 MB.
COLD_BYTES = 256 << 20
BUCKETS = ("1", "4", "16", "32-64", "prefill")


@dataclass(frozen=True)
class Model:
    """One cross-attention layer."""

    name: str
    width: int
    query_columns: int
    # Of K and of V.
    key_columns: int
    encoder_rows: int
    layers: int


MODELS = (
    Model("whisper-base", 512, 512, 512, 1500, 6),
    Model("whisper-large-v3", 1280, 1280, 1280, 1500, 32),
    Model("t5-xxl", 4096, 4096, 4096, 512, 24),
    Model("mllama-11b", 4096, 4096, 1024, 1601, 8),
)


@dataclass(frozen=True)
class Case:
    """rows x inputs times a matrix of outputs x inputs, with a bias."""

    model: str
    dtype: str
    rows: int
    inputs: int
    outputs: int
    is_prefill: bool

    @property
    def bucket(self) -> str:
        """The column of the table."""
        if self.is_prefill:
            return "prefill"
        return "32-64" if self.rows >= 32 else str(self.rows)

    @property
    def copies(self) -> int:
        """Distinct matrices that calls go through."""
        weight_bytes = self.outputs * self.inputs * {"f32": 4, "bf16": 2, "f16": 2, "int8": 1}[self.dtype]
        return 1 if self.is_prefill else max(1, COLD_BYTES // weight_bytes)

    @property
    def rows_dtype(self) -> str:
        """Of rows, bias and results."""
        return "f32" if self.dtype == "int8" else self.dtype

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{self.model} {self.dtype} {'K,V' if self.is_prefill else 'Q'} {self.rows}"


def cases(dtypes: list[str], rows: list[int], models: list[str]) -> list[Case]:
    """All of them, a model and dtype at a time."""
    made = []
    for model in (model for model in MODELS if model.name in models):
        for dtype in dtypes:
            made += [Case(model.name, dtype, count, model.width, model.query_columns, False) for count in rows]
            made.append(Case(model.name, dtype, model.encoder_rows, model.width, 2 * model.key_columns, True))
    return made
