"""The network of crystalline as most people would write it in stock PyTorch: what the benchmarks compare with."""

import torch
import torch.nn.functional as F
from torch import nn


class PlainAttention(nn.Module):
    """Causal attention with normed, rotated queries and keys."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.q_norm, self.k_norm = nn.RMSNorm(self.head_width, 1e-6), nn.RMSNorm(self.head_width, 1e-6)

    def forward(self, x, cos, sin):
        batch, time_, width = x.shape
        q, k, v = (p(x).view(batch, time_, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = turned(self.q_norm(q), cos, sin), turned(self.k_norm(k), cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(batch, time_, width))


def turned(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class PlainBlock(nn.Module):
    """Attention, then SwiGLU, each after a norm and added to its input."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
        self.attention = PlainAttention(width, heads)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.norm1(x), cos, sin)
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class PlainModel(nn.Module):
    """A Qwen3-like network with tied embedding, in the usual modules."""

    def __init__(self, layers, width, heads, hidden, vocabulary, context):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width, 1e-6)
        frequencies = 10_000.0 ** -(torch.arange(0, width // heads, 2) / (width // heads))
        angles = torch.outer(torch.arange(context), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens, targets, reduction="mean"):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]])
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)
