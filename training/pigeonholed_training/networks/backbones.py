"""Networks that have learned on ImageNet, without their top: frozen, then partly unfrozen, with a new end on them.

A backbone always runs as in inference, in training too: its batch normalisation keeps the statistics of ImageNet, and
its dropout is off. `base(x, training=False)` does not see to that, although Keras' guide says so: a model called with
`training=True` passes that on to all layers inside (keras-team/keras#20285). Normalisation layers that are not
trainable and dropout of rate 0 do, and both are kept in checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.errors import Misconfigured, WrongUsage
from pigeonholed_training.networks import weights as weight_files
from pigeonholed_training.networks.weights import Weights
from pigeonholed_training.recipes import wording

if TYPE_CHECKING:
    import numpy.typing as npt

    from pigeonholed_training.recipes.recipe import Transfer

SMALLEST = 32  # pixels of a side; fewer would vanish on the way


@dataclass(frozen=True, slots=True)
class Backbone:
    """One network of `keras.applications`.

    Attributes:
        function: its name there.
        options: arguments of that function.
        scaling: what it wants of the pixels: `signed` is -1 to 1, `caffe` is BGR minus the means of ImageNet,
            `standard` is zero mean and unit variance over ImageNet.
        features: numbers that it makes of a picture, after average pooling.
        stages: where fine-tuning may begin, from the first to the last; each is how names of layers begin.
        finetuned: the stage from which on a few thousand pictures can teach it.
    """

    function: str
    scaling: Literal["signed", "caffe", "standard"]
    features: int
    stages: tuple[str, ...]
    finetuned: str
    options: tuple[tuple[str, Any], ...] = ()


_OWN_SCALING = ("include_preprocessing", False)  # ours is in float32, whatever the policy
BACKBONES = {
    "mobilenet-v2": Backbone(
        "MobileNetV2", "signed", 1280, ("Conv1", *(f"block_{number}" for number in range(1, 17)), "Conv_1"), "block_13"
    ),
    "vgg16": Backbone("VGG16", "caffe", 512, ("block1", "block2", "block3", "block4", "block5"), "block5"),
    "resnet50": Backbone("ResNet50", "caffe", 2048, ("conv1", "conv2", "conv3", "conv4", "conv5"), "conv5"),
    "efficientnetv2-b0": Backbone(
        "EfficientNetV2B0",
        "standard",
        1280,
        ("stem", "block1", "block2", "block3", "block4", "block5", "block6", "top"),
        "block6",
        (_OWN_SCALING,),
    ),
    "mobilenetv3-small": Backbone(
        "MobileNetV3Small",
        "signed",
        576,
        ("conv", *(f"expanded_conv_{number}" for number in range(1, 11)), "conv_1"),
        "expanded_conv_8",
        (_OWN_SCALING,),
    ),
    "mobilenet-v1-025": Backbone(
        "MobileNet",
        "signed",
        256,
        ("conv1", *(f"conv_dw_{number}" for number in range(1, 14))),
        "conv_dw_12",
        (("alpha", 0.25),),
    ),
}

_MEANS = (123.68, 116.779, 103.939)  # of red, green and blue over ImageNet, as Caffe's networks take them
_STANDARD_MEANS = (0.485, 0.456, 0.406)  # of pixels from 0 to 1
_STANDARD_DEVIATIONS = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Trainable:
    """What learns: from which layer of the backbone on (empty: none of it), and how many numbers of how many."""

    first: str
    numbers: int
    total: int


def build(network: Transfer, height: int, width: int, units: int, weights: Weights | str = "none") -> Any:
    """Scaling, backbone, average pooling and a new end; all but the new end is frozen.

    Args:
        network: which backbone, and its end.
        height: pixels.
        width: pixels.
        units: number of logits.
        weights: what `weights.resolve` gave, or what it takes.

    Returns:
        keras.Model: uint8 [N, height, width, 3] -> float32 logits [N, units], in the global dtype policy but for
        scaling, pooling and the last layer, which are float32.

    Raises:
        Misconfigured, Unavailable: pictures smaller than 32 pixels; weights that cannot be had or do not fit.
    """
    keras = import_keras()
    if isinstance(weights, str):
        weights = weight_files.resolve(weights, network.backbone, height, width)
    pixels = keras.Input((height, width, 3), dtype="uint8", name="pixels")
    base = _base(keras, network.backbone, height, width, weights)
    x = base(_scaled(keras, BACKBONES[network.backbone].scaling, pixels))
    x = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(x)
    return keras.Model(pixels, _end(keras, network, x, units), name="transfer")


def features_model(model: Any) -> Any:
    """The part of a built network that makes features: uint8 [N, H, W, 3] -> float32 [N, F]; it shares all weights."""
    return import_keras().Model(model.input, model.get_layer("pool").output, name="features")


def head_model(network: Transfer, units: int) -> Any:
    """The new end alone, to be trained on features: float32 [N, F] -> float32 logits [N, units]."""
    keras = import_keras()
    features = keras.Input((BACKBONES[network.backbone].features,), name="features")
    return keras.Model(features, _end(keras, network, features, units), name="head")


def put_head(model: Any, head: Any) -> None:
    """Copies what a `head_model` has learned into the network that it is the end of."""
    for layer in head.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())


def put_linear(model: Any, kernel: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> None:
    """Sets the last layer of a network without dense layers of its own: kernel [F, units] and bias [units]."""
    model.get_layer("logits").set_weights([kernel, bias])


def freeze(model: Any) -> Trainable:
    """Nothing of the backbone learns; compile the model afterwards."""
    base = _base_of(model)
    base.trainable = False
    return _trainable(model, "")


def unfreeze(model: Any, layers: str = "") -> Trainable:
    """Lets the end of the backbone learn too, batch normalisation apart; compile the model afterwards.

    Args:
        model: what `build` made, or such a model loaded.
        layers: the start of a layer's name such as `block_13`, that layer and all after it learn; or the fraction of
            the layers with weights that learns, the last ones, such as `0.3`; or `all`; or empty: the default of this
            backbone.

    Raises:
        WrongUsage: no layer is named so.
    """
    keras, base = import_keras(), _base_of(model)
    number = _first(base, layers or BACKBONES[base.name].finetuned)
    base.trainable = True
    for index, layer in enumerate(base.layers):
        layer.trainable = index >= number and not isinstance(layer, keras.layers.BatchNormalization)
    return _trainable(model, base.layers[number].name)


def thaw(model: Any) -> Trainable:
    """Lets everything learn, batch normalisation and its statistics too: for a network that starts from no weights."""
    base = _base_of(model)
    base.trainable = True
    for layer in base.layers:
        layer.trainable = True
    return _trainable(model, next(layer.name for layer in base.layers if layer.weights))


def _base(keras: Any, name: str, height: int, width: int, weights: Weights) -> Any:
    """The frozen backbone: float32 [N, H, W, 3] -> [N, h, w, F]."""
    if min(height, width) < SMALLEST:
        raise Misconfigured(
            f"The backbone {name} takes pictures of at least {SMALLEST}x{SMALLEST} pixels, not {height}x{width}."
        )
    backbone = BACKBONES[name]
    make = getattr(keras.applications, backbone.function)
    base = make(include_top=False, weights=None, input_shape=(height, width, 3), name=name, **dict(backbone.options))
    weight_files.load(base, weights, name)
    base.trainable = False
    for layer in base.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return base


def _scaled(keras: Any, scaling: str, pixels: Any) -> Any:
    """What `keras.applications.*.preprocess_input` does, as layers in float32."""
    layers = keras.layers
    if scaling == "signed":
        return layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="scale")(pixels)
    if scaling == "standard":
        pairs = list(zip(_STANDARD_MEANS, _STANDARD_DEVIATIONS, strict=True))
        scale, offset = (
            [1 / (255 * deviation) for _, deviation in pairs],
            [-mean / deviation for mean, deviation in pairs],
        )
        return layers.Rescaling(scale, offset, dtype="float32", name="scale")(pixels)
    x = layers.Rescaling(1.0, dtype="float32", name="scale")(pixels)
    # A convolution can turn the channels round, and do so exactly: whole numbers up to 255 times 1 or 0, also where
    # the processor multiplies in bfloat16 or TF32.
    to_bgr = layers.Conv2D(3, 1, dtype="float32", trainable=False, name="to_bgr")
    x = to_bgr(x)
    to_bgr.set_weights([np.eye(3, dtype=np.float32)[::-1].reshape(1, 1, 3, 3), -np.array(_MEANS[::-1], np.float32)])
    return x


def _end(keras: Any, network: Transfer, x: Any, units: int) -> Any:
    """Dense layers with ReLU and the logits, dropout before each."""
    layers = keras.layers
    for number, width in enumerate(network.dense, start=1):
        if network.dropout:
            x = layers.Dropout(network.dropout, name=f"dropout_{number}")(x)
        x = layers.Dense(width, activation="relu", name=f"dense_{number}")(x)
    if network.dropout:
        x = layers.Dropout(network.dropout, name="dropout")(x)
    return layers.Dense(units, dtype="float32", name="logits")(x)


def _base_of(model: Any) -> Any:
    """The backbone in a network of ours."""
    return next(layer for layer in model.layers if layer.name in BACKBONES)


def _first(base: Any, layers: str) -> int:
    """Index of the first layer of `base` that learns."""
    names = [layer.name for layer in base.layers]
    if layers == "all":
        return 0
    try:
        share = float(layers)
    except ValueError:
        found = (index for index, name in enumerate(names) if name.startswith(layers))
        index = next(found, None)
        if index is None:
            stages = [*BACKBONES[base.name].stages, "all"]
            said = f"The backbone {base.name} has no layer or stage {layers!a}{wording.nearest(layers, stages)}"
            raise WrongUsage(wording.ended(said)) from None
        return index
    if not 0 < share <= 1:
        raise WrongUsage(f"The fraction of the layers that learn must be above 0 and at most 1, not {layers}.")
    weighted = [index for index, layer in enumerate(base.layers) if layer.weights]
    return weighted[-max(1, round(share * len(weighted)))]


def _trainable(model: Any, first: str) -> Trainable:
    numbers = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return Trainable(first, numbers, int(model.count_params()))
