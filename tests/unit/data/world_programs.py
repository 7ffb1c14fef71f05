"""What a compiler is given of the tracer, as JSON; a script, for types are not checked in it.

Its programs have few textures and primitives, each of which takes a compiler as long as another.
"""

import json
from dataclasses import replace
from functools import partial

import torch

from explorer.data.world import render, sample_scenes, tensors
from explorer.data.world.render import EAGER, Kernels
from explorer.data.world.spec import SURFACES

# As many scenes and frames as tables have rows: equal sizes must not be taken for one.
SIZES = [(16, 17), (16, 5), (3, 17), (SURFACES, 2)]
programs = []


def compile_nothing(graph, inputs):
    """A compiler's end that only looks."""
    lone = [value for value in inputs if isinstance(value, torch.Tensor) and not value.dim()]
    programs.append({"lone": len(lone), "tf32": torch.backends.cuda.matmul.allow_tf32})
    return graph.forward


def rendered(kernels, scenes, frames):
    """Clips, all frames at once as on a GPU, which "cpu" without a number does not do."""
    return render(
        sample_scenes(range(scenes)),
        height=4,
        width=6,
        supersample=1,
        device="cpu:0",
        frames=list(range(frames)),
        kernels=kernels,
    )


def main():
    """Render clips of several sizes and print what was compiled for them."""
    torch.compile = partial(torch.compile, backend=compile_nothing)
    torch.backends.cuda.matmul.allow_tf32 = True
    tensors.TEXTURES, tensors.KINDS = ("plaster",), {"sphere": tensors.KINDS["sphere"]}
    kernels, counts, same = Kernels.compiled(), [], True
    for size in SIZES:
        mine, plain = rendered(kernels, *size), rendered(replace(EAGER, uniform=True), *size)
        same = same and torch.equal(mine.images, plain.images)
        same = same and torch.equal(mine.depth, plain.depth)
        counts.append(len(programs))
    after = torch.backends.cuda.matmul.allow_tf32
    print(json.dumps({"programs": programs, "counts": counts, "same": same, "after": after}))


if __name__ == "__main__":
    main()
