import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gumbax
from gumbax.nnx import ArchParam
from gumbax.search import report
from gumbax.search.genotype import Genotype
from gumbax.search.network import DerivedNetwork, Supernet, derive
from gumbax.search.primitives import PRIMITIVES
from gumbax.search.space import SMALL_IMAGES


def one_hot(genotype, space):
    return jax.nn.one_hot(jnp.array(genotype.indices(space)), len(space.primitives))


def genotypes(space):
    random = [Genotype.random(jax.random.key(i), space) for i in range(2)]
    none = Genotype.from_indices(jnp.zeros(space.num_edges, int), space)
    return [*random, none]


@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitive_keeps_the_shape_and_each_image_to_itself(name):
    module = PRIMITIVES[name](8, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (3, 5, 6, 8))
    y = module(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    np.testing.assert_allclose(module(x[1:2]), y[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("index", range(3))
def test_derived_network_is_the_argmax_of_the_supernet_to_the_last_bit(
    supernet, space, digits, index
):
    genotype = genotypes(space)[index]
    images = digits.test.images[:3]
    derived = derive(supernet, genotype)
    with jax.disable_jit():
        expected = supernet(images, one_hot(genotype, space), gumbax.single_path)
        np.testing.assert_array_equal(derived(images), expected)


@pytest.mark.parametrize("index", range(3))
def test_derived_network_agrees_when_compiled_and_in_every_class(
    supernet, space, digits, index
):
    genotype = genotypes(space)[index]
    derived = derive(supernet, genotype)

    @nnx.jit
    def both(supernet, derived, images):
        weights = one_hot(genotype, space)
        return supernet(images, weights, gumbax.single_path), derived(images)

    expected, found = both(supernet, derived, digits.test.images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert report.check_derived(supernet, derived, genotype, digits.test.images)


def test_check_of_the_derived_network_can_fail(supernet, space, digits):
    genotype, other, _ = genotypes(space)
    assert genotype != other
    derived = derive(supernet, other)
    assert not report.check_derived(supernet, derived, genotype, digits.test.images)


def test_derived_network_of_the_real_space_agrees_exactly(digits):
    net = Supernet(SMALL_IMAGES, 1, rngs=nnx.Rngs(1))
    net.arch_logits[...] = jax.random.normal(jax.random.key(5), (6, 7))
    genotype = Genotype.most_probable(net.arch_logits[...], SMALL_IMAGES)
    images = digits.test.images[:2]
    with jax.disable_jit():
        weights = one_hot(genotype, SMALL_IMAGES)
        expected = net(images, weights, gumbax.single_path)
        np.testing.assert_array_equal(derive(net)(images), expected)


def test_derived_network_is_an_ordinary_module_of_its_own(supernet, digits):
    derived = derive(supernet)
    assert not jax.tree.leaves(nnx.state(derived, ArchParam))
    images = digits.test.images[:2]
    weights = jax.nn.softmax(supernet.arch_logits[...])
    before = supernet(images, weights, gumbax.mixed_op)
    for _, variable in nnx.to_flat_state(nnx.state(derived)):
        variable[...] = jnp.zeros_like(variable[...])
    nnx.update(derived, jax.tree.map(jnp.zeros_like, nnx.state(derived)))
    after = supernet(images, weights, gumbax.mixed_op)
    np.testing.assert_array_equal(before, after)


def test_logits_get_the_dense_straight_through_gradient(supernet, digits):
    images, key = digits.train.images[:8], jax.random.key(2)
    graphdef, arch, weights = nnx.split(supernet, ArchParam, ...)

    def gradient(operation):
        def loss(arch):
            net = nnx.merge(graphdef, arch, weights)
            choice = gumbax.gumbel_softmax(key, net.arch_logits[...], hard=True)
            return jnp.sum(net(images, choice, operation) ** 2)

        return jax.tree.leaves(jax.jit(jax.grad(loss))(arch))[0]

    expected = gradient(gumbax.mixed_op)
    assert np.abs(expected).max() > 1e-2
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        gradient(gumbax.single_path), expected, rtol=1e-3, atol=1e-4 * scale
    )


def test_genotype_of_another_space_is_refused(space):
    genotype = Genotype.random(jax.random.key(0), SMALL_IMAGES)
    with pytest.raises(ValueError, match="`operations` must name 3 primitives"):
        DerivedNetwork(space, genotype, 1, rngs=nnx.Rngs(0))
