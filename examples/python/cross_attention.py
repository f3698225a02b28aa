"""Cross-attention for transformers' mllama and Whisper whose Q, K and V come from xqkv's torch operator, cut by head
among ranks; and the same with one fused layer run twice, which is what engines without such an operator do.

Both go where the model's own module was and take its arguments. The output projection is cut to this rank's heads, so a
sum over ranks gives its result."""

from __future__ import annotations

import torch
import torch.distributed as dist
import xqkv
from torch import nn
from transformers.models.mllama.modeling_mllama import MllamaTextCrossAttention
from transformers.models.whisper.modeling_whisper import WhisperAttention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from xqkv.torch_op import cross_qkv


def spec_of(layers):
    """What xqkv projects for a model's cross-attention modules: mllama norms heads of Q and K, Whisper scales Q."""
    first = layers[0]
    is_mllama = isinstance(first, MllamaTextCrossAttention)
    return xqkv.Spec(
        weight_dtype=xqkv.Dtype.F32,
        layer_count=len(layers),
        decoder_width=first.q_proj.in_features,
        encoder_width=first.k_proj.in_features,
        query_heads=first.num_heads,
        key_value_heads=first.k_proj.out_features // first.head_dim,
        head_width=first.head_dim,
        query_bias=first.q_proj.bias is not None,
        key_bias=first.k_proj.bias is not None,
        value_bias=first.v_proj.bias is not None,
        query_scale=1.0 if is_mllama else first.scaling,
        norm=xqkv.Norm.RMS if is_mllama else xqkv.Norm.NONE,
        norm_epsilon=first.q_norm.variance_epsilon if is_mllama else 0.0,
        norm_rounds_first=is_mllama,
    )


def load(projection, layers):
    """Hands over the modules' uncut tensors, of which the projection takes this rank's rows."""
    with projection.update() as update:
        for number, layer in enumerate(layers):
            for part, letter in ((xqkv.Part.QUERY, "q"), (xqkv.Part.KEY, "k"), (xqkv.Part.VALUE, "v")):
                linear, norm = getattr(layer, f"{letter}_proj"), getattr(layer, f"{letter}_norm", None)
                update.put(number, part, linear.weight.detach())
                if linear.bias is not None:
                    update.put(number, part, linear.bias.detach(), kind=xqkv.Kind.BIAS)
                if norm is not None:
                    update.put(number, part, norm.weight.detach(), kind=xqkv.Kind.NORM)


class Operator(nn.Module):
    """Q, K and V of this rank's heads, in one call of the operator."""

    def __init__(self, number, layer):
        super().__init__()
        self.number, self.layer = number, layer

    def forward(self, decoder, encoder):
        """[batch, rows, width] to [batch, heads, rows, width]; K and V are None without an encoder."""
        rows = None if encoder is None else encoder.flatten(0, 1)
        parts = cross_qkv(decoder.flatten(0, 1), rows, self.number, self.layer)
        return [
            None if part.shape[0] == 0 else part.unflatten(0, (len(decoder), -1)).transpose(1, 2) for part in parts
        ]


class FusedTwice(nn.Module):
    """The workaround: Q, K and V as one layer, run on the decoder's rows for Q and on the encoder's for K and V."""

    def __init__(self, theirs, shard):
        super().__init__()
        width = theirs.head_dim
        query = slice(shard.query_head_begin * width, (shard.query_head_begin + shard.query_head_count) * width)
        begin, count = shard.key_value_head_begin, shard.key_value_head_count
        key_value = slice(begin * width, (begin + count) * width)
        parts = (theirs.q_proj, query), (theirs.k_proj, key_value), (theirs.v_proj, key_value)
        weight = torch.cat([linear.weight.detach()[rows] for linear, rows in parts])
        self.fused = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
        self.fused.weight.data = weight
        self.fused.bias.data = torch.cat(
            [weight.new_zeros(linear.out_features)[rows] if linear.bias is None else linear.bias.detach()[rows]
             for linear, rows in parts]
        )  # fmt: skip
        self.columns = [rows.stop - rows.start for _, rows in parts]
        self.norms = [getattr(theirs, "q_norm", None), getattr(theirs, "k_norm", None), None]
        self.width = width
        self.scale = 1.0 if hasattr(theirs, "q_norm") else theirs.scaling

    def forward(self, decoder, encoder):
        query, key, value = self._heads(self.fused(decoder))[0] * self.scale, None, None
        if encoder is not None:
            _, key, value = self._heads(self.fused(encoder))
        return query, key, value

    def _heads(self, rows):
        parts = [part.unflatten(-1, (-1, self.width)).transpose(1, 2) for part in rows.split(self.columns, -1)]
        return [part if norm is None else norm(part) for part, norm in zip(parts, self.norms)]


