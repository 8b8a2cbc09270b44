"""The choices of one step, drawn once and shared by name."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping

import jax
from jax.typing import ArrayLike

from gumbax._common import checks, keys
from gumbax.samplers.relaxation import gumbel_softmax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Choices:
    """The weights of one step, by the name of the choice. A pytree.

    Every operation that reads one name gets one draw, whatever cell or device it is on.

    Attributes:
        weights: name -> weights with the shape of the logits of that name.

    Example:
        >>> choices = Choices({"normal": jnp.eye(3)[:2]})
        >>> choices["normal"].shape
        (2, 3)
    """

    weights: Mapping[str, jax.Array]

    def __getitem__(self, name: str) -> jax.Array:
        if name in self.weights:
            return self.weights[name]
        raise KeyError(
            checks.message(
                "Choices",
                "name",
                f"be one of {sorted(self.weights)}",
                repr(name),
                "Give its logits to `draw_choices`.",
            )
        )


def draw_choices(
    key: jax.Array,
    logits: Mapping[str, ArrayLike],
    *,
    sampler: Callable[..., jax.Array] = gumbel_softmax,
    num_examples: int | None = None,
    **options: object,
) -> Choices:
    """Draws the weights of every choice of a step.

    The draw of a name depends on the key, the name and its logits alone: other names
    can come and go. The weight step and the architecture step of a search take two
    keys. The words behind the noise are the same on every backend, float values to one
    unit, hard draws but for near-ties.

    Args:
        key: scalar key. Consumed.
        logits: name -> unnormalised log-probabilities, [..., K].
        sampler: (key, logits, **options) -> weights of the shape of the logits:
            `gumbax.gumbel_softmax` or a function of the same kind.
        num_examples: None for one draw for the whole batch, which `single_path` needs.
            With N, one draw for each of N examples, [N, ..., K]. Their rows [N, K] are
            for `mixed_op`, which evaluates all K branches: K times the forward cost of
            one draw. Static.
        **options: given to the sampler: `temperature=...`, `hard=True`. `single_path`,
            and a `MixedOp` called with `hard=True`, need hard draws: soft weights would
            run as the branch of the largest, times its weight.

    Returns:
        A `Choices` record.

    Raises:
        TypeError: `key` is not one key, or `num_examples` is not an integer.
        ValueError: `num_examples` is negative, or two names have one hash.

    Example:
        >>> logits = {"normal": jnp.zeros((4, 3)), "reduce": jnp.zeros((4, 3))}
        >>> choices = draw_choices(jax.random.key(0), logits, hard=True)
        >>> choices["reduce"].sum(axis=-1).tolist()
        [1.0, 1.0, 1.0, 1.0]

    References:
        Dong, Yang, 2019 (GDAS), Sec. 3.2: one draw shared by the cells of a type.
        https://arxiv.org/abs/1910.04465
    """
    key = checks.scalar_key("draw_choices", key)
    must = "be a function of (key, logits, **options)"
    checks.function("draw_choices", "sampler", sampler, must, "Pass a sampler itself.")
    must = "map names to logits"
    if not isinstance(logits, Mapping) or not all(isinstance(n, str) for n in logits):
        cure = 'Name each choice, as in `{"normal": logits}`.'
        got = checks.shown(logits)
        raise TypeError(checks.message("draw_choices", "logits", must, got, cure))
    if num_examples is not None:
        cure = "For one draw for the whole batch leave it out."
        checks.count("draw_choices", "num_examples", num_examples, 0, cure)
    names: dict[int, str] = {}
    for name in logits:
        # Not Python's hash, which differs from process to process.
        number = zlib.crc32(name.encode())
        if number in names:
            raise ValueError(
                checks.message(
                    "draw_choices",
                    "logits",
                    "have names with different hashes",
                    f"{names[number]!r} and {name!r}, which would share one draw",
                    "Rename one of them.",
                )
            )
        names[number] = name
    weights = {}
    folded = keys.folded(key, tuple(names))
    for own, (name, given) in zip(folded, logits.items(), strict=True):
        must, cure = f"hold arrays, {name!r} too", "Its last axis is the categories."
        values = checks.array("draw_choices", "logits", given, must, cure)
        if num_examples is None:
            weights[name] = sampler(own, values, **options)
        else:
            weights[name] = jax.vmap(lambda k, v=values: sampler(k, v, **options))(
                jax.random.split(own, num_examples)
            )
    return Choices(weights)
