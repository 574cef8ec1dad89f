"""Better roots while training: what the model has learned of the tokens proposes, held-out text decides.

Some times in a run the learned vectors are asked which tokens stand nearer to another family than to their own
(tokens/discovery.py). With these tokens moved, the held-out text is predicted again by the same weights; a change is
taken only if that is not worse, and written down with its numbers either way. It is a pure function of weights and
text, at planned steps: repeated, resumed or shared out, a run finds the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crystalline.model import scoring
from crystalline.model.transformer import Transformer
from crystalline.tokens import discovery
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.discovery import Proposal
from crystalline.tokens.tokenizer import Tokenizer
from crystalline.training.memory import Field, SharedMemory

AT_MOST = 64  # tokens moved at a time


class RootFinder:
    """The codes that training uses, and how they get better.

    model: its embedding reads which factors a token has from memory that all processes share from now on; so this is
    made before they are. codes: at the beginning. times: how often better roots are looked for in a run of `steps`.
    held_out: (n,) tokens to decide by; counts: (V,) how often each token is in the training text.
    """

    def __init__(
        self,
        model: Transformer,
        codes: TokenCodes,
        tokenizer: Tokenizer,
        held_out: NDArray[np.integer[Any]],
        counts: NDArray[np.integer[Any]],
        times: int,
        steps: int,
    ) -> None:
        self.model, self.first_codes, self.tokenizer, self.counts = model, codes, tokenizer, counts
        self.held_out, self.token_bytes = np.asarray(held_out), scoring.token_byte_lengths(tokenizer)
        self.steps = {round(steps * (i + 1) / (times + 1)) for i in range(times)}
        indices, offsets = codes.bags()
        # A token that moves may get a root and a suffix that it had no vectors of.
        room = len(indices) + 2 * times * AT_MOST
        memory = SharedMemory(
            [Field("indices", (room,), torch.int64), Field("offsets", (len(offsets),), torch.int64)]
        )
        model.embedding.indices, model.embedding.offsets = memory["indices"], memory["offsets"]
        self.codes = codes
        self.use(codes)

    def use(self, codes: TokenCodes) -> None:
        """Let every token have the factors that `codes` say, here and in all processes."""
        indices, offsets = codes.bags()
        embedding = self.model.embedding
        embedding.indices.zero_()
        embedding.indices[: len(indices)] = torch.from_numpy(indices)
        embedding.offsets.copy_(torch.from_numpy(offsets))
        self.codes = codes

    def look(self) -> dict[str, Any]:
        """Propose, decide, and use what was found good; what happened, as facts for an event.

        If all proposals together make the held-out text harder to predict, the better half is tried, and so on.
        """
        vectors = self.model.folded_embedding().numpy()
        proposals = discovery.propose(vectors, self.codes, self.counts, at_most=AT_MOST)
        before, present = self._cross_entropy(), self.codes
        facts: dict[str, Any] = {"proposed": len(proposals), "before": before, "tried": []}
        taken = proposals
        while taken:
            self.use(discovery.apply(present, taken))
            after = self._cross_entropy()
            facts["tried"].append({"changes": len(taken), "cross_entropy": after})
            if after <= before:
                break
            self.use(present)
            taken = taken[: len(taken) // 2]
        facts["changes"] = [self._told(proposal) for proposal in taken]
        return facts

    def _cross_entropy(self) -> float:
        """Nats per token on the held-out text, with the present codes."""
        return scoring.score(self.model, self.held_out, self.token_bytes).cross_entropy

    def _told(self, proposal: Proposal) -> dict[str, Any]:
        text = self.tokenizer.token_bytes(proposal.token_id).decode("utf-8", errors="backslashreplace")
        change = {"token": proposal.token_id, "text": text, "code": proposal.code}
        return change | {"from": proposal.old_root.name, "to": proposal.root.name, "reason": proposal.reason}
