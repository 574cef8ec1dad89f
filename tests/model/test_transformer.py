"""The network against references: a plain forward pass written out, and the Qwen3 of transformers."""

import math

import numpy as np
import pytest
import torch

from crystalline.errors import UserError
from crystalline.model.shape import SIZES, Shape, shape_of
from crystalline.model.transformer import IGNORE, KVCache, Transformer
from crystalline.settings import Model

SHAPE = Shape(vocabulary=61, layers=3, width=48, heads=6, kv_heads=2, head_width=10, hidden=56, context=24, factors=5)
BAGS = (np.array([0, 1, 1, 4, 2], np.int64), np.array([0, 2, 3, 3, 5] + [5] * 57, np.int64))


def trained_looking(shape: Shape = SHAPE, dtype: torch.dtype = torch.float32) -> Transformer:
    """A network whose weights are all random, so that every part takes part."""
    model = Transformer(shape, BAGS if shape.factors else None, dtype)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3, generator=generator)
    return model


def tokens(batch: int = 2, time: int = 24) -> torch.Tensor:
    return torch.randint(0, SHAPE.vocabulary, (batch, time), generator=torch.Generator().manual_seed(5))


def reference_logits(model: Transformer, text: torch.Tensor) -> torch.Tensor:
    """(T,) tokens -> (T, V): the forward pass as formulas, one head and one token at a time, in fp64."""
    shape, w = model.shape, {name: p.detach().double() for name, p in model.named_parameters()}
    table = w["embedding.own"].clone()
    indices, offsets = BAGS
    for token in range(shape.vocabulary):
        for place in range(offsets[token], offsets[token + 1]):
            table[token] += shape.factor_scale * w["embedding.factors"][indices[place]]

    def rms(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt((x * x).mean() + shape.norm_epsilon) * gain

    def turned(x: torch.Tensor, position: int) -> torch.Tensor:
        half, out = shape.head_width // 2, x.clone()
        for i in range(half):
            angle = position * shape.rope_base ** (-2 * i / shape.head_width)
            c, s = math.cos(angle), math.sin(angle)
            out[i], out[i + half] = x[i] * c - x[i + half] * s, x[i + half] * c + x[i] * s
        return out

    stream = [table[t] for t in text]
    for layer in range(shape.layers):
        b, hw = f"blocks.{layer}.", shape.head_width
        qkv = [w[b + "attention.qkv"] @ rms(x, w[b + "attention_norm.gain"]) for x in stream]
        for t in reversed(range(len(stream))):
            heads = []
            for h in range(shape.heads):
                q = turned(rms(qkv[t][h * hw : (h + 1) * hw], w[b + "attention.query_norm.gain"]), t)
                at_k = (shape.heads + h // (shape.heads // shape.kv_heads)) * hw
                at_v = at_k + shape.kv_heads * hw
                keys = [
                    turned(rms(x[at_k : at_k + hw], w[b + "attention.key_norm.gain"]), i) for i, x in enumerate(qkv)
                ]
                scores = torch.stack([q @ keys[i] / math.sqrt(hw) for i in range(t + 1)])
                weights = torch.softmax(scores, 0)
                heads.append(sum(weights[i] * qkv[i][at_v : at_v + hw] for i in range(t + 1)))
            stream[t] = stream[t] + w[b + "attention.output"] @ torch.cat(heads)
        for t, x in enumerate(stream):
            y = w[b + "feed_forward.gate_up"] @ rms(x, w[b + "feed_forward_norm.gain"])
            gate, up = y[: shape.hidden], y[shape.hidden :]
            stream[t] = x + w[b + "feed_forward.down"] @ (gate * torch.sigmoid(gate) * up)
    return torch.stack([table @ rms(x, w["final_norm.gain"]) for x in stream])


def test_the_forward_pass_is_its_formulas():
    model, text = trained_looking(), tokens(1, 9)
    expected = reference_logits(model, text[0])
    torch.testing.assert_close(model(text)[0].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [6, 2])
def test_a_qwen3_checkpoint_holds_it_exactly(kv_heads):
    transformers = pytest.importorskip("transformers")
    shape = Shape(**{**SHAPE.__dict__, "kv_heads": kv_heads})
    model, text = trained_looking(shape), tokens()
    config = transformers.Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=kv_heads,
        head_dim=shape.head_width, max_position_embeddings=shape.context, rms_norm_eps=shape.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base}, tie_word_embeddings=True,
        attn_implementation="eager", bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    theirs = transformers.Qwen3ForCausalLM(config).eval()
    state = {"model.embed_tokens.weight": model.folded_embedding(), "model.norm.weight": model.final_norm.gain}
    rows = [shape.heads * shape.head_width, kv_heads * shape.head_width, kv_heads * shape.head_width]
    for i, block in enumerate(model.blocks):
        a, f = block.attention, block.feed_forward
        gate, up = f.gate_up.chunk(2)
        query, key, value = a.qkv.split(rows)
        names = {
            "self_attn.q_proj": query, "self_attn.k_proj": key, "self_attn.v_proj": value,
            "self_attn.o_proj": a.output, "self_attn.q_norm": a.query_norm.gain, "self_attn.k_norm": a.key_norm.gain,
            "mlp.gate_proj": gate, "mlp.up_proj": up, "mlp.down_proj": f.down,
            "input_layernorm": block.attention_norm.gain, "post_attention_layernorm": block.feed_forward_norm.gain,
        }  # fmt: skip
        state |= {f"model.layers.{i}.{name}.weight": tensor for name, tensor in names.items()}
    missing = theirs.load_state_dict(state, strict=False)
    assert missing.unexpected_keys == []
    assert missing.missing_keys in ([], ["lm_head.weight"])
    with torch.no_grad():
        torch.testing.assert_close(model(text), theirs(text).logits, rtol=1e-4, atol=1e-5)


def test_no_token_sees_the_future():
    model, text = trained_looking(), tokens(1)
    before = model(text)
    for t in (1, 10, 23):
        changed = text.clone()
        changed[0, t] = (changed[0, t] + 7) % SHAPE.vocabulary
        after = model(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.equal(after[:, t:], before[:, t:])


@pytest.mark.parametrize("size", ["1M", "4M", "16M"])
def test_an_untrained_network_knows_nothing(size):
    shape = shape_of(Model(), size, vocabulary=2000)
    model = Transformer(Shape(**{**shape.__dict__, "layers": 1, "context": 64}))
    model.initialize(0)
    text = torch.randint(0, 2000, (8, 65), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = model.loss(text[:, :-1], text[:, 1:]) / (8 * 64)
    assert float(loss) == pytest.approx(math.log(2000), rel=0.02)


def test_factors_start_at_zero_and_then_are_shared():
    model = Transformer(SHAPE, BAGS)
    model.initialize(1)
    assert torch.equal(model.embedding.tables(torch.float32)[0], model.embedding.own)
    with torch.no_grad():
        model.embedding.factors[1] += 1.0  # of tokens 0 and 1
    moved = (model.embedding.tables(torch.float32)[0] - model.embedding.own).abs().sum(1) > 0
    assert moved.nonzero().flatten().tolist() == [0, 1]


def test_a_gradient_reaches_shared_factors_from_head_and_input():
    model, text = trained_looking(), torch.tensor([[0, 0, 0, 0]])
    model.loss(text, torch.tensor([[1, 1, 1, 1]])).backward()
    grad = model.embedding.factors.grad
    # Factor 1 is in tokens 0 (input) and 1 (target); factor 3 is in no token at all.
    assert grad[1].abs().sum() > 0
    assert torch.equal(grad[3], torch.zeros_like(grad[3]))


def test_padding_is_not_learned_from():
    model, text = trained_looking(), tokens(1)
    targets = tokens(1).roll(-1, 1)
    targets[0, 10:] = IGNORE
    full = model.loss(text, targets)
    other = text.clone()
    other[0, 10:] = 0
    assert torch.equal(full, model.loss(other, targets))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_changes_nothing(dtype):
    model, text = trained_looking(dtype=dtype).eval(), tokens(2)
    with torch.inference_mode():
        whole = model(text)
        cache = KVCache(SHAPE, 2, dtype)
        parts = [model(text[:, :7], cache)] + [model(text[:, t : t + 1], cache) for t in range(7, 24)]
    tolerance = 1e-4 if dtype == torch.float32 else 0.15
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=tolerance, atol=tolerance * 10)


def test_bf16_is_near_fp32():
    text = tokens(4)
    exact, quick = trained_looking(), trained_looking(dtype=torch.bfloat16)
    with torch.no_grad():
        a, b = (float(m.loss(text[:, :-1], text[:, 1:])) for m in (exact, quick))
    assert a == pytest.approx(b, rel=0.02)


def test_parameter_counts_are_true():
    for size in ("1M", "2M", "4M"):
        shape = shape_of(Model(), size, vocabulary=1000, factors=5)
        bags = (np.zeros(0, np.int64), np.zeros(1001, np.int64))
        model = Transformer(shape, bags)
        assert sum(p.numel() for p in model.parameters()) == shape.parameters


def test_sizes_are_about_what_they_are_called():
    units = {"M": 1e6, "B": 1e9}
    vocabularies = {"1M": 2048, "2M": 2048, "4M": 4096, "8M": 4096, "16M": 8192, "30M": 8192}
    for name in SIZES:
        wanted = float(name[:-1]) * units[name[-1]]
        shape = shape_of(Model(), name, vocabularies.get(name, 16384))
        assert 0.75 < shape.parameters / wanted < 1.35, (name, shape.parameters)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="did you mean '4M'"):
        shape_of(Model(), "4m", 1000)
    with pytest.raises(UserError, match="use one of: 1, 2, 4"):
        shape_of(Model(kv_heads=3), "4M", 1000)
    with pytest.raises(UserError, match="must be even"):
        shape_of(Model(head_width=33), "4M", 1000)


def test_held_tables_change_no_bit_of_loss_or_gradient():
    results = []
    for hold in (False, True):
        model = trained_looking()
        if hold:
            model.embedding.hold(model.dtype)
        loss = model.loss(tokens(), tokens())
        loss.backward()
        results.append([loss.detach(), *(weight.grad for weight in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_held_tables_follow_when_held_again():
    model = trained_looking()
    model.embedding.hold(model.dtype)
    before = model.embedding.tables(model.dtype)[0].clone()
    with torch.no_grad():
        model.embedding.own.add_(1.0)
        model.embedding.hold(model.dtype)
    assert torch.allclose(model.embedding.tables(model.dtype)[0], before + 1.0)
