"""Models in diffusers' layout, a folder for each part: hashes, sizes, strict loading.

Needs no torch at import.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.backbones import _cards, _prompt_files, _published
from explorer.backbones._options import Target
from explorer.backbones._prompt_files import TextEncoder
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError


@dataclass(frozen=True)
class Family:
    """Models of one layout: one or several networks, a VAE, perhaps text.

    Attributes:
        what: a repository of this layout, for messages.
        network: class of the networks in diffusers.
        vae: class of the VAE in diffusers.
        text: what embeds prompts; None where there is no text.
        parts: folders of the networks, all of which decide the features.
        buffers: statistics beside the weights of a VAE: in its file, but no parameters.
    """

    what: str
    network: str
    vae: str
    text: TextEncoder | None = None
    parts: tuple[str, ...] = ("transformer",)
    buffers: tuple[str, ...] = ()

    def hashes(self, target: Target, *, shared: Path | None = None) -> Hashes:
        """Fingerprints of networks, VAE and of where the prompt's embedding comes from.

        Args:
            target: with its folder.
            shared: where the text encoder is, if not in that folder.

        Raises:
            BackboneError: a file is missing.
        """
        prompt = ""
        if self.text is not None:
            prompt = _prompt_files.origin(self.text, shared or target.folder, target.prompt)
        return _published.component_hashes(
            target, what=self.what, network=self.parts, encoder="vae", prompt=prompt
        )

    def files(self, folder: Path, part: str) -> list[Path]:
        """[config.json, weights, ...] of one part.

        Raises:
            BackboneError: a file is missing.
        """
        return _published.component(folder, part, what=self.what)

    def config(self, folder: Path, part: str) -> dict[str, Any]:
        """The configuration of one part.

        Raises:
            BackboneError: it is missing or not JSON, or names another class than this layout's.
        """
        config = _published.config_of(folder, part, what=self.what)
        expected = self.vae if part == "vae" else self.network
        found = config.get("_class_name", expected)
        if found != expected and (part == "vae" or part in self.parts):
            raise BackboneError(
                f"{folder / part} holds {found} and not {expected}: --weights needs a folder laid "
                f"out like {self.what}"
            )
        return config

    def count(self, folder: Path, part: str) -> int:
        """Number of weights of one part.

        Raises:
            BackboneError: a file is missing or broken.
        """
        return _published.count_parameters(self.files(folder, part)[1:], unused=self.buffers)

    def adapt(
        self,
        card: BackboneCard,
        folder: Path,
        *,
        layers: int,
        width: int,
        patch: int,
        frame_step: int,
        parts: tuple[str, ...] | None = None,
    ) -> BackboneCard:
        """The card of the weights in a folder.

        Args:
            card: of the published weights.
            folder: with networks and VAE.
            layers: number of blocks.
            width: channels of a token.
            patch: side of a token in pixels.
            frame_step: latent time.
            parts: networks that are in memory together; None: all.

        Raises:
            BackboneError: a part is missing or broken.
        """
        vae = self.count(folder, "vae")
        networks = sum(self.count(folder, part) for part in parts or self.parts)
        return _cards.resized(
            card,
            layers=layers,
            width=width,
            parameters=networks + vae,
            vae_parameters=vae,
            patch=patch,
            frame_step=frame_step,
        )

    def load_network(
        self, target: Target, part: str = "transformer", *, tables: bool = False
    ) -> Any:
        """One network of a folder, on its device in its dtype.

        Args:
            target: with its folder.
            part: the network's folder there.
            tables: whether the class has buffers that no file holds.

        Raises:
            BackboneError: it is missing, broken or of another structure.
        """
        return self._load(
            target, part, self.network, dtype=target.dtype, offload=target.offload, tables=tables
        )

    def load_vae(self, target: Target) -> Any:
        """The VAE of a folder, in its own dtype, tiling if that is asked for.

        Raises:
            BackboneError: it is missing, broken or of another structure.
        """
        vae = self._load(target, "vae", self.vae, dtype=target.vae_dtype)
        if target.vae_tiling:
            vae.enable_tiling()
        return vae

    def _load(
        self,
        target: Target,
        part: str,
        kind: str,
        *,
        dtype: str,
        offload: bool = False,
        tables: bool = False,
    ) -> Any:
        import diffusers

        from explorer.backbones import _build

        config, *weights = self.files(target.folder, part)
        settings = self.config(target.folder, part)
        model: Any = getattr(diffusers, kind)

        def make(**changes: Any) -> Any:
            return model.from_config({**settings, **changes})

        # Published files hold some weights that no released model uses.
        unused = tuple(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
        tensors = _build.shards(weights)
        return _build.fill(
            _build.build_empty(make, (lambda: make(num_layers=0)) if tables else None),
            (pair for pair in tensors if not any(word in pair[0] for word in unused)),
            device=target.device,
            dtype=dtype,
            where=config.parent,
            offload=offload,
        )
