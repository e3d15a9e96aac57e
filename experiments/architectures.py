"""The 40 architectures of keras.applications with random weights and small inputs, the smallest first."""

import functools
from collections.abc import Callable

import keras

_NAMES = (
    "MobileNetV3Small",
    "MobileNetV2",
    "MobileNet",
    "EfficientNetB0",
    "NASNetMobile",
    "MobileNetV3Large",
    "EfficientNetV2B0",
    "EfficientNetB1",
    "DenseNet121",
    "EfficientNetV2B1",
    "EfficientNetB2",
    "EfficientNetV2B2",
    "EfficientNetB3",
    "DenseNet169",
    "EfficientNetV2B3",
    "EfficientNetB4",
    "DenseNet201",
    "EfficientNetV2S",
    "Xception",
    "InceptionV3",
    "ResNet50V2",
    "ResNet50",
    "ConvNeXtTiny",
    "EfficientNetB5",
    "VGG16",
    "VGG19",
    "EfficientNetB6",
    "ResNet101V2",
    "ResNet101",
    "ConvNeXtSmall",
    "EfficientNetV2M",
    "InceptionResNetV2",
    "ResNet152V2",
    "ResNet152",
    "EfficientNetB7",
    "ConvNeXtBase",
    "NASNetLarge",
    "EfficientNetV2L",
    "ConvNeXtLarge",
    "ConvNeXtXLarge",
)


def architectures() -> dict[str, Callable[[], keras.Model]]:
    """Returns, by name, a function that builds each network for images of 96x96 pixels, with 10 outputs and no softmax.

    All of them can be built at 75x75 pixels. At 96x96, each still has 3x3 positions or more at its end.
    """
    settings = {"weights": None, "input_shape": (96, 96, 3), "classes": 10, "classifier_activation": None}
    return {name: functools.partial(getattr(keras.applications, name), **settings) for name in _NAMES}
