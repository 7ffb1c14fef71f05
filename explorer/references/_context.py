"""What a reference may use besides the frames of a clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    """

    store: Store | None = None
    should_stop: Callable[[], bool] = never
    decode: Callable[[tuple[int, int]], Clip] | None = None
    device: str = "cpu"
    frames: tuple[int, ...] | None = None

    def closer(self, clip: Clip, width: int) -> Clip:
        """The same crop of the same frames at the largest whole multiple of the clip's size.

        At most `width` columns and never more than the source has, so that nothing is made up. The
        clip itself where it cannot be had larger.
        """
        have = clip.size
        factor = min(width // have[1], clip.crop[3] // have[1], clip.crop[2] // have[0])
        if factor < 2 or self.decode is None:
            return clip
        return self.decode((factor * have[0], factor * have[1]))

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
        from explorer import _look_cache as cache

        key = {**cache.clip_key(clip), "reference": recipe, "decoded": self.decode is not None}
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
