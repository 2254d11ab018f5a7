"""An independent nanochat model for tests: float64, one document, written plainly from the table of NANOCHAT.md."""

import math
from typing import Any

import torch
from torch import Tensor

QK_SCALE = {"g1": 1.0, "g2": 1.0, "g3": 1.0, "g4": 1.15, "g5": 1.2}
ROTARY_BASE = {"g1": 1e4, "g2": 1e4, "g3": 1e4, "g4": 1e5, "g5": 1e5}
GATE = {"g3": (2.0, 32), "g4": (3.0, 12), "g5": (3.0, 12)}


def short_window(name: str, context: int) -> int:
    if name in {"g1", "g2", "g3"}:
        return context // 2
    return math.ceil(context / (3 if name == "g4" else 4) / 128) * 128


def reference_logits(
    state: dict[str, Tensor],
    config: dict[str, Any],
    name: str,
    ids: list[int],
    *,
    softcap: float = 15,
    short: int | None = None,
) -> Tensor:
    """(len(ids), vocab_size) float64 logits of one document; `short` replaces the generation's short window."""
    weights = {key: tensor.double() for key, tensor in state.items()}
    num_layers, num_heads, num_kv_heads = config["n_layer"], config["n_head"], config["n_kv_head"]
    head_dim = config["n_embd"] // num_heads
    length = len(ids)
    x = _norm(weights["transformer.wte.weight"][ids])
    if name == "g5":
        smeared = [x[0]]
        for t in range(1, length):
            gate = weights["smear_lambda"] * torch.sigmoid(weights["smear_gate.weight"] @ x[t, :24])
            smeared.append(x[t] + gate * x[t - 1])
        x = torch.stack(smeared)
    x0, middle = x, x
    for layer in range(num_layers):
        block = f"transformer.h.{layer}"
        if name != "g1":
            x = weights["resid_lambdas"][layer] * x + weights["x0_lambdas"][layer] * x0
        h = _norm(x)
        q = (h @ weights[f"{block}.attn.c_q.weight"].T).view(length, num_heads, head_dim)
        k = (h @ weights[f"{block}.attn.c_k.weight"].T).view(length, num_kv_heads, head_dim)
        v = (h @ weights[f"{block}.attn.c_v.weight"].T).view(length, num_kv_heads, head_dim)
        if f"value_embeds.{layer}.weight" in weights:
            scale, channels = GATE[name]
            gate = scale * torch.sigmoid(h[:, :channels] @ weights[f"{block}.attn.ve_gate.weight"].T)
            v = v + gate[..., None] * weights[f"value_embeds.{layer}.weight"][ids].view(v.shape)
        q, k = (_norm(_turn(z, ROTARY_BASE[name])) * QK_SCALE[name] for z in (q, k))
        out = torch.zeros_like(q)
        window = _window(name, config, layer, short or short_window(name, config["sequence_len"]))
        for t in range(length):
            first = 0 if window is None else max(0, t - window)
            for head in range(num_heads):
                kv_head = head // (num_heads // num_kv_heads)
                weight = torch.softmax(k[first : t + 1, kv_head] @ q[t, head] / math.sqrt(head_dim), dim=0)
                out[t, head] = weight @ v[first : t + 1, kv_head]
        x = x + out.reshape(length, -1) @ weights[f"{block}.attn.c_proj.weight"].T
        hidden = torch.clamp(_norm(x) @ weights[f"{block}.mlp.c_fc.weight"].T, min=0) ** 2
        x = x + hidden @ weights[f"{block}.mlp.c_proj.weight"].T
        if layer == num_layers // 2:
            middle = x
    if name == "g5":
        x = x - weights["backout_lambda"] * middle
    logits = _norm(x) @ weights["lm_head.weight"][: config["vocab_size"]].T
    return softcap * torch.tanh(logits / softcap)


def _window(name: str, config: dict[str, Any], layer: int, short: int) -> int | None:
    pattern = config.get("window_pattern")
    if pattern is None:
        return None if name == "g1" else config["sequence_len"]
    is_short = pattern[layer % len(pattern)] == "S" and layer < config["n_layer"] - 1
    return short if is_short else config["sequence_len"]


def _norm(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1.1920929e-07)


def _turn(x: Tensor, base: float) -> Tensor:
    length, _, head_dim = x.shape
    out = torch.empty_like(x)
    half = head_dim // 2
    for t in range(length):
        for i in range(half):
            angle = t / base ** (2 * i / head_dim)
            a, b = x[t, :, i], x[t, :, i + half]
            out[t, :, i] = a * math.cos(angle) + b * math.sin(angle)
            out[t, :, i + half] = -a * math.sin(angle) + b * math.cos(angle)
    return out
