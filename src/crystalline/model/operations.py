"""What happens between the matrix products: norms, rotation, attention, gating, the loss; with their gradients.

Each operation is one call of kernels.c where that could be compiled, and the same formula in PyTorch where not. Tests
hold the two against each other.
"""

from __future__ import annotations

from ctypes import CDLL
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from crystalline.model.library import call, has_attention, usable

# Queries taken at once: scores of a block stay in the cache, and nothing is computed for keys after it.
QUERY_BLOCK = 128
# Logits held at once where the loss is PyTorch's: 512 MB in fp32, three times that with their gradient. More
# are made in parts, and again for the gradient.
LOGITS_AT_ONCE = 1 << 27


def rms_norm(
    x: Tensor, branch: Tensor | None, gain: Tensor, epsilon: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """x + branch, and this / its rms over the last dimension * gain in `dtype`.

    Zhang & Sennrich 2019, arXiv 1910.07467. x: fp32; branch: in `dtype`, or None to norm x itself.
    """
    kernels = usable(x, dtype)
    if kernels is not None:
        if branch is None:
            return x, _RMSNorm.apply(kernels, x, None, gain, epsilon, dtype)  # type: ignore[no-untyped-call]
        result: tuple[Tensor, Tensor] = _RMSNorm.apply(kernels, x, branch, gain, epsilon, dtype)  # type: ignore[no-untyped-call]
        return result
    if branch is not None:
        x = x + branch
    return x, F.rms_norm(x, gain.shape, gain, epsilon).to(dtype)


def look_up(places: Tensor, table: Tensor) -> Tensor:
    """(...) numbers of rows of a table (R, D) -> (..., D) those rows.

    On the processor the table's gradient is sparse (COO, not coalesced): a large table costs no more than what is
    looked up in it. Elsewhere it is dense, whose sums are known to have a constant order.
    """
    return F.embedding(places, table, sparse=places.device.type == "cpu")


def token_table(
    own: Tensor,
    factors: Tensor,
    bags: tuple[Tensor, Tensor],
    scale: float,
    dtype: torch.dtype,
    held: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """(V, D): each token's own vector plus `scale` times the sum of its factors' vectors, in fp32 and in `dtype`.

    bags: (indices, offsets), int64; the factors of token t are indices[offsets[t] : offsets[t + 1]].
    held: the result for these weights, if it is known already; then only gradients are computed.
    """
    kernels = usable(own, dtype)
    if kernels is not None:
        result: tuple[Tensor, Tensor] = _TokenTable.apply(kernels, own, factors, *bags, scale, dtype, held)  # type: ignore[no-untyped-call]
        return result
    indices, offsets = bags
    shared = F.embedding_bag(indices[: int(offsets[-1])], factors, offsets, mode="sum", include_last_offset=True)
    table = own + scale * shared
    return table, table.to(dtype)


def split_heads(
    qkv: Tensor,
    gains: tuple[Tensor, Tensor] | None,
    rotary: tuple[Tensor, Tensor],
    heads: int,
    kv_heads: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, (H + 2 K) W) -> queries (B, H, T, W), keys and values (B, K, T, W).

    Queries and keys are normed with these gains (None: not at all), and each pair (x[i], x[i + W/2]) is turned by its
    position's angle (Su et al. 2021, arXiv 2104.09864). rotary: cosine and sine, (T, W) fp32.
    """
    kernels = usable(qkv)
    if kernels is not None and gains is not None:
        result: tuple[Tensor, Tensor, Tensor] = _SplitHeads.apply(  # type: ignore[no-untyped-call]
            kernels, qkv, *gains, *rotary, heads, kv_heads, epsilon
        )
        return result
    batch, time = qkv.shape[:2]
    parts = qkv.view(batch, time, heads + 2 * kv_heads, -1).transpose(1, 2)
    q, k, v = parts.split((heads, kv_heads, kv_heads), dim=1)
    q, k = q.float(), k.float()
    if gains is not None:
        q, k = (F.rms_norm(x, gain.shape, gain, epsilon) for x, gain in zip((q, k), gains, strict=True))
    q, k = _rotate(q, rotary), _rotate(k, rotary)
    return q.to(qkv.dtype), k.to(qkv.dtype), v


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(q k' scale) v, each query seeing the keys up to its own, as (B, T, H W).

    q: (B, H, T, W); k, v: (B, K, T, W).
    """
    kernels = usable(q)
    if kernels is not None and has_attention(kernels, q.dtype):
        result: Tensor = _Attention.apply(kernels, q, k, v, scale)  # type: ignore[no-untyped-call]
        return result
    if q.shape[1] != k.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    if kernels is None or not torch.is_grad_enabled():
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    else:
        out = _AttentionByProducts.apply(kernels, q, k, v, scale)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).flatten(2)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of (..., 2 F) -> (..., F) (Shazeer 2020, arXiv 2002.05202)."""
    kernels = usable(gate_up)
    if kernels is None:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
    result: Tensor = _SwiGLU.apply(kernels, gate_up)  # type: ignore[no-untyped-call]
    return result


def head_loss(x: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Sum of -ln softmax(x table')[target], in nats, fp32. Negative targets count nothing.

    x: (N, D); table: (V, D), the same dtype; targets: (N,) int64.
    """
    kernels = usable(x)
    if kernels is None:
        rows = max(1, LOGITS_AT_ONCE // len(table))
        if len(x) <= rows:
            return _cross_entropy(x, table, targets)
        parts = zip(x.split(rows), targets.split(rows), strict=True)
        return torch.stack([checkpoint(_cross_entropy, a, table, b, use_reentrant=False) for a, b in parts]).sum()
    result: Tensor = _HeadLoss.apply(kernels, x, table, targets)  # type: ignore[no-untyped-call]
    return result


def _cross_entropy(x: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x, table).float(), targets, ignore_index=-100, reduction="sum")


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


# --- with their gradients, in kernels.c ------------------------------------------------------------------


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: CDLL, x: Tensor, branch: Tensor | None, gain: Tensor, epsilon: float, dtype: torch.dtype
    ) -> Any:
        x = x.contiguous()
        branch = None if branch is None else branch.contiguous()
        rows, width = x.numel() // x.shape[-1], x.shape[-1]
        total = x if branch is None else torch.empty_like(x)
        y, rstd = torch.empty(x.shape, dtype=dtype), torch.empty(rows)
        call(kernels, "rms_norm", dtype, x, branch, gain, total, y, rstd, rows, width, epsilon)
        ctx.save_for_backward(total, gain, rstd)
        ctx.kernels, ctx.alone = kernels, branch is None
        ctx.set_materialize_grads(False)
        return y if branch is None else (total, y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the sum, if it was used after this, and of what was normed."""
        total, gain, rstd = ctx.saved_tensors
        dy, dtotal = gradients[-1], None if ctx.alone else gradients[0]
        assert dy is not None
        dx, dgain = torch.empty_like(total), torch.zeros_like(gain)
        dbranch = None if ctx.alone else torch.empty_like(dy)
        dtotal = None if dtotal is None else dtotal.contiguous()
        tensors = (dy.contiguous(), dtotal, total, gain, rstd, dx, dbranch, dgain)
        call(ctx.kernels, "rms_norm_backward", dy.dtype, *tensors, len(rstd), len(gain))
        return None, dx, dbranch, dgain, None, None


class _TokenTable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: CDLL, own: Tensor, factors: Tensor, indices: Tensor, offsets: Tensor, scale: float,
        dtype: torch.dtype, held: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        if held is not None:
            table, low = (x.view_as(x) for x in held)
        else:
            table, low = torch.empty_like(own), torch.empty(own.shape, dtype=dtype)
            call(kernels, "token_table", dtype, own, factors, indices, offsets, table, low, *own.shape, scale)
        ctx.save_for_backward(indices, offsets)
        ctx.kernels, ctx.scale, ctx.factors = kernels, scale, factors.shape
        return table, low

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtable: Tensor, dlow: Tensor) -> tuple[Tensor | None, ...]:
        indices, offsets = ctx.saved_tensors
        dtokens, dfactors = torch.empty_like(dtable), torch.zeros(ctx.factors)
        tensors = (dtable.contiguous(), dlow.contiguous(), dtokens, indices, offsets, dfactors)
        call(ctx.kernels, "token_table_backward", dlow.dtype, *tensors, *dtokens.shape, ctx.scale)
        return None, dtokens, dfactors, None, None, None, None, None


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
        call(
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
        call(
            ctx.kernels, "split_heads_backward", qkv.dtype, dq.contiguous(), dk.contiguous(), dv.contiguous(), qkv,
            query_gain, key_gain, cosine, sine, rstd, dqkv, dquery_gain, dkey_gain, *ctx.sizes,
        )  # fmt: skip
        return None, dqkv, dquery_gain, dkey_gain, None, None, None, None, None


class _Attention(torch.autograd.Function):
    """Where the processor has bf16 dot products: all of it in one kernel, which keeps no scores."""

    @staticmethod
    def forward(ctx: Any, kernels: CDLL, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        q, k, v = (x.contiguous() for x in (q, k, v))
        batch, heads, time, width = q.shape
        out, logs = torch.empty((batch, time, heads * width), dtype=q.dtype), torch.empty((batch, heads, time))
        ctx.sizes = (batch, heads, k.shape[1], time, width, scale)
        if not call(kernels, "attention", q.dtype, q, k, v, out, logs, *ctx.sizes):
            raise MemoryError(f"no memory for attention over {time} tokens")
        ctx.save_for_backward(q, k, v, logs)
        ctx.kernels = kernels
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, logs = ctx.saved_tensors
        gradients = [torch.empty_like(x) for x in (q, k, v)]
        tensors = (dout.contiguous(), q, k, v, logs, *gradients)
        if not call(ctx.kernels, "attention_backward", q.dtype, *tensors, *ctx.sizes):
            raise MemoryError(f"no memory for attention over {q.shape[2]} tokens")
        return None, *gradients, None


class _AttentionByProducts(torch.autograd.Function):
    """Elsewhere. Scores of a block of queries against the keys up to its end, one block after the other."""

    @staticmethod
    def forward(ctx: Any, kernels: CDLL, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        shape, dtype = q.shape, q.dtype
        time, width = shape[2:]
        q, k, v = (x.reshape(-1, time, width) for x in (q, k, v))
        out = torch.empty_like(q)
        probabilities = []
        for start in range(0, time, QUERY_BLOCK):
            end = min(start + QUERY_BLOCK, time)
            p = torch.bmm(q[:, start:end], k[:, :end].mT)
            call(kernels, "causal_softmax", dtype, p, len(p), end - start, end, start, scale)
            out[:, start:end] = torch.bmm(p, v[:, :end])
            probabilities.append(p)
        ctx.save_for_backward(q, k, v, *probabilities)
        ctx.kernels, ctx.scale = kernels, scale
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
            call(ctx.kernels, "causal_softmax_backward", dtype, ds, p, len(p), end - start, end, start, ctx.scale)
            dq[:, start:end] = torch.bmm(ds, k[:, :end])
            dk[:, :end] += torch.bmm(ds.mT, q[:, start:end])
        return None, dq.view(shape), dk.to(dtype).view(shape), dv.to(dtype).view(shape), None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: CDLL, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        width = gate_up.shape[-1] // 2
        out = torch.empty((*gate_up.shape[:-1], width), dtype=gate_up.dtype)
        call(kernels, "swiglu", gate_up.dtype, gate_up, out, out.numel() // width, width)
        ctx.save_for_backward(gate_up)
        ctx.kernels = kernels
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        (gate_up,) = ctx.saved_tensors
        width, din = dout.shape[-1], torch.empty_like(gate_up)
        call(
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
        loss = call(kernels, "cross_entropy", x.dtype, logits, targets.contiguous(), *logits.shape)
        ctx.save_for_backward(x, table, logits)
        return torch.tensor(loss, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        x, table, dlogits = ctx.saved_tensors
        return None, (dlogits @ table).mul_(scale), (dlogits.mT @ x).mul_(scale), None
