"""What a reference may use besides the frames of a clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from explorer._resize import enlarged
from explorer.backbones.base import never
from explorer.clip import Clip
from explorer.errors import NoReconstruction

if TYPE_CHECKING:
    from explorer.reconstruction import Reconstruction
    from explorer.store import Store


@dataclass(frozen=True)
class Context:
    """Surroundings of one request for a reference.

    Attributes:
        store: where slow references keep what they found; None keeps nothing.
        should_stop: asked between steps.
        decode: the same window of the same video at another (height, width); None where there is
            no video. A backbone's frames are often too small to reconstruct from.
        device: where networks run: "cpu", "cuda", ...
        frames: those that will be compared, the first frame of the clip first; None where nobody
            knows. A reference that can do few does these.
        made_by: set for a plugin's reference: what it is told by in keys of the store.
    """

    store: Store | None = None
    should_stop: Callable[[], bool] = never
    decode: Callable[[tuple[int, int]], Clip] | None = None
    device: str = "cpu"
    frames: tuple[int, ...] | None = None
    made_by: dict[str, Any] = field(default_factory=dict)

    def closer(self, clip: Clip, width: int, *, enough: int | None = None) -> Clip:
        """The same part of the same frames, in its true shape, larger where the source has more.

        At most `width` columns and never more than the source has, so that nothing is made up. A
        clip of its source's shape is given back itself where there is no larger one, or it has
        `enough` columns already; one that was stretched is decoded unstretched, since cameras have
        square pixels. The clip itself where there is no video.
        """
        have = clip.size
        if self.decode is None:
            return clip
        if clip.fit == "stretch":
            share = min(1.0, width / clip.crop[3])
            height, columns = (max(1, round(share * side)) for side in clip.crop[2:])
            return clip if (height, columns) == have else self.decode((height, columns))
        if enough is not None and have[1] >= enough:
            return clip
        size = enlarged(have, clip.source_size, clip.crop, width / have[1])
        return clip if size == have else self.decode(size)

    def machine(self) -> dict[str, str | None]:
        """What a network's answer depends on besides its weights and what it sees."""
        from explorer.look import cache

        return {"device": cache.device_type(self.device), "torch": cache.versions()["torch"]}

    def cached(
        self, clip: Clip, recipe: dict[str, Any], make: Callable[[], Reconstruction]
    ) -> Reconstruction:
        """What `make` gives, from the store where it has been made of this clip before.

        That nothing can be made of the clip is remembered too: finding out may take minutes.

        Args:
            clip: what is asked about.
            recipe: everything else that determines the result, ready for JSON.
            make: raises NoReconstruction for a clip it can do nothing with.

        Raises:
            NoReconstruction: from `make`, now or earlier.
        """
        if self.store is None:
            return make()
        from explorer.look import cache

        seen = None if self.decode is None else "any larger size"
        key = {**cache.clip_key(clip), "reference": recipe, "decoded": seen}
        key |= self.made_by
        found = cache.get_reconstruction(self.store, key)
        if found is not None:
            return found
        failure = self.store.get("no-reconstruction", key)
        if failure is not None:
            raise NoReconstruction(str(failure[1]["reason"]))
        try:
            made = make()
        except NoReconstruction as error:
            self.store.put("no-reconstruction", key, {}, {"reason": str(error)})
            raise
        cache.put_reconstruction(self.store, key, made)
        return made
