"""Match the weights of a model with the layers of its graph, and give reasons for layers that are left out."""

import keras

from keras_prune import _keras
from keras_prune.analysis.activations import nonzero_shares
from keras_prune.layers import skip_reasons
from keras_prune.layers.kinds import DROPOUTS
from keras_prune.layers.traversal import layers_in
from keras_prune.layers.weights import labels, pruned_weights
from keras_prune.models.graph import Source, dropout_sources, has_graph, leaf_layers, pruned_dropouts


def weight_nodes(model, owners) -> dict[int, keras.layers.Layer]:
    """Returns, by `id` of an owner of connections, the outermost layer around it that holds no other owner.

    The outputs of a layer with several owners, such as multi-head attention, belong to none of them.
    """
    own = {id(layer) for layer in owners}
    nodes: dict[int, keras.layers.Layer] = {}
    for leaf in leaf_layers(model):
        for layer in layers_in(leaf) if isinstance(leaf, keras.layers.Layer) else ():
            inside = [id(inner) for inner in layers_in(layer) if id(inner) in own]
            if len(inside) == 1:
                nodes.setdefault(inside[0], layer)
    return nodes


def activations_of(model, layers, places, x, steps) -> dict[int, float]:
    """Returns, by `id` of a weight layer, the share of its activations that are not zero; the last ones count as 1."""
    ends = {id(layer): places[id(layer)].activation(layer) for layer in layers if id(layer) in places}
    shares = nonzero_shares(model, list(ends.values()), x, steps)
    last = _ends(model)
    return {
        layer: 1.0 if id(end) in last and id(end) not in places[layer].consumers else shares[id(end)]
        for layer, end in ends.items()
    }


def _ends(model) -> set[int]:
    """Returns, by `id`, the layers that make the outputs of a model; nested models are opened."""
    if not isinstance(model, keras.Model):
        return {id(model)}
    outputs = keras.tree.flatten(model.outputs) if has_graph(model) else []
    return set().union(*(_ends(_keras.origin_of(tensor)[0]) for tensor in outputs))


def left_out_layers(model, groups) -> dict[str, str]:
    """Returns, by path, the reason for each layer that has weights but no masks, and each dropout whose rate stays."""
    layers = layers_in(model)
    reasons = {id(layer): reason for layer, reason in skip_reasons.unmaskable_layers(layers)}
    if pruned_weights(model):
        for layer, weights in groups:
            if not any(weight.pruned for weight in weights):
                trainable = any(weight.variable.trainable for weight in weights)
                reasons.setdefault(id(layer), skip_reasons.NO_CRITERION if trainable else skip_reasons.FROZEN)
        sources = dropout_sources(model)
        tied = {id(rate.owner()) for rate, _ in pruned_dropouts(model)}
        for layer in layers:
            if isinstance(layer, DROPOUTS) and id(layer) not in tied and layer.rate > 0:
                reasons[id(layer)] = _why_rate_stays(sources.get(id(layer)))
    else:  # Nobody asked for pruning.
        for layer, _ in groups:
            reasons.pop(id(layer), None)
    return {name: reasons[key] for key, name in labels(model, [one for one in layers if id(one) in reasons]).items()}


def _why_rate_stays(source: Source | None) -> str:
    if source is None:
        return skip_reasons.NO_GRAPH
    if source.layer is None:
        return source.reason
    return skip_reasons.FIXED_RATE if pruned_weights(source.layer) else skip_reasons.SOURCE_NOT_PRUNED
