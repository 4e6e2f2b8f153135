"""Activations, and what is not there when a model answers."""

from __future__ import annotations

from robustode.certificates.propagate import curves
from robustode.certificates.propagate.curves import Curve
from robustode.certificates.propagate.symbol import Symbol, Untraceable, rule


def _bent(x: Symbol, curve: Curve, inplace: bool = False) -> Symbol:
    out = x.made(x.build.activate(x.node, curve))
    return x.becomes(out) if inplace else out


@rule("relu")
def _relu(input: Symbol, inplace: bool = False) -> Symbol:
    return _bent(input, curves.RELU, inplace)


@rule("relu_")
def _relu_(input: Symbol) -> Symbol:
    return _bent(input, curves.RELU, True)


@rule("tanh")
def _tanh(input: Symbol) -> Symbol:
    return _bent(input, curves.TANH)


@rule("tanh_")
def _tanh_(input: Symbol) -> Symbol:
    return _bent(input, curves.TANH, True)


@rule("sigmoid")
def _sigmoid(input: Symbol) -> Symbol:
    return _bent(input, curves.SIGMOID)


@rule("sigmoid_")
def _sigmoid_(input: Symbol) -> Symbol:
    return _bent(input, curves.SIGMOID, True)


@rule("leaky_relu", "leaky_relu_")
def _leaky_relu(input: Symbol, negative_slope: float = 0.01, inplace: bool = False) -> Symbol:
    if not 0 <= negative_slope <= 1:
        raise Untraceable(f"no bound for 'leaky_relu' with the slope {negative_slope:g}, outside [0, 1],")
    return _bent(input, curves.leaky(negative_slope), inplace)


@rule("elu")
def _elu(input: Symbol, alpha: float = 1.0, inplace: bool = False) -> Symbol:
    if not 0 < alpha <= 1:
        raise Untraceable(f"no bound for 'elu' with alpha {alpha:g}, outside (0, 1],")
    return _bent(input, curves.exponential(alpha), inplace)


@rule("softplus")
def _softplus(input: Symbol, beta: float = 1.0, threshold: float = 20.0) -> Symbol:
    if beta <= 0 or threshold < 0:
        raise Untraceable(f"no bound for 'softplus' with beta {beta:g} and threshold {threshold:g}")
    return _bent(input, curves.softplus(beta, threshold))


@rule("gelu")
def _gelu(input: Symbol, *, approximate: str = "none") -> Symbol:
    if approximate != "none":
        raise Untraceable(f"no bound for 'gelu' approximated by '{approximate}'")
    return _bent(input, curves.GELU)


@rule("silu")
def _silu(input: Symbol, inplace: bool = False) -> Symbol:
    return _bent(input, curves.SILU, inplace)


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
def _dropout(input: Symbol, p: float = 0.5, training: bool = True, inplace: bool = False) -> Symbol:
    if training and p > 0:
        raise Untraceable("no bound for random numbers")
    return input
