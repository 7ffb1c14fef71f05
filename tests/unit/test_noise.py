from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer.errors import BackboneError
from explorer.noise import (
    CogVideoXSchedule,
    FlowSchedule,
    NoiseLevel,
    OpenSoraSchedule,
    Schedule,
    WanSchedule,
)

TABLES: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "noise-tables.json").read_text()
)
OPEN_SORA_AT = TABLES["open-sora-2.0"]["at"]
OPEN_SORA = OpenSoraSchedule(OPEN_SORA_AT["tokens_per_frame"], OPEN_SORA_AT["latent_frames"])
ALL: list[Schedule] = [
    WanSchedule(),
    WanSchedule(earlier_release=True),
    FlowSchedule(),
    CogVideoXSchedule(3.0),
    CogVideoXSchedule(1.0),
    OPEN_SORA,
]


@pytest.mark.parametrize(("rows", "earlier"), [("rows", False), ("rows_earlier_release", True)])
def test_wan_levels_equal_the_reference_scheduler_row_by_row(rows: str, earlier: bool) -> None:
    schedule = WanSchedule(earlier_release=earlier)
    for row in TABLES["wan2.1"][rows]:
        level = schedule.at_index(row["index"])
        assert level.official_index == row["index"]
        assert level.timestep == row["model_timestep"]
        assert level.sigma == pytest.approx(row["sigma_of_index"], abs=1e-6)
        assert level.noise == pytest.approx(row["noise_coefficient"], abs=1e-6)
        assert level.signal == pytest.approx(row["x0_coefficient"], abs=1e-6)


def test_the_wan_list_of_timesteps_has_the_stated_ends_and_duplicates() -> None:
    facts = TABLES["wan2.1"]["list_facts"]
    timesteps = WanSchedule().timesteps
    assert timesteps[:6].tolist() == facts["first_timesteps"]
    assert timesteps[-6:].tolist() == facts["last_timesteps"]
    assert len(np.unique(timesteps)) == facts["distinct_timesteps"]
    assert str(timesteps.dtype) == facts["dtype"]


@pytest.mark.parametrize(("model", "shift"), [("cogvideox-2b", 3.0), ("cogvideox-5b", 1.0)])
def test_cogvideox_levels_equal_the_reference_scheduler_row_by_row(
    model: str, shift: float
) -> None:
    for row in TABLES[model]["rows"]:
        level = CogVideoXSchedule(shift).at_index(row["index"])
        assert level.timestep == row["model_timestep"]
        assert level.signal == pytest.approx(row["sqrt_alpha_bar"], abs=1e-6)
        assert level.noise == pytest.approx(row["sqrt_one_minus_alpha_bar"], abs=1e-6)
        assert level.sigma == level.noise


def test_open_sora_levels_equal_the_reference_scheduler_row_by_row() -> None:
    assert OPEN_SORA.alpha == pytest.approx(OPEN_SORA_AT["alpha"], abs=1e-5)
    for row in TABLES["open-sora-2.0"]["rows"]:
        level = OPEN_SORA.at_time(float(row["t"]))
        assert level.timestep == pytest.approx(row["t_shifted"], abs=1e-6)
        assert level.signal == pytest.approx(row["x0_coefficient"], abs=1e-6)
        assert level.noise == pytest.approx(row["noise_coefficient"], abs=1e-6)
        assert level == OPEN_SORA.at_index(round(1000 * row["t"]))


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.3, 0.5, 0.999, 1.0])
def test_flow_matching_takes_any_sigma_exactly_and_names_the_nearest_wan_index(
    sigma: float,
) -> None:
    level = FlowSchedule().at_sigma(sigma)
    sigmas = WanSchedule().sigmas
    distance = abs(sigmas[level.official_index] - sigma)
    assert (level.sigma, level.timestep) == (sigma, 1000 * sigma)
    assert (level.signal, level.noise) == (1 - sigma, sigma)
    assert distance == np.abs(sigmas - sigma).min()


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_going_from_index_to_sigma_and_back_keeps_the_level(schedule: Schedule) -> None:
    for index in (0, 1, 249, 250, 700, 749, 999):
        level = schedule.at_index(index)
        back = schedule.at_sigma(level.sigma)
        assert back.official_index == index
        assert np.allclose(
            (back.sigma, back.timestep, back.signal, back.noise),
            (level.sigma, level.timestep, level.signal, level.noise),
            atol=1e-9,
        )


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_sigma_timestep_and_noise_grow_together(schedule: Schedule) -> None:
    levels: list[NoiseLevel] = [schedule.at_sigma(sigma) for sigma in np.linspace(0, 1, 41)]
    for name in ("sigma", "timestep", "noise"):
        assert (np.diff([getattr(level, name) for level in levels]) >= 0).all()
    assert (np.diff([level.signal for level in levels]) <= 0).all()


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_a_sigma_or_index_outside_the_schedule_is_refused(schedule: Schedule) -> None:
    for sigma in (-0.1, 1.1, float("nan")):
        with pytest.raises(BackboneError, match="outside"):
            schedule.at_sigma(sigma)
    for index in (-1, 1001):
        with pytest.raises(BackboneError, match="does not exist"):
            schedule.at_index(index)
