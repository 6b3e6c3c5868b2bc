"""The source of each image of a lab: its project's registry if possible, otherwise a build from packages.

The lab's own programs are always built. For every other image, its registry is asked once. The lab keeps the answer, so a
running lab does not change its images. Images of one set come from the same source, because `pilot` and `proxyv2` from
different builds do not work together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stackbook.artifacts.catalogue import Catalogue, Image
from stackbook.core.errors import ArtifactUnavailable
from stackbook.core.locks import Lock

Kind = Literal["build", "pull", "none"]


@dataclass(frozen=True)
class ImageSource:
    """The source of one image.

    Attributes:
        name: its name in the catalogue.
        kind: `build`, `pull`, or `none` if it can neither be pulled nor built.
        reference: its reference on the machines; if another image is built instead, the reference of that image.
        reason: the reason for this source, in a few words.
    """

    name: str
    kind: Kind
    reference: str
    reason: str


class ImageSources:
    """The sources of one lab's images.

    Args:
        catalogue: the catalogue with the images.
        mode: the profile's `images`: `auto`, `preload` (build every image that can be built) or `pull`.
        why_not: asks the registry for an image; returns "" if it can be pulled, else the reason (`Registries.why_not`).
        memory: the file with the decisions.
        strict: pull an image only by a pinned digest.
    """

    def __init__(
        self, catalogue: Catalogue, mode: str, why_not: Callable[[str], str], memory: Path, strict: bool = False
    ) -> None:
        self._catalogue, self._mode, self._why_not, self._memory = catalogue, mode, why_not, memory
        self._strict = strict

    def of(self, name: str) -> ImageSource:
        """The source of an image; asks the registry if it has not been decided yet.

        Raises:
            InputError: there is no such image.
        """
        image = self._catalogue.image(name)
        reason = self._decided(image)
        if reason == "":
            by = "by the profile" if self._mode == "pull" else "its registry has it"
            return ImageSource(name, "pull", image.official, by)
        if image.instead:
            other = self._catalogue.image(image.instead)
            return ImageSource(name, "build", other.reference, f"the lab's {image.instead} instead: {reason}")
        if not image.built:
            return ImageSource(name, "none", "", reason)
        return ImageSource(name, "build", image.reference, reason)

    def pulled(self, name: str) -> bool:
        """Whether an image comes from its project's registry."""
        return self.of(name).kind == "pull"

    def all(self) -> list[ImageSource]:
        """The sources of all images, in the catalogue's order; asks several registries at a time."""
        firsts = {image.set: image for image in reversed(list(self._catalogue.images.values()))}
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(self._decided, firsts.values()))
        return [self.of(name) for name in self._catalogue.images]

    def fall_back(self, name: str, reason: str) -> None:
        """Note that an image could not be pulled, so its set is built from now on.

        Raises:
            ArtifactUnavailable: the profile says `images: pull`, or the image cannot be built.
        """
        image = self._catalogue.image(name)
        if self._mode == "pull":
            fix = "repair the registry, or set images: auto, which builds what cannot be pulled"
            raise ArtifactUnavailable(f"{image.pulled_as} could not be pulled: {reason}", fix=fix)
        if not image.built and not image.instead:
            raise ArtifactUnavailable(f"{image.pulled_as} could not be pulled: {reason}", fix="repair the registry")
        self._remember(image.set, f"its pull failed: {reason}")

    def to_pull(self, names: Iterable[str]) -> list[Image]:
        """The images among these that are pulled."""
        return [self._catalogue.image(name) for name in names if self.pulled(name)]

    def to_build(self, names: Iterable[str]) -> list[str]:
        """The images among these that are built, each once; includes images that are built instead of others."""
        sources = [self.of(name) for name in names]
        built = [self._catalogue.image(s.name).instead or s.name for s in sources if s.kind == "build"]
        return list(dict.fromkeys(built))

    def _decided(self, image: Image) -> str:
        """Why an image is not pulled; empty if it is."""
        if not image.official:
            return "the lab's own"
        if self._strict and not image.digest:
            return "its digest is not pinned (strict)"
        if self._mode == "pull":
            return ""
        if self._mode == "preload" and (image.built or image.instead):
            return "by the profile"
        known = self._known()
        if image.set not in known:
            members = [other for other in self._catalogue.images.values() if other.set == image.set and other.official]
            reasons = (self._why_not(member.pulled_as) for member in members)
            self._remember(image.set, next(filter(None, reasons), ""))
            known = self._known()
        return known[image.set]

    def _known(self) -> dict[str, str]:
        try:
            data = json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        decided = data.get("not_pulled_because", {}) if isinstance(data, dict) else {}
        return {str(name): str(reason) for name, reason in decided.items()} if isinstance(decided, dict) else {}

    def _remember(self, set_name: str, reason: str) -> None:
        with Lock(self._memory.with_suffix(".lock")).held(what=f"{self._memory.name} to be free", timeout=10):
            data = {"not_pulled_because": {**self._known(), set_name: reason}}
            new = self._memory.with_suffix(".new")
            new.write_text(json.dumps(data, indent=1), encoding="utf-8")
            new.replace(self._memory)
