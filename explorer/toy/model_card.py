"""The model cards of `toy-wan` and its variants, written from the facts of their training."""

from __future__ import annotations

from typing import Any

from explorer.toy.config import VARIANTS


def _levels(transformer: dict[str, Any]) -> str:
    levels = transformer.get("validation") or {}
    losses = ", ".join(f"{name.replace('_', ' ')}: {loss:.3f}" for name, loss in levels.items())
    return losses or "not measured"


def model_card(facts: dict[str, Any]) -> str:
    """Markdown for people; `facts` is the content of card.json."""
    vae, transformer = facts["runs"]["vae"], facts["runs"]["transformer"]
    return f"""# toy-wan

A video VAE and a video diffusion transformer in the classes and file layout of Wan2.1, trained on
procedurally rendered video from pixels alone, never on 3D. It stands for the video generators in
Emerge3D: small enough for a laptop's processor, and made to be probed, not to make films.

| | video VAE | transformer |
|---|---|---|
| class | `AutoencoderKLWan` | `WanTransformer3DModel` |
| parameters | {facts["parameters"]["vae"]:,} | {facts["parameters"]["transformer"]:,} |
| data | {vae["data"]} | {transformer["data"]} |
| began with | {_began(vae)} | {_began(transformer)} |
| steps | {vae["steps"]:,} | {transformer["steps"]:,} |
| training seconds | {vae["train_seconds"]:,.0f} | {transformer["train_seconds"]:,.0f} |
| result | {vae["psnr_db"]:.2f} dB PSNR on held-out clips | loss {facts["loss"]:.3f} |

Held-out loss of the transformer by noise level ({_levels(transformer)}).

17 frames of 144x256 become 5x36x64 latents of {len(vae["latents_mean"])} channels. Flow
matching, empty prompt (one zero token), timestep 1000 sigma. Weights are stored in float16 and used
in float32; `card.json` has the whole history of the training, and `explorer/toy/` the scripts.
Apache-2.0, like the rest of the project; the training video is the project's own.
{_samples(facts)}"""


def _began(run: dict[str, Any]) -> str:
    """Whose weights a run took over, for a cell of the table."""
    before = run.get("started_from")
    if before is None:
        return "random weights"
    return f"weights of {before['steps']:,} steps on the latents of an earlier VAE"


def _samples(facts: dict[str, Any]) -> str:
    """The contact sheet, where there is one."""
    found = facts.get("samples")
    if not found:
        return ""
    return f"""
![Frames of a rendered clip, of its reconstruction, and of sampled videos](samples.png)

A row is a video: first a rendered clip and what the VAE makes of it, then {found["samples"]} videos
of consecutive seeds from {found["seed"]} on, not chosen: {found["steps"]} Euler steps of
`FlowMatchEulerDiscreteScheduler` with shift {found["shift"]:g}, no guidance.
"""


def variant_card(facts: dict[str, Any]) -> str:
    """Markdown for people of a variant's card.json."""
    variant, transformer = VARIANTS[facts["model"]], facts["runs"]["transformer"]
    return f"""# {variant.name}

{variant.title}. {variant.note}

| | transformer |
|---|---|
| class | `WanTransformer3DModel` |
| parameters | {facts["parameters"]["transformer"]:,} |
| data | {transformer["data"]} |
| distinct clips | {facts["distinct_clips"] or "not recorded"} |
| world version | {transformer["world"]} |
| steps | {transformer["steps"]:,} |
| training seconds | {transformer["train_seconds"]:,.0f} |
| result | loss {facts["loss"]:.3f} |

Held-out loss by noise level ({_levels(transformer)}).

It reads the latents of the VAE in `../{facts["vae"]["model"]}/vae`, which is not stored a second
time; `card.json` holds that VAE's hash, and another one is refused. Weights are stored in float16
and used in float32. Apache-2.0, like the rest of the project.
"""


ABOUT = {
    "vggt": """A feed-forward 3D expert: `explorer.nets.vggt.VGGT` in a small configuration, trained
on exact geometry of procedurally rendered frames. It stands for VGGT and Fast3R in Emerge3D.

Frames of 144x256 in [0, 1], any number of them (trained on 2 to 5); its dense heads were trained
at maps of the size in `card.json`. Lengths are relative to the mean distance of the first frame's
points.""",
    "jepa": """A predictive video encoder: `explorer.nets.vjepa.VideoViT` in a small configuration,
trained to predict features of what is masked in procedurally rendered video, never pixels and never
3D. These are the weights of the target encoder.

17 frames of 144x256, normalised like ImageNet, the first of them twice: 9 pairs of frames.""",
}


def network_card(facts: dict[str, Any]) -> str:
    """Markdown for people of the card.json of toy-vggt or toy-jepa."""
    ((kind, run),) = facts["runs"].items()
    found = run.get("validation") or {}
    losses = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    return f"""# {facts["model"]}

{ABOUT[kind]}

| | |
|---|---|
| parameters | {facts["parameters"][kind]:,} |
| data | {run["data"]} |
| distinct clips | {facts["distinct_clips"] or "not recorded"} |
| world version | {run["world"]} |
| steps | {run["steps"]:,} |
| training seconds | {run["train_seconds"]:,.0f} |
| held-out | {losses or "not measured"} |

Weights are stored in float16 and used in float32. Apache-2.0, like the rest of the project.
"""
