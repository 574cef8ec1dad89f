"""What happens between the matrix products: norms, rotation, attention, gating, the loss; with their gradients.

Each operation is one call of kernels.c where that could be compiled, and the same formula in PyTorch where not. Tests
hold the two against each other.
"""

from __future__ import annotations

from ctypes import CDLL, c_float, c_long, c_void_p
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from crystalline.model.library import library

# Queries taken at once: scores of a block stay in the cache, and nothing is computed for keys after it.
QUERY_BLOCK = 128


def rms_norm(x: Tensor, gain: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """x / rms(x) * gain over the last dimension (Zhang & Sennrich 2019, arXiv 1910.07467), in `dtype`. x: fp32."""
    kernels = _usable(x)
    if kernels is None:
        return F.rms_norm(x, gain.shape, gain, epsilon).to(dtype)
    result: Tensor = _RMSNorm.apply(kernels, x, gain, epsilon, dtype)  # type: ignore[no-untyped-call]
    return result


def split_heads(
    qkv: Tensor,
    query_gain: Tensor,
    key_gain: Tensor,
    rotary: tuple[Tensor, Tensor],
    heads: int,
    kv_heads: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, (H + 2 K) W) -> queries (B, H, T, W), keys and values (B, K, T, W).

    Queries and keys are normed and each pair (x[i], x[i + W/2]) is turned by its position's angle (Su et al. 2021,
    arXiv 2104.09864). rotary: cosine and sine, (T, W) fp32.
    """
    kernels = _usable(qkv)
    if kernels is not None:
        result: tuple[Tensor, Tensor, Tensor] = _SplitHeads.apply(  # type: ignore[no-untyped-call]
            kernels, qkv, query_gain, key_gain, *rotary, heads, kv_heads, epsilon
        )
        return result
    batch, time = qkv.shape[:2]
    parts = qkv.view(batch, time, heads + 2 * kv_heads, -1).transpose(1, 2)
    q, k, v = parts.split((heads, kv_heads, kv_heads), dim=1)
    q = _rotate(F.rms_norm(q.float(), query_gain.shape, query_gain, epsilon), rotary)
    k = _rotate(F.rms_norm(k.float(), key_gain.shape, key_gain, epsilon), rotary)
    return q.to(qkv.dtype), k.to(qkv.dtype), v


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(W)) v, each query seeing the keys up to its own. q: (B, H, T, W); k, v: (B, K, T, W)."""
    if q.shape[1] != k.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    kernels = _usable(q)
    if kernels is None or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    result: Tensor = _Attention.apply(kernels, q, k, v)  # type: ignore[no-untyped-call]
    return result


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of (..., 2 F) -> (..., F) (Shazeer 2020, arXiv 2002.05202)."""
    kernels = _usable(gate_up)
    if kernels is None:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
    result: Tensor = _SwiGLU.apply(kernels, gate_up)  # type: ignore[no-untyped-call]
    return result


def head_loss(x: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Sum of -ln softmax(x table')[target], in nats, fp32. Negative targets count nothing.

    x: (N, D); table: (V, D), the same dtype; targets: (N,) int64.
    """
    kernels = _usable(x)
    if kernels is None:
        logits = F.linear(x, table).float()
        return F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    result: Tensor = _HeadLoss.apply(kernels, x, table, targets)  # type: ignore[no-untyped-call]
    return result


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


# --- calling the kernels ---------------------------------------------------------------------------------


def _usable(x: Tensor) -> CDLL | None:
    return library() if x.device.type == "cpu" and x.dtype in _SUFFIX else None


