"""The images that `stackbook images push` has put into a cluster's registry, and the references by which its nodes pull them."""

from __future__ import annotations

import json
from pathlib import Path

from stackbook.core.errors import ArtifactUnavailable


class PushedImages:
    """The note in the lab's state.

    Args:
        state: the folder of the lab's state.
        registry: the profile's `image_registry`; what went to another registry does not count.
    """

    def __init__(self, state: Path, registry: str) -> None:
        self._path, self._registry = state / "pushed-images.json", registry

    def reference(self, name: str) -> str:
        """The reference of an image in the registry, with its digest.

        Raises:
            ArtifactUnavailable: it was not pushed yet.
        """
        found = self._read().get(name)
        if not found:
            raise ArtifactUnavailable(
                f"the image {name} has not been pushed to {self._registry} yet", fix="stackbook images push --profile …"
            )
        return found

    def note(self, name: str, reference: str) -> None:
        """Remember that an image is in the registry."""
        data = {"registry": self._registry, "images": {**self._read(), name: reference}}
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(data, indent=1), encoding="utf-8")
        new.replace(self._path)

    def _read(self) -> dict[str, str]:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if (
            not isinstance(data, dict)
            or data.get("registry") != self._registry
            or not isinstance(data.get("images"), dict)
        ):
            return {}
        return {str(name): str(reference) for name, reference in data["images"].items()}
