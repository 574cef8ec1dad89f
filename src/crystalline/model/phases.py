"""Angles of tokens and positions: rotary frequencies, and the phases that attention can be biased by.

All of them are tables made once. The standard rotary frequencies are the default; what the golden ratio and the clock
give instead is measured in docs/lattice.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from crystalline.model.shape import Shape
from crystalline.tokens.relations import GOLDEN_ANGLE

GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
CLOCK = 12


def rotary_table(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position times frequency, (context, W) each (Su et al. 2021, arXiv 2104.09864).

    Frequencies of the W / 2 pairs: "standard" falls geometrically from 1 to 1 / rope_base; "golden" by the golden
    ratio each; "clock" has multiples of a twelfth of a turn, so that it repeats every 12 positions.
    """
    pairs = torch.arange(shape.head_width // 2, dtype=torch.float64)
    if shape.rotary == "golden":
        frequencies = GOLDEN_RATIO**-pairs
    elif shape.rotary == "clock":
        frequencies = 2 * math.pi / CLOCK * (pairs % CLOCK + 1)
    else:
        frequencies = shape.rope_base ** -(2 * pairs / shape.head_width)
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().float(), angles.sin().float()


class Phases(nn.Module):
    """The features (cosine, sine) of every phase of a shape: their inner product is cos(difference of the angles).

    angles: (V,) float64, each token's own angle, for the phase "lattice"; the others turn with the position.
    """

    def __init__(self, shape: Shape, angles: Tensor | None) -> None:
        super().__init__()
        if "lattice" in shape.phases and angles is None:
            raise ValueError("the phase of the lattice needs the tokens' angles")
        places = torch.arange(shape.context, dtype=torch.float64)
        turning = {"golden": places * GOLDEN_ANGLE, "clock": places * (2 * math.pi / CLOCK)}
        self.names = shape.phases
        for name in self.names:
            angle = turning.get(name, angles)
            assert angle is not None
            table = torch.stack((angle.cos(), angle.sin()), dim=-1).float()  # by token or by position
            self.register_buffer(name, table, persistent=False)

    def forward(self, tokens: Tensor, start: int) -> Tensor | None:
        """(B, T) tokens from position `start` on -> (B, T, phases, 2); None when there are no phases."""
        if not self.names:
            return None
        places = torch.arange(start, start + tokens.shape[1], device=tokens.device).expand_as(tokens)
        rows = {"lattice": tokens}
        return torch.stack([self.get_buffer(name)[rows.get(name, places)] for name in self.names], dim=2)
