from __future__ import annotations

import pytest
import torch

from explorer.nets.rope import grid_rotation, rotate


def test_special_tokens_are_not_rotated() -> None:
    rotation = grid_rotation((2, 3), 8, special=2)
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, rotation)
    assert torch.equal(turned[:, :, :2], x[:, :, :2])
    assert not torch.allclose(turned[:, :, 2:], x[:, :, 2:])


def test_rotation_equals_complex_multiplication_by_row_and_column_angles() -> None:
    rows, columns, head = 3, 4, 12
    x = torch.randn(1, 1, rows * columns, head, generator=torch.Generator().manual_seed(1))
    turned = rotate(x, grid_rotation((rows, columns), head))[0, 0]
    for token in range(rows * columns):
        position = (token // columns + 1, token % columns + 1)
        for axis in range(2):
            for i in range(3):
                angle = position[axis] * 100 ** (-i / 3)
                a, b = axis * 6 + i, axis * 6 + i + 3
                before = complex(x[0, 0, token, a], x[0, 0, token, b])
                after = before * complex(
                    torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
                )
                found = complex(turned[token, a], turned[token, b])
                assert abs(found - after) < 1e-5


def test_products_of_queries_and_keys_depend_on_the_offset_alone() -> None:
    rotation = grid_rotation((4, 4), 8)
    generator = torch.Generator().manual_seed(2)
    query, key = torch.randn(2, 8, generator=generator)
    queries = rotate(query.expand(1, 1, 16, 8), rotation)[0, 0]
    keys = rotate(key.expand(1, 1, 16, 8), rotation)[0, 0]
    product = queries @ keys.T
    assert product[0, 5] == pytest.approx(product[10, 15].item(), abs=1e-5)
    assert abs(product[0, 5] - product[5, 0]) > 1e-3


def test_repeat_lays_the_same_positions_end_to_end() -> None:
    rotation = grid_rotation((2, 2), 4, special=1)
    twice = rotation.repeat(2)
    assert torch.equal(twice.cos[:5], rotation.cos)
    assert torch.equal(twice.sin[5:], rotation.sin)


def test_a_grid_counted_from_zero_leaves_its_first_token_unrotated() -> None:
    from_zero = grid_rotation((3, 3), 8, start=0)
    assert torch.equal(from_zero.cos[0], torch.ones(8))
    assert torch.equal(from_zero.sin[0], torch.zeros(8))
    # row 1, column 1 counted from zero is where a grid counted from one begins
    assert torch.equal(from_zero.cos[4], grid_rotation((3, 3), 8).cos[0])


def test_heads_that_cannot_be_split_in_four_are_refused() -> None:
    with pytest.raises(ValueError, match="4k channels"):
        grid_rotation((2, 2), 6)
