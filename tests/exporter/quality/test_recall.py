"""Recall of searches in vectors with known answers."""

from __future__ import annotations

import numpy as np

from featurewire_exporter.quality.recall import cutoffs, recall


def test_one_vector_for_all_queries_finds_nothing():
    index = np.eye(20, 8) + 1
    found = recall(np.ones((20, 8)), np.arange(20), np.ones((20, 8)))
    assert found.at_1 == 0
    assert recall(index[:8], np.arange(8), index[:8]).at_1 == 1


def test_a_cut_off_moves_with_the_similarities_of_different_pictures():
    random = np.random.default_rng(3)
    old = random.normal(size=(300, 4))
    same = dict(cutoffs(old, old))
    assert same.keys() >= {0.9, 0.8}
    for cutoff, moved in same.items():
        assert moved >= cutoff
        assert moved - cutoff < 0.01
