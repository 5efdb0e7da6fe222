"""A network in training: weights, optimiser and running average, which together decide how it goes on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.fitting.averaging import EVERY, Average

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from pigeonholed_training.fitting.plan import Plan

    Arrays = dict[str, npt.NDArray[Any]]


class Learner:
    """One network that is trained by one plan.

    Args:
        model: keras.Model giving logits, [N, K], or [N, 1] where the output is `sigmoid`; it is compiled here.
        plan: optimiser, loss and average.
    """

    def __init__(self, model: Any, plan: Plan) -> None:
        self.model, self._plan = model, plan
        self._classes = int(model.output_shape[-1])
        self._class_weights = None if plan.class_weights is None else np.array(plan.class_weights, np.float32)
        model.compile(_optimiser(plan, model), _loss(plan), metrics=[_accuracy(plan)])
        model.optimizer.build(model.trainable_variables)
        self._average = Average(plan.ema, model.get_weights()) if plan.ema else None
        self.steps = 0
        self._averaged = 0

    def learn(self, rows: npt.NDArray[Any], targets: npt.NDArray[np.int32], rate: float) -> tuple[float, float]:
        """One step.

        Args:
            rows: the batch, [B, ...].
            targets: int [B], classes.
            rate: learning rate.

        Returns:
            Loss, and accuracy, of this batch before the step.
        """
        self.model.optimizer.learning_rate = rate
        weights = None if self._class_weights is None else self._class_weights[targets]
        said = self.model.train_on_batch(rows, self._encoded(targets), weights, return_dict=True)
        self.steps += 1
        if self.steps - self._averaged >= EVERY:
            self._take_in()
        return float(said["loss"]), float(said["accuracy"])

    def weights(self) -> list[npt.NDArray[Any]]:
        """The weights to judge and to keep: the average where there is one. Copies."""
        self._take_in()
        if self._average is not None:
            return [np.array(weight) for weight in self._average.weights]
        return [np.array(weight) for weight in self.model.get_weights()]

    @contextlib.contextmanager
    def judged(self) -> Iterator[Any]:
        """The model with the weights that are kept; afterwards it has its own again."""
        if self._average is None:
            yield self.model
            return
        self._take_in()
        own = self.model.get_weights()
        self.model.set_weights(self._average.weights)
        try:
            yield self.model
        finally:
            self.model.set_weights(own)

    def arrays(self) -> Arrays:
        """All that decides how training goes on, by name."""
        self._take_in()
        groups: dict[str, Sequence[Any]] = {
            "weight": self.model.get_weights(),
            "optimiser": [np.array(variable) for variable in self.model.optimizer.variables],
            "average": [] if self._average is None else self._average.weights,
        }
        found: Arrays = {"steps": np.array(self.steps)}
        for group, many in groups.items():
            found |= {f"{group}-{index:04d}": np.array(one) for index, one in enumerate(many)}
        return found

    def put(self, arrays: Arrays) -> None:
        """Takes over what `arrays` gave.

        Raises:
            ValueError: it is of another network or plan.
        """
        own = self.arrays()
        if own.keys() != arrays.keys() or any(own[name].shape != arrays[name].shape for name in own):
            raise ValueError("it is of another network")
        many = {
            group: [arrays[name] for name in sorted(arrays) if name.startswith(f"{group}-")]
            for group in ("weight", "optimiser", "average")
        }
        self.model.set_weights(many["weight"])
        for variable, value in zip(self.model.optimizer.variables, many["optimiser"], strict=True):
            variable.assign(value)
        if self._average is not None:
            self._average.weights = [np.array(weight) for weight in many["average"]]
        self.steps = self._averaged = int(arrays["steps"])

    def reseed(self, seed: int, epoch: int) -> None:
        """Sets the state of dropout, which is no weight, by seed and epoch alone."""
        rng = np.random.default_rng([seed, epoch, 1])
        for variable in self.model.variables:
            if variable.path.endswith("seed_generator_state"):
                variable.assign(rng.integers(0, 2**31, variable.shape))

    def _take_in(self) -> None:
        """Brings the running average up to date."""
        if self._average is not None and self.steps > self._averaged:
            self._average.update(self.model.weights, self.steps, self.steps - self._averaged)
        self._averaged = self.steps

    def _encoded(self, targets: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        if self._plan.output == "sigmoid":
            return targets[:, None].astype(np.float32)
        return np.eye(self._classes, dtype=np.float32)[targets]


def _optimiser(plan: Plan, model: Any) -> Any:
    optimisers = import_keras().optimizers
    common = {"weight_decay": plan.weight_decay or None, "global_clipnorm": plan.clip_norm or None}
    made: Any
    if plan.optimiser == "sgd":
        made = optimisers.SGD(plan.learning_rate, momentum=plan.momentum, nesterov=plan.momentum > 0, **common)
    else:
        # With a decay of 0, AdamW is Adam; Adam takes a decoupled decay too.
        made = optimisers.Adam(plan.learning_rate, **common)
    if plan.weight_decay:
        spared = [variable for variable in model.trainable_variables if len(variable.shape) < 2]
        made.exclude_from_weight_decay(var_list=spared)
    return made


def _loss(plan: Plan) -> Any:
    losses = import_keras().losses
    kind = losses.BinaryCrossentropy if plan.output == "sigmoid" else losses.CategoricalCrossentropy
    return kind(from_logits=True, label_smoothing=plan.label_smoothing)


def _accuracy(plan: Plan) -> Any:
    metrics = import_keras().metrics
    if plan.output == "sigmoid":  # a logit of 0 is a probability of one half
        return metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    return metrics.CategoricalAccuracy(name="accuracy")
