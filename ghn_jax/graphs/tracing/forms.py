"""What a value computed from parameters is to its leaf: the leaf itself, standardised, or another function of it.

A hypernetwork predicts what a layer multiplies or adds. A leaf that reaches its layer through an exponential, a
constant factor or any other function is not that tensor, and is left to the network's own initialisation. Layout
(reshapes, transposes, flips, slices, zero padding) and casts change nothing, and one function is let through: weight
standardisation, ``(w - mean(w)) / sqrt(var(w) + eps)``, times a gain or not, whose layer takes any kernel up to its
mean and scale.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ghn_jax.graphs.tracing.values import Constant, Form, Value, Weight

_SQUARE, _ROOT, _INVERSE_ROOT, _RECIPROCAL = "square", "sqrt", "rsqrt", "reciprocal"
_OF_POWER: Mapping[Any, str] = {2: _SQUARE, 0.5: _ROOT, -0.5: _INVERSE_ROOT, -1: _RECIPROCAL}

_UNARY = {
    (_SQUARE, Form.LEAF): Form.SQUARES,
    (_SQUARE, Form.CENTRED): Form.SQUARES,
    (_SQUARE, Form.MEAN): Form.VARIANCE,
    (_ROOT, Form.VARIANCE): Form.DEVIATION,
    (_INVERSE_ROOT, Form.VARIANCE): Form.INVERSE,
    (_RECIPROCAL, Form.DEVIATION): Form.INVERSE,
    ("reduce_sum", Form.LEAF): Form.MEAN,
    ("reduce_sum", Form.SQUARES): Form.VARIANCE,
}
_OF_ONE_LEAF = {
    ("sub", Form.LEAF, Form.MEAN): Form.CENTRED,
    ("sub", Form.VARIANCE, Form.VARIANCE): Form.VARIANCE,
    ("sub", Form.SCALED, Form.SHIFT): Form.STANDARDISED,
    ("mul", Form.CENTRED, Form.INVERSE): Form.STANDARDISED,
    ("mul", Form.LEAF, Form.INVERSE): Form.SCALED,
    ("mul", Form.MEAN, Form.INVERSE): Form.SHIFT,
    ("div", Form.CENTRED, Form.DEVIATION): Form.STANDARDISED,
    ("div", Form.LEAF, Form.DEVIATION): Form.SCALED,
    ("div", Form.MEAN, Form.DEVIATION): Form.SHIFT,
}
_SCALABLE = frozenset(Form) - {Form.LEAF, Form.OTHER}
_IDENTITIES = {"mul": 1, "div": 1, "add": 0, "sub": 0, "pow": 1}


def power_of(eqn: Any, values: Sequence[Value]) -> Any:
    """Exponent of a power, None if there is none or it is unknown."""
    if eqn.primitive.name == "pow" and isinstance(values[1], Constant):
        return values[1].value
    return eqn.params["y"] if eqn.primitive.name == "integer_pow" else None


def is_identity(eqn: Any, values: Sequence[Value]) -> bool:
    """Whether an operation returns its first operand (or the other one, where they commute) as it is."""
    name = eqn.primitive.name
    if name not in _IDENTITIES or len(values) != 2:
        return False
    known = [v.value if isinstance(v, Constant) and isinstance(v.value, int | float) else None for v in values]
    neutral = [value is not None and value == _IDENTITIES[name] for value in known]
    return neutral[1] or (neutral[0] and name in ("mul", "add"))


def form_after(eqn: Any, values: Sequence[Value]) -> Form:
    """Form of the result of an operation on parameters and constants."""
    name = _OF_POWER.get(power_of(eqn, values), eqn.primitive.name)
    weights = [v for v in values if isinstance(v, Weight)]
    if is_identity(eqn, values):
        return weights[0].form
    if len(weights) == 1:
        return _with_constants(name, weights[0].form, values)
    if len(weights) != 2 or len(values) != 2:
        return Form.OTHER
    first, second = weights
    if (first.leaf, first.index) != (second.leaf, second.index):
        return _with_gain(name, first, second)
    if name == "mul" and first == second:
        return _UNARY.get((_SQUARE, first.form), Form.OTHER)
    found = _OF_ONE_LEAF.get((name, first.form, second.form))
    if found is None and name == "mul":
        found = _OF_ONE_LEAF.get((name, second.form, first.form))
    return found or Form.OTHER


def _with_constants(name: str, form: Form, values: Sequence[Value]) -> Form:
    """Means over a number, variances plus epsilon, a constant gain; standardisation survives nothing else."""
    if (name, form) in _UNARY:
        return _UNARY[name, form]
    if name == "mul" or (name == "div" and isinstance(values[0], Weight)):
        return form if form in _SCALABLE else Form.OTHER
    if name == "div":
        return Form.INVERSE if form is Form.DEVIATION else Form.OTHER
    if name in ("add", "max", "select_n"):  # an epsilon, a floor, and how jnp.var guards against a division by 0
        return form if form in (Form.VARIANCE, Form.DEVIATION) else Form.OTHER
    return Form.OTHER


def _with_gain(name: str, first: Weight, second: Weight) -> Form:
    """A standardised leaf, or the reciprocal deviation that will standardise it, times another leaf."""
    for weight, gain in ((first, second), (second, first)):
        if name == "mul" and weight.form in (Form.STANDARDISED, Form.INVERSE) and gain.form is Form.LEAF:
            return weight.form
    return Form.OTHER
