"""Logistic regression on standardised features: fitted by scikit-learn, run by torch.

Only arrays are kept, as a network's float64 buffers, so that a detector of this kind is saved,
loaded, moved to a device and scored like any other, and nothing is ever pickled.
"""

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn

from detectors.data import Faces, Labels
from facekit.core.config import Config as BaseConfig

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class Config(BaseConfig):
    """Settings.

    Attributes:
        data: the faces it sees.
        passes: how often each training face is seen, each time re-compressed anew.
        regularisation: weight of the L2 penalty on the coefficients.
    """

    data: Faces = Faces()
    passes: int = Field(4, ge=1, le=100)
    regularisation: float = Field(1.0, gt=0)


class Linear(nn.Module):
    """Features (B, F) float64 to logits (B,) float64."""

    mean: Tensor
    scale: Tensor
    coefficient: Tensor
    intercept: Tensor

    def __init__(self, features: int) -> None:
        """Before :meth:`fit` every logit is 0."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(features, dtype=torch.float64))
        self.register_buffer("coefficient", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("intercept", torch.zeros((), dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """Logits, scikit-learn's ``decision_function``."""
        return (features - self.mean) / self.scale @ self.coefficient + self.intercept

    def fit(self, features: Tensor, labels: Labels, regularisation: float) -> "Pipeline":
        """Fit on (N, F) features; ``regularisation`` is the weight of the L2 penalty.

        Returns:
            The pipeline fitted, for comparison.
        """
        # Only fitting needs them, and they take seconds to load.
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        pipeline = make_pipeline(
            StandardScaler(), LogisticRegression(C=1 / regularisation, max_iter=5000)
        )
        pipeline.fit(features.numpy(force=True), labels)
        scaler, regression = pipeline[0], pipeline[1]
        for buffer, value in (
            (self.mean, scaler.mean_),
            (self.scale, scaler.scale_),
            (self.coefficient, regression.coef_[0]),
            (self.intercept, regression.intercept_[0]),
        ):
            buffer.copy_(torch.as_tensor(value))
        return pipeline
