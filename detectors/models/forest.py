"""Statistics of frequencies and of noise, and gradient-boosted trees on them.

Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", Annals of Statistics 2001,
as scikit-learn's HistGradientBoostingClassifier fits it (after Ke et al., "LightGBM", 2017). The
statistics and their papers are those of ``detectors/models/_traces.py``. Trees find what a weighted
sum cannot: a spectrum that is too weak here only if it is too strong there.

Only arrays are kept, as buffers of one size whatever was fitted, so that a forest is saved and
loaded as any other network, and nothing is ever pickled.
"""

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn

from detectors.data import Faces, Labels
from detectors.models._traces import Traces
from detectors.models.spectrum import Names
from facekit.core.config import Config as BaseConfig

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier


class Config(BaseConfig):
    """Settings.

    Attributes:
        data: the faces it sees.
        features: ``spectrum``, ``dct`` and ``cooccurrence``, or some of them.
        passes: how often each training face is seen, each time re-compressed anew.
        trees: how many.
        leaves: of a tree, at most.
        depth: of a tree, at most.
        learning_rate: the share of each tree that is added.
        leaf_faces: a leaf holds at least so many training faces.
        regularisation: weight of the L2 penalty on the leaves' values.
    """

    data: Faces = Faces()
    features: Names = Field(["spectrum", "dct", "cooccurrence"])
    passes: int = Field(4, ge=1, le=100)
    trees: int = Field(200, ge=1, le=5000)
    leaves: int = Field(15, ge=2, le=255)
    depth: int = Field(5, ge=1, le=16)
    learning_rate: float = Field(0.08, gt=0, le=1)
    leaf_faces: int = Field(20, ge=1)
    regularisation: float = Field(1.0, ge=0)


class Trees(nn.Module):
    """Features (B, F) float64 to logits (B,) float64.

    All buffers but ``start`` are (trees, nodes); node 0 is a root, a leaf's children are itself.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    start: Tensor

    def __init__(self, trees: int, leaves: int, depth: int) -> None:
        """Before :meth:`fit` every logit is 0."""
        super().__init__()
        shape = (trees, 2 * leaves - 1)
        self.depth = depth
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int64))
        for name in ("threshold", "value"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("start", torch.zeros((), dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """Logits, scikit-learn's ``decision_function``; features must be finite."""
        tree = torch.arange(len(self.value), device=features.device)
        node = torch.zeros(len(features), len(tree), dtype=torch.int64, device=features.device)
        for _ in range(self.depth):
            seen = features.gather(1, self.feature[tree, node])
            goes_left = seen <= self.threshold[tree, node]
            node = torch.where(goes_left, self.left[tree, node], self.right[tree, node])
        return self.start + self.value[tree, node].sum(dim=1)

    def fit(
        self, features: Tensor, labels: Labels, config: Config
    ) -> "HistGradientBoostingClassifier":
        """Fit on (N, F) features and labels (N,).

        Returns:
            What was fitted, for comparison.
        """
        # Only fitting needs it, and it takes seconds to load.
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(
            learning_rate=config.learning_rate,
            max_iter=config.trees,
            max_leaf_nodes=config.leaves,
            max_depth=config.depth,
            min_samples_leaf=config.leaf_faces,
            l2_regularization=config.regularisation,
            early_stopping=False,
            random_state=0,
        )
        model.fit(features.numpy(force=True), labels)
        self.start.fill_(float(model._baseline_prediction.item()))
        for i, (tree,) in enumerate(model._predictors):
            nodes = tree.nodes
            leaf, own = nodes["is_leaf"] != 0, range(len(nodes))
            for name, values in (
                ("feature", nodes["feature_idx"]),
                ("threshold", nodes["num_threshold"]),
                ("left", nodes["left"].astype("int64")),
                ("right", nodes["right"].astype("int64")),
                ("value", nodes["value"]),
            ):
                values = values.copy()
                if name in ("left", "right"):
                    values[leaf] = [place for place in own if leaf[place]]
                getattr(self, name)[i, : len(nodes)] = torch.from_numpy(values)
        return model


class Forest(nn.Module):
    """(B, 3, S, S) in [-1, 1] to logits (B,), float64."""

    def __init__(self, config: Config) -> None:
        """For pictures of one size."""
        super().__init__()
        self.traces = Traces(config.features, config.data.size)
        self.trees = Trees(config.trees, config.leaves, config.depth)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, before calibration."""
        logits: Tensor = self.trees(self.traces(images))
        return logits


def network(config: Config) -> nn.Module:
    """The detector, not fitted yet."""
    return Forest(config)


def fit(network: Forest, images: Tensor, labels: Labels, config: Config) -> None:
    """Fit on all training pictures at once: (N, 3, S, S) in [-1, 1], labels (N,)."""
    network.trees.fit(network.traces.of_many(images), labels, config)
