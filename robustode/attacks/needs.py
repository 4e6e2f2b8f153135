"""What an attack needs of a model, beside the parameters: a number of classes, images, few input coordinates."""

from __future__ import annotations

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robustode.models.base import Classifier


class Needs(BaseModel):
    """The models that an attack is for; a key left out asks for nothing.

    Attributes:
        classes: fewest classes. The DLR loss needs 3, its targeted form 4.
        image: True for inputs of shape (channels, height, width) only, False for all others.
        features: most input coordinates.
        features_above: fewer or as many input coordinates are too few.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    classes: int = Field(default=0, ge=0)
    image: bool | None = None
    features: int | None = Field(default=None, ge=1)
    features_above: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.features is not None and self.features_above >= self.features:
            got = f"{self.features_above} and {self.features}"
            raise ValueError(f"expected features_above below features, got {got}")
        return self

    def unmet(self, model: Classifier) -> str:
        """Return why the attack is not for a model, as "needs ..., the model has ..."; "" if it is."""
        shape = tuple(model.input_shape)
        coordinates, pictures = math.prod(shape), len(shape) == 3
        if model.classes < self.classes:
            return f"needs at least {self.classes} classes, the model has {model.classes}"
        if self.image is not None and self.image is not pictures:
            wanted = "images (channels, height, width)" if self.image else "inputs that are not images"
            return f"needs {wanted}, the model has inputs of shape {shape}"
        if self.features is not None and coordinates > self.features:
            return f"needs at most {self.features} input coordinates, the model has {coordinates}"
        if coordinates <= self.features_above:
            return f"needs more than {self.features_above} input coordinates, the model has {coordinates}"
        return ""
