"""What a masked vector looks like to someone without the masks: uniform, and different every time."""

import numpy as np
import pytest
from secagg_network import Network, config

from quire.privacy.dp.wire import unpack
from quire.privacy.secagg.messages import Masked

LENGTH = 60_000


def masked(network, attempt):
    one = network.round(1, attempt)
    network.exchange(one, "mask", network.until("mask", one))
    return [unpack(Masked.decode(node.sent[-1]).vector, network.config.bits, LENGTH) for node in network.nodes.values()]


def chi_square(words, bits):
    """Chi-square over 256 cells of the highest and of the lowest byte; 255 degrees of freedom."""
    for shift in (bits - 8, 0):
        counts = np.bincount((words >> np.uint32(shift)) & np.uint32(255), minlength=256)
        yield ((counts - LENGTH / 256) ** 2 / (LENGTH / 256)).sum()


@pytest.fixture(scope="module", params=[16, 24, 32])
def vectors(request):
    network = Network(4, config(LENGTH, 1, bits=request.param))
    network.agree()
    for node in network.nodes.values():
        node.vector = (np.arange(LENGTH) % 7 * 1000).astype(np.uint32)  # far from uniform, the same for all
    return request.param, network, masked(network, 1), masked(network, 2)


def test_masked_vectors_are_uniform(vectors):
    bits, network, first, second = vectors
    for words in (*first, *second):
        for statistic in chi_square(words, bits):
            assert 255 - 6 * 22.6 < statistic < 255 + 6 * 22.6
    assert max(chi_square(network.nodes[0].vector, bits)) > 1e5  # the test sees what is not uniform


def test_the_difference_of_two_attempts_is_uniform(vectors):
    bits, _, first, second = vectors
    for one, other in zip(first, second, strict=True):
        difference = (one - other) & np.uint32(2**bits - 1)
        for statistic in chi_square(difference, bits):
            assert 255 - 6 * 22.6 < statistic < 255 + 6 * 22.6


def test_masked_vectors_do_not_correlate_with_inputs_or_each_other(vectors):
    _, network, first, second = vectors
    rows = [network.nodes[0].vector, *first, *second]
    correlations = np.corrcoef(np.array(rows, dtype=np.float64))
    off = correlations[~np.eye(len(rows), dtype=bool)]
    assert np.abs(off).max() < 6 / np.sqrt(LENGTH)


def test_the_sum_of_all_but_one_is_uniform_as_well(vectors):
    """Self masks hold even where every pair's mask has a partner."""
    bits, _, first, _ = vectors
    total = sum(first[1:], start=first[0].copy()) & np.uint32(2**bits - 1)
    for statistic in chi_square(total, bits):
        assert 255 - 6 * 22.6 < statistic < 255 + 6 * 22.6