_SUFFIX = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def _call(kernels: CDLL, name: str, dtype: torch.dtype, *arguments: Tensor | int | float) -> Any:
    """Call `name` for `dtype`. Tensors go by address and must be contiguous; ints are C longs."""
    converted: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            assert argument.is_contiguous()
            converted.append(c_void_p(argument.data_ptr()))
        else:
            converted.append(c_long(argument) if isinstance(argument, int) else c_float(argument))
    return getattr(kernels, f"{name}_{_SUFFIX[dtype]}")(*converted)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: CDLL, x: Tensor, gain: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        x = x.contiguous()
        width = x.shape[-1]
        rows = x.numel() // width
        y, rstd = torch.empty(x.shape, dtype=dtype), torch.empty(rows)
        _call(kernels, "rms_norm", dtype, x, gain, y, rstd, rows, width, epsilon)
        ctx.save_for_backward(x, gain, rstd)
        ctx.kernels = kernels
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, rstd = ctx.saved_tensors
        dx, dgain = torch.empty_like(x), torch.zeros_like(gain)
        _call(
            ctx.kernels,
            "rms_norm_backward",
            dy.dtype,
            dy.contiguous(),
            x,
            gain,
            rstd,
            dx,
            dgain,
            len(rstd),
            len(gain),
        )
        return None, dx, dgain, None, None


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: CDLL, qkv: Tensor, query_gain: Tensor, key_gain: Tensor, cosine: Tensor, sine: Tensor,
        heads: int, kv_heads: int, epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        qkv = qkv.contiguous()
        batch, time, width = *qkv.shape[:2], len(query_gain)
        q = torch.empty((batch, heads, time, width), dtype=qkv.dtype)
        k, v = (torch.empty((batch, kv_heads, time, width), dtype=qkv.dtype) for _ in range(2))
        rstd = torch.empty(batch * time * (heads + kv_heads))
        sizes = (batch, time, heads, kv_heads, width)
        _call(
            kernels, "split_heads", qkv.dtype, qkv, query_gain, key_gain, cosine, sine, q, k, v, rstd, *sizes, epsilon
        )
        ctx.save_for_backward(qkv, query_gain, key_gain, cosine, sine, rstd)
        ctx.kernels, ctx.sizes = kernels, sizes
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> tuple[Tensor | None, ...]:
        qkv, query_gain, key_gain, cosine, sine, rstd = ctx.saved_tensors
        dqkv, dquery_gain, dkey_gain = torch.empty_like(qkv), torch.zeros_like(query_gain), torch.zeros_like(key_gain)
        _call(
            ctx.kernels, "split_heads_backward", qkv.dtype, dq.contiguous(), dk.contiguous(), dv.contiguous(), qkv,
            query_gain, key_gain, cosine, sine, rstd, dqkv, dquery_gain, dkey_gain, *ctx.sizes,
        )  # fmt: skip
        return None, dqkv, dquery_gain, dkey_gain, None, None, None, None, None


class _Attention(torch.autograd.Function):
    """Scores of a block of queries against the keys up to its end, one block after the other."""

    @staticmethod
    def forward(ctx: Any, kernels: CDLL, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape, dtype = q.shape, q.dtype
        time, width = shape[2:]
        q, k, v = (x.reshape(-1, time, width) for x in (q, k, v))
        out = torch.empty_like(q)
        probabilities = []
        for start in range(0, time, QUERY_BLOCK):
            end = min(start + QUERY_BLOCK, time)
            p = torch.bmm(q[:, start:end], k[:, :end].mT)
            _call(kernels, "causal_softmax", dtype, p, len(p), end - start, end, start, width**-0.5)
            out[:, start:end] = torch.bmm(p, v[:, :end])
            probabilities.append(p)
        ctx.save_for_backward(q, k, v, *probabilities)
        ctx.kernels = kernels
        return out.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *probabilities = ctx.saved_tensors
        shape, dtype = dout.shape, q.dtype
        time, width = shape[2:]
        dout = dout.reshape(-1, time, width)
        dq = torch.empty_like(q)
        dk, dv = torch.zeros(k.shape), torch.zeros(v.shape)  # sums over blocks: fp32
        for block, p in enumerate(probabilities):
            start = block * QUERY_BLOCK
            end = min(start + QUERY_BLOCK, time)
            dv[:, :end] += torch.bmm(p.mT, dout[:, start:end])
            ds = torch.bmm(dout[:, start:end], v[:, :end].mT)
            _call(ctx.kernels, "causal_softmax_backward", dtype, ds, p, len(p), end - start, end, start, width**-0.5)
            dq[:, start:end] = torch.bmm(ds, k[:, :end])
            dk[:, :end] += torch.bmm(ds.mT, q[:, start:end])
        return None, dq.view(shape), dk.to(dtype).view(shape), dv.to(dtype).view(shape)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: CDLL, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        width = gate_up.shape[-1] // 2
        out = torch.empty((*gate_up.shape[:-1], width), dtype=gate_up.dtype)
        _call(kernels, "swiglu", gate_up.dtype, gate_up, out, out.numel() // width, width)
        ctx.save_for_backward(gate_up)
        ctx.kernels = kernels
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        (gate_up,) = ctx.saved_tensors
        width, din = dout.shape[-1], torch.empty_like(gate_up)
        _call(
            ctx.kernels,
            "swiglu_backward",
            gate_up.dtype,
            dout.contiguous(),
            gate_up,
            din,
            din.numel() // width // 2,
            width,
        )
        return None, din


class _HeadLoss(torch.autograd.Function):
    """The head's product and the cross-entropy in one: the logits become their own gradient, without a copy."""

    @staticmethod
    def forward(ctx: Any, kernels: CDLL, x: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        logits = F.linear(x, table)
        loss = _call(kernels, "cross_entropy", x.dtype, logits, targets.contiguous(), *logits.shape)
        ctx.save_for_backward(x, table, logits)
        return torch.tensor(loss, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        x, table, dlogits = ctx.saved_tensors
        return None, (dlogits @ table).mul_(scale), (dlogits.mT @ x).mul_(scale), None
