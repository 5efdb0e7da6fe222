"""A recipe: how a model is made, as plain values that can be listed, changed, saved and compared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pigeonholed.imaging import PixelSpec
from pigeonholed_training.data.splitting import Shares
from pigeonholed_training.fitting.augmentation import Augmentation
from pigeonholed_training.recipes import layers as language

Backbone = Literal["mobilenet-v2", "vgg16", "resnet50", "efficientnetv2-b0", "mobilenetv3-small", "mobilenet-v1-025"]
Side = Annotated[int, Field(ge=1, le=4096)]
Units = Annotated[int, Field(ge=1, le=language.MOST_UNITS)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Share = Annotated[float, Field(ge=0, lt=1)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]


class Frozen(BaseModel):
    """Values that never change, know no other keys and hold no nan."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stack(Frozen):
    """Layers one after the other, each written as a word; see `recipes.layers` for the language."""

    kind: Literal["stack"] = "stack"
    layers: Annotated[tuple[str, ...], Field(max_length=500)]

    @field_validator("layers")
    @classmethod
    def _can_be_read(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        language.parse(words)
        return words


class Groups(Frozen):
    """Groups of convolutions, each half the size of the one before; see `networks.groups`.

    Attributes:
        widths: filters of each group.
        depth: convolutions a group.
        residual: adds what a group's first convolution gives to what the others make of it.
        stem: filters of the convolution before the groups.
        stem_kernel: its side.
        stem_stride: its step; 2 halves the sides once more, for larger pictures.
        activation: after each convolution.
        pool: what is taken of each map at the end, its largest value or the mean.
        dropout: before the logits.
        logit_scale: what is made of the pictures is multiplied by this before the logits; less than 1 lets rates be
            high.
    """

    kind: Literal["groups"] = "groups"
    widths: Annotated[tuple[Units, ...], Field(min_length=1, max_length=8)]
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    residual: bool = False
    stem: Units = 24
    stem_kernel: Annotated[int, Field(ge=1, le=11)] = 2
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 1
    activation: Literal["relu", "gelu", "silu"] = "relu"
    pool: Literal["max", "mean"] = "max"
    dropout: Share = 0.0
    logit_scale: Rate = 1.0

    @model_validator(mode="after")
    def _residual_has_something_to_add(self) -> Groups:
        if self.residual and self.depth < 2:
            raise ValueError(f"residual needs a depth of at least 2, not {self.depth}")
        return self

    def check(self, height: int, width: int) -> None:
        """Raises ValueError where pictures of that size would vanish on the way."""
        needed = (2 ** len(self.widths) - 1) * self.stem_stride + 1
        if min(height, width) < needed:
            raise ValueError(
                f"{len(self.widths)} groups take pictures of at least {needed}x{needed} pixels, not {height}x{width}; "
                "give larger ones, or fewer groups"
            )


class Transfer(Frozen):
    """A network of `keras.applications` without its last layer, and a new end on it.

    Attributes:
        backbone: which; see `networks.backbones`.
        dense: units of own layers between its features and the logits, with ReLU.
        dropout: before each of these and before the logits.
        head: `dense` is trained step by step on augmented pictures; `logistic` is a regularised logistic regression on
            features that are computed once.
    """

    kind: Literal["transfer"] = "transfer"
    backbone: Backbone
    dense: Annotated[tuple[Units, ...], Field(max_length=8)] = ()
    dropout: Share = 0.2
    head: Literal["logistic", "dense"] = "dense"

    @model_validator(mode="after")
    def _a_regression_has_no_layers(self) -> Transfer:
        if self.head == "logistic" and self.dense:
            raise ValueError("head = logistic has no layers of its own; leave dense empty, or take head = dense")
        return self


class Finetune(Frozen):
    """The second phase of transfer: part of the backbone learns too.

    Attributes:
        epochs: passes over the training pictures; 0 leaves the phase out.
        learning_rate: the highest of its schedule.
        layers: where learning begins: the start of a layer's name such as `block_13`, that layer and all after it
            learn; or a fraction of the layers, the last ones, such as `0.3`; or `all`; empty is where it pays for this
            backbone.
    """

    epochs: Annotated[int, Field(ge=0, le=100_000)] = 0
    learning_rate: Rate = 1e-4
    layers: Annotated[str, Field(max_length=100)] = ""


class Recipe(Frozen):
    """Everything that decides how a model is made, besides data, seed and the file that weights come from.

    Attributes:
        name: what `--recipe` calls it.
        purpose: what it is for, in one line.
        network: what is trained.
        output: `softmax` has one logit a class; `sigmoid` a single one, of the second of exactly two classes.
        twin: name of the recipe for any number of classes, where this one takes two.
        height: pixels that the network takes.
        width: pixels.
        fit: how a picture of another shape is brought to that size.
        augmentation: changes of the training pictures.
        optimiser: `adam`, `adamw`, or `sgd` with Nesterov momentum.
        learning_rate: the highest of the schedule.
        weight_decay: decoupled, a step.
        momentum: of `sgd`.
        schedule: `cosine` falls to 0 over all epochs, `triangle` does in a straight line, `constant` does not fall.
        warmup_epochs: epochs over which the rate rises from 0.
        label_smoothing: this share of the target is spread over all classes.
        epochs: passes over the training pictures.
        batch_size: pictures a step.
        ema: decay a step of the running mean of the weights that is published; 0 publishes the weights themselves.
        patience: epochs without a smaller validation loss after which training ends with the weights of the best;
            0 never ends early.
        class_weights: `balanced` makes rare classes count as much as common ones.
        clip_norm: the longest gradient, others are shortened to it; 0 for no limit.
        mixed_precision: computes in bfloat16 where the processor has instructions for it; weights stay float32.
        finetune: the second phase, of transfer alone.
        shares: how the pictures are split.
        weights: where the network starts from, unless `--weights` says otherwise.
    """

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f/]+$")]
    purpose: Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    network: Annotated[Stack | Groups | Transfer, Field(discriminator="kind")]
    output: Literal["softmax", "sigmoid"] = "softmax"
    twin: Annotated[str, Field(max_length=100)] = ""
    height: Side
    width: Side
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    augmentation: Augmentation = Augmentation()
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: Rate = 1e-3
    weight_decay: Share = 1e-3
    momentum: Share = 0.9
    schedule: Literal["cosine", "constant", "triangle"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0, le=100_000)] = 1.0
    label_smoothing: Share = 0.0
    epochs: Epochs = 20
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    ema: Share = 0.0
    patience: Annotated[int, Field(ge=0, le=100_000)] = 0
    class_weights: Literal["none", "balanced"] = "none"
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    mixed_precision: bool = False
    finetune: Finetune = Finetune()
    shares: Shares = Field(default_factory=Shares)
    weights: Literal["none", "imagenet"] = "none"

    @model_validator(mode="after")
    def _network_fits_the_pictures(self) -> Recipe:
        if isinstance(self.network, Stack):
            language.follow(language.parse(self.network.layers), self.height, self.width)
        if isinstance(self.network, Groups):
            self.network.check(self.height, self.width)
        return self

    @model_validator(mode="after")
    def _only_transfer_has_something_to_finetune(self) -> Recipe:
        if not isinstance(self.network, Transfer) and self.finetune.epochs:
            raise ValueError(
                "finetune.epochs is for networks of kind transfer; this one learns as a whole from the start"
            )
        return self

    @property
    def pixel_spec(self) -> PixelSpec:
        """The pixels that `imaging.decode` shall make."""
        return PixelSpec(height=self.height, width=self.width, fit=self.fit)

    def units(self, classes: int) -> int:
        """Numbers that the network gives for a picture: a logit a class, or a single one."""
        return 1 if self.output == "sigmoid" else classes

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON and TOML."""
        return self.model_dump(mode="json")