class CrossAttention(nn.Module):
    """This rank's heads of a cross-attention module, around whatever projects Q, K and V for it."""

    def __init__(self, theirs, project, shard, group):
        super().__init__()
        self.project, self.group = project, group
        self.config, self.layer_idx = theirs.config, theirs.layer_idx
        # transformers takes a module that does not say for a causal one, where no mask is given.
        self.is_causal = getattr(theirs, "is_causal", True)
        self.num_key_value_groups = shard.query_head_count // max(shard.key_value_head_count, 1)
        output = theirs.o_proj if hasattr(theirs, "o_proj") else theirs.out_proj
        begin, columns = shard.query_head_begin * theirs.head_dim, shard.query_head_count * theirs.head_dim
        self.output = nn.Linear(columns, output.out_features, bias=False, device=output.weight.device)
        self.output.weight.data = output.weight.detach()[:, begin : begin + columns].contiguous()
        self.output_bias = output.bias
        # Whisper's scale is in its Q already.
        self.scaling = theirs.scaling if hasattr(theirs, "q_norm") else 1.0

    def attend(self, query, key, value, mask, **kwargs):
        attention = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        attended, weights = attention(self, query, key, value, mask, dropout=0.0, scaling=self.scaling, **kwargs)
        result = self.output(attended.flatten(2))
        dist.all_reduce(result, group=self.group)
        return (result if self.output_bias is None else result + self.output_bias), weights


class MllamaCrossAttention(CrossAttention):
    """Without encoder rows, K and V are what the cache has."""

    def forward(self, hidden_states, cross_attention_states=None, cache=None, attention_mask=None, **kwargs):
        query, key, value = self.project(hidden_states, cross_attention_states)
        if key is None:
            key, value = cache.layers[self.layer_idx].keys, cache.layers[self.layer_idx].values
        elif cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        kwargs.pop("use_cache", None)
        return self.attend(query, key, value, attention_mask, **kwargs)


class WhisperCrossAttention(CrossAttention):
    """Encoder rows come with every call; the cache knows whether it has their K and V."""

    def forward(self, hidden_states, key_value_states=None, cache=None, attention_mask=None, **kwargs):
        is_cached = cache is not None and cache.is_updated.get(self.layer_idx)
        query, key, value = self.project(hidden_states, None if is_cached else key_value_states)
        if is_cached:
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            key, value = layer.keys, layer.values
        elif cache is not None:
            cache.is_updated[self.layer_idx] = True
            key, value = cache.cross_attention_cache.update(key, value, self.layer_idx)
        return self.attend(query, key, value, attention_mask, **kwargs)


# The module of transformers' that each takes the place of.
REPLACEMENTS = {MllamaTextCrossAttention: MllamaCrossAttention, WhisperAttention: WhisperCrossAttention}


def places(model):
    """Where the model has cross-attention: the module that holds it, its name there and the attention itself."""
    found = []
    for holder in model.modules():
        for name, module in holder.named_children():
            if isinstance(module, MllamaTextCrossAttention) or name == "encoder_attn":
                found.append((holder, name, module))
    return found


def swap(model, projects, shard, group=None):
    """Puts a CrossAttention around each of `projects` where the model has its own."""
    for (holder, name, theirs), project in zip(places(model), projects):
        setattr(holder, name, REPLACEMENTS[type(theirs)](theirs, project, shard, group))
    return model
