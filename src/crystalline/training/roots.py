"""Better roots while training: what the model has learned of the tokens proposes, held-out text decides.

Some times in a run the learned vectors are asked which tokens stand nearer to another family than to their own
(tokens/discovery.py). Which root is the better one is then asked of held-out text: it is predicted with what these
tokens share and nothing of their own, once as they are and once as proposed. Where that is easier with the new root,
it stays. A token that moves keeps its vector (its own part takes up the difference), so nothing is predicted worse
than before: what changes is with whom it learns from now on. All is written down with its numbers. It is a pure
function of weights and text, at planned steps: repeated, resumed or shared out, a run finds the same.
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
# In standard deviations (tokens/discovery.py). Geometry needs only to point at what is worth a try, since held-out
# text decides between two roots. For a token that is alone nearly any root predicts better than none, so there it is
# strict.
LEAST_FIT, LEAST_GAIN = 3.0, 0.5
DECIDED_ON = 65_536  # held-out tokens, at least, if there are so many
LEAST_SEEN = 10  # places there that a token must have, as input or as target, for them to say something of it


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
        self.held_out = np.asarray(held_out)
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

        before, after: nats per held-out token, by all that the model knows. tried: for each set of changes that was
        tried, the same by the shared parts alone of the tokens to be moved, with their old and their new roots.
        """
        vectors = self.model.folded_embedding()
        wanted = discovery.propose(
            vectors.numpy(), self.codes, self.counts, at_most=AT_MOST, least_fit=LEAST_FIT, least_gain=LEAST_GAIN
        )
        facts: dict[str, Any] = {"proposed": len(wanted), "before": self._cross_entropy(), "tried": []}
        taken = self._better_one_by_one(wanted)
        while taken:
            old, new = self._by_shared_parts(taken)
            facts["tried"].append({"changes": len(taken), "old": float(old.mean()), "new": float(new.mean())})
            if new.sum() <= old.sum():
                break
            taken = discovery.without_clashes(self.codes, taken[: len(taken) // 2])
        if taken:
            self.use(discovery.apply(self.codes, taken))
            with torch.no_grad():
                own, there = self.model.embedding.own, [proposal.token_id for proposal in taken]
                own[there] += vectors[there] - self.model.folded_embedding()[there]
        facts["after"] = self._cross_entropy() if taken else facts["before"]
        facts["changes"] = [self._told(proposal) for proposal in taken]
        return facts

    def _better_one_by_one(self, wanted: list[Proposal]) -> list[Proposal]:
        """Those of the proposals with whose root the token is predicted, and what follows it, better than without."""
        if not wanted:
            return []
        old, new = self._by_shared_parts(wanted)
        inputs, targets = self.held_out[:-1], self.held_out[1:]
        found = []
        for proposal in wanted:
            there = (inputs == proposal.token_id) | (targets == proposal.token_id)
            if there.sum() >= LEAST_SEEN and new[there].sum() < old[there].sum():
                found.append(proposal)
        return discovery.without_clashes(self.codes, found)

    @torch.no_grad()
    def _by_shared_parts(self, moves: list[Proposal]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(n - 1,) nats of each held-out token where the moving ones have no part of their own: (old roots, new)."""
        embedding, present = self.model.embedding, self.codes
        there = [proposal.token_id for proposal in moves]
        kept = embedding.own[there].clone()
        embedding.own[there] = 0.0
        old = scoring.losses(self.model, self.held_out)
        self.use(discovery.apply(present, moves))
        new = scoring.losses(self.model, self.held_out)
        self.use(present)
        embedding.own[there] = kept
        return old, new

    def _cross_entropy(self) -> float:
        """Nats per token on the held-out text, with the present codes."""
        return float(scoring.losses(self.model, self.held_out).mean())

    def _told(self, proposal: Proposal) -> dict[str, Any]:
        text = self.tokenizer.token_bytes(proposal.token_id).decode("utf-8", errors="backslashreplace")
        change = {"token": proposal.token_id, "text": text, "code": proposal.code}
        return change | {"from": proposal.old_root.name, "to": proposal.root.name, "reason": proposal.reason}
