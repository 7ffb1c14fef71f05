"""How a model is to be loaded: where it runs, in which precision, from which files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """What a loader is asked for.

    Attributes:
        device: "cpu", "cuda", "cuda:1", ...
        dtype: of the network: "float32", "bfloat16" or "float16".
        weights: folder with the model's files; None until they are found.
        offload: keep weights in host memory and bring each block to the device for its turn.
        vae_tiling: encode in overlapping tiles: less memory, other values at the seams.
        vae_dtype: of the video VAE.
        prompt: text given to models that take one.
        compile: compile the network's blocks: faster passes after a slow first one.
    """

    device: str = "cpu"
    dtype: str = "float32"
    weights: Path | None = None
    offload: bool = False
    vae_tiling: bool = False
    vae_dtype: str = "float32"
    prompt: str = ""
    compile: bool = False

    @property
    def folder(self) -> Path:
        """The folder of weights.

        Raises:
            ValueError: it was not looked for.
        """
        if self.weights is None:
            raise ValueError("this target's weights were not looked for")
        return self.weights

    @property
    def files(self) -> tuple[object, ...]:
        """What of it the hashes of a model depend on."""
        return self.weights, self.encoder_recipe, self.prompt, self.dtype

    @property
    def encoder_recipe(self) -> str:
        """What besides the VAE's files determines latents."""
        return f"{self.vae_dtype}{', tiled' if self.vae_tiling else ''}"


@dataclass(frozen=True)
class Source:
    """Where published weights are.

    Attributes:
        repo: repository on the Hugging Face hub, or the address of a single file.
        files: patterns of the files that are needed, of those in the repository.
        download_bytes: of these files.
        gated: whether the licence must be accepted on the repository's page first.
        shared: another repository with parts that this one leaves out; its files count in
            `download_bytes`, and are looked for in the folder of weights too.
        revision: commit of the repository; None takes its main branch.
    """

    repo: str
    files: tuple[str, ...]
    download_bytes: int
    gated: bool = False
    shared: Source | None = None
    revision: str | None = None

    @property
    def by_address(self) -> bool:
        """Whether this is the address of a file, which is fetched by hand, and no repository."""
        return self.repo.startswith("https://")
