"""What one phase of a training shall do, and what it did, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pigeonholed_training.fitting.schedule import Kind


@dataclass(frozen=True, slots=True)
class Plan:
    """One phase.

    Attributes:
        name: of the phase; its checkpoints are named for it.
        output: `softmax`: a logit a class, or `sigmoid`: the logit of the second of two classes.
        epochs: passes over the training pictures, at most.
        learning_rate: the highest of the schedule.
        optimiser: `sgd` has Nesterov momentum.
        momentum: of `sgd`.
        weight_decay: decoupled, times the learning rate a step; biases and scales are spared.
        schedule: how the rate falls.
        warmup_epochs: epochs over which the rate rises; in proportion where a time budget shortens the plan.
        label_smoothing: share of the target that is spread over all classes.
        ema: decay a step of the running average of the weights; 0 is without.
        patience: epochs without a better validation loss before training stops, and the weights of the best epoch
            are the result; 0 is without either.
        class_weights: what a picture of each class counts; None is all the same.
        clip_norm: longest gradient, all weights taken together; 0 is without.
        precision: dtype policy of Keras to train in, see `precision.choose`.
    """

    name: Literal["train", "head", "finetune"]
    output: Literal["softmax", "sigmoid"]
    epochs: int
    learning_rate: float
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Kind = "cosine"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    patience: int = 0
    class_weights: tuple[float, ...] | None = None
    clip_norm: float = 0.0
    precision: str = "float32"

    @property
    def prefix(self) -> str:
        """How its lines begin."""
        return "" if self.name == "train" else f"{self.name} "


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the history; losses are mean cross-entropies in nats.

    Attributes:
        epoch: counted from 1, over all phases.
        loss: of the training pictures, while they were learnt from.
        accuracy: likewise.
        validation_loss: afterwards.
        validation_accuracy: afterwards.
        seconds: of the epoch, validation and all.
        learning_rate: of its last step.
        phase: the name of the plan.
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    learning_rate: float = 0.0
    phase: str = "train"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came out.

    Attributes:
        model: keras.Model in float32, without optimiser.
        history: every epoch of this phase, also of earlier sessions.
        kept: the epoch whose weights these are.
    """

    model: Any
    history: tuple[Epoch, ...]
    kept: int
