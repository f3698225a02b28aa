"""Small models of transformers' own classes with random weights, and the calls that a generation makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import MllamaForCausalLM, WhisperConfig, WhisperForConditionalGeneration
from transformers.models.mllama.configuration_mllama import MllamaTextConfig

BATCH, PROMPT, STEPS, VOCABULARY = 2, 5, 2, 96
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@dataclass
class Case:
    """A model, the tokens that it is given, and encoder rows [batch, rows, width]."""

    name: str
    model: Any
    tokens: torch.Tensor
    encoder: torch.Tensor
    # The arguments of a call, from its tokens, whether it is the first, and the encoder's rows.
    arguments: Any

    def logits(self, call):
        """What `call` answers to the prompt, then to one token after the other, on the cache that it made."""
        cache, begin = None, 0
        for count in [PROMPT] + [1] * STEPS:
            tokens = self.tokens[:, begin : begin + count]
            answer = call(**self.arguments(tokens, cache is None, self.encoder), cache=cache, use_cache=True)
            cache, begin = answer.cache, begin + count
            yield answer.logits


def mllama(device):
    """Grouped heads, norms of Q and K; cross-attention in every other layer."""
    torch.manual_seed(1)
    config = MllamaTextConfig(
        **TOKENS, hidden_size=128, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2,
        intermediate_size=256, cross_attention_layers=[1, 3], max_position_embeddings=64,
    )  # fmt: skip
    model = MllamaForCausalLM(config).eval().to(device)
    for name, parameter in model.named_parameters():
        # New models close these gates, and nothing of cross-attention would reach the logits.
        if "gate" in name and parameter.numel() == 1:
            parameter.data.fill_(1.0)
        if "_norm.weight" in name:
            parameter.data.uniform_(0.5, 1.5)

    def arguments(tokens, is_first, encoder):
        # The second sequence has no third tile of its picture.
        mask = torch.zeros(BATCH, 1, tokens.shape[1], encoder.shape[1], device=encoder.device)
        mask[1, :, :, 14:] = torch.finfo(mask.dtype).min
        states = encoder if is_first else None
        return {"input_ids": tokens, "cross_attention_states": states, "cross_attention_mask": mask}

    return Case("mllama", model, _tokens(device), torch.randn(BATCH, 21, 128).to(device), arguments)


def whisper(device):
    """As many heads of K and V as of Q, biases of Q and V; the encoder runs beforehand."""
    torch.manual_seed(2)
    config = WhisperConfig(
        **TOKENS, d_model=128, encoder_layers=1, decoder_layers=2, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=256, decoder_ffn_dim=256, num_mel_bins=16, max_source_positions=30,
        max_target_positions=32, decoder_start_token_id=1,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval().to(device)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.uniform_(-0.5, 0.5)
    encoder = model.model.encoder(torch.randn(BATCH, 16, 60).to(device)).last_hidden_state

    def arguments(tokens, _, encoder):
        return {"decoder_input_ids": tokens, "encoder_outputs": (encoder,)}

    return Case("whisper", model, _tokens(device), encoder, arguments)


def _tokens(device):
    return torch.randint(3, VOCABULARY, (BATCH, PROMPT + STEPS)).to(device)
