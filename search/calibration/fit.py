"""Fitting a map to judged pairs, in torch."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from emb.search.calibration.maps import Map, blank
from emb.search.calibration.pairs import Pairs

_STEPS, _PATIENCE = 600, 40
_RATE, _DECAY = 0.03, 0.003
_STEEP = 5.0  # as in `maps`


def fit_map(uses: tuple[str, ...], fitted: Pairs, stopping: Pairs, seed: int = 0) -> Map:
    """The map of features `uses` that tells relevant pairs of `fitted` from others, as far as it helps on `stopping`.

    First relevant and irrelevant pairs weigh as much as each other, and random documents count: that teaches order.
    Then slope and offset of all queries together are fitted to the heads of the rankings as they are, so that a
    relevance is the share of such hits that are relevant.
    """
    torch.manual_seed(seed)
    start = blank(uses, fitted.vectors, fitted.scores)
    return _to_shares(_trained(start, fitted, stopping), fitted.heads)


def _trained(start: Map, fitted: Pairs, stopping: Pairs) -> Map:
    model, ours, theirs = _Net(len(start.means)), _tensors(start, fitted), _tensors(start, stopping)
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    best, least, since = copy.deepcopy(model.state_dict()), float("inf"), 0
    for _ in range(_STEPS):
        with torch.no_grad():
            held = float(_loss(model, *theirs))
        best, least, since = (
            (copy.deepcopy(model.state_dict()), held, 0) if held < least - 1e-5 else (best, least, since + 1)
        )
        if since > _PATIENCE:
            break
        optimizer.zero_grad()
        (_loss(model, *ours) + _DECAY * model.size()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.load_state_dict(best)
    return model.into(start)


class _Net(torch.nn.Module):
    """Slope and offset of a query from its features; at first those of Platt's scaling."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(features, 2, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, features: Tensor, distances: Tensor) -> Tensor:
        """Logits `(queries, documents)`."""
        own = features @ self.weights
        steepness = torch.exp(self.bias[0] + own[:, 0].clamp(-_STEEP, _STEEP))
        return steepness[:, None] * distances + (self.bias[1] + own[:, 1])[:, None]

    def size(self) -> Tensor:
        """The sum of squares of what sets a query apart."""
        return self.weights.square().sum()

    def into(self, start: Map) -> Map:
        """`start` with what was learnt."""
        slopes, offsets = self.weights.detach().T.tolist()
        slope, offset = self.bias.tolist()
        return replace(start, slope=slope, offset=offset, slopes=slopes, offsets=offsets)


def _tensors(start: Map, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    features = start.standardised(pairs.vectors, pairs.scores)
    found = (features, start.distances(pairs.scores), pairs.relevant.astype(float))
    features, distances, relevant = (torch.from_numpy(each) for each in found)
    return features, distances, relevant


def _loss(model: _Net, features: Tensor, distances: Tensor, relevant: Tensor) -> Tensor:
    """Cross-entropy in which relevant pairs have half of the weight."""
    positive, negative = relevant.sum().clamp(min=1), (1 - relevant).sum().clamp(min=1)
    weight = relevant / (2 * positive) + (1 - relevant) / (2 * negative)
    return binary_cross_entropy_with_logits(model(features, distances), relevant, weight, reduction="sum")


def _to_shares(found: Map, heads: Pairs) -> Map:
    logits = torch.from_numpy(found.logits(heads.vectors, heads.scores))
    relevant = torch.from_numpy(heads.relevant.astype(float))
    stretch = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([stretch], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(stretch[0].exp() * logits + stretch[1], relevant)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    factor, shift = stretch.detach().tolist()
    return found.stretched(float(torch.tensor(factor).exp()), shift)
