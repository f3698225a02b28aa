"""Projects a checkpoint's cross-attention on two ranks: python sample.py CHECKPOINT"""

import sys

import numpy as np
import xqkv


def main(directory: str) -> None:
    checkpoint = xqkv.Checkpoint(directory)
    spec = xqkv.Spec.read(checkpoint)
    encoder = np.random.default_rng(0).standard_normal((50, spec.encoder_width), np.float32)
    decoder = np.random.default_rng(1).standard_normal((4, spec.decoder_width), np.float32)
    print("rank  call         multiply-adds  shapes")
    with xqkv.Context() as context:
        for rank in range(2):
            split = xqkv.Split.balanced(spec, rank, 2)
            with xqkv.Projection.load(context, spec, checkpoint, split) as projection:
                prefill = projection.forward(decoder, encoder)
                decode = projection.forward(decoder[:1])
                fill = projection.forward(encoder=encoder, layer_count=spec.layer_count)
            for name, result in (("prefill", prefill), ("decode step", decode), ("cache fill", fill)):
                arrays = (result.query, result.key, result.value)
                shapes = " ".join(str(array.shape) for array in arrays if array is not None)
                print(f"{rank:>4}  {name:<11}  {result.multiply_adds:>13,}  {shapes}")


if __name__ == "__main__":
    main(sys.argv[1])
