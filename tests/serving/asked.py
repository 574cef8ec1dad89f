"""Jobs of an engine, and what came of them."""

import queue

from crystalline.model.sampling import Sampling
from crystalline.serving.engine import Job

EOS = 3


class Asked:
    """A job and what came of it."""

    def __init__(self, model, prompt, n=1, max_tokens=40, seed=5, **options):
        self.came = queue.Queue()
        how = options.pop("how", Sampling(seed=seed))
        tokens = model.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        self.job = Job(tokens, how, max_tokens, self.came.put, n=n, **options)
        self.pieces = []

    def wait(self):
        """All pieces, when the job is done."""
        while sum(bool(piece.reason) for piece in self.pieces) < self.job.n:
            piece = self.came.get(timeout=60)
            if isinstance(piece, Exception):
                raise piece
            self.pieces.append(piece)
        return self.pieces

    def texts(self):
        self.wait()
        return ["".join(p.text for p in self.pieces if p.index == i) for i in range(self.job.n)]

    def facts(self, index=0):
        return [fact for piece in self.wait() if piece.index == index for fact in piece.facts]


def alone(model, prompt, seed=5, max_tokens=40, **options):
    return model.generate(prompt, Sampling(seed=seed), max_tokens=max_tokens, **options)
