"""The images of a lab: where they come from, and how the machines get them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.artifacts.catalogue import PAGES
from stackbook.cluster import image_import
from stackbook.cluster.image_import import PullFailed
from stackbook.cluster.kubeadm import Images
from stackbook.config.registries import Registries
from stackbook.core.errors import ArtifactUnavailable
from stackbook.lab.image_sources import ImageSources
from stackbook.lab.pushed_images import PushedImages
from stackbook.machines import operations

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab
    from stackbook.lab.step import Step

_INSTEAD_OF = {"victoria-logs": "kibana", "zipkin": "jaeger", "kiali": "kiali"}
"""Programs with a page, and the image that has the page; they are needed only if it cannot be pulled."""


class LabImages:
    """The images of one lab.

    Args:
        lab: the lab.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @cached_property
    def registries(self) -> Registries:
        """The lab's settings for container registries: their mirrors, and the CA of the mirrors."""
        return Registries(self._lab.profile.registry_mirrors, self._lab.profile.ca_file())

    @cached_property
    def sources(self) -> ImageSources:
        """Where each image comes from."""
        mode = self._lab.profile.images
        if self._lab.profile.target == "cluster" and mode == "auto":
            mode = "pull"  # by the cluster's nodes; nobody here can ask for them
        return ImageSources(
            self._lab.artifacts.catalogue,
            mode,
            self.registries.why_not,
            self._lab.state / "images.json",
            self._lab.profile.strict,
        )

    @property
    def upstream_envoy(self) -> bool:
        """Whether the mesh's proxies are upstream Envoy without Istio's own filters; read from the image."""
        return self.environment("proxyv2").get("ISTIO_META_ISTIO_PROXY_SHA", "").startswith("envoy-")

    def environment(self, name: str) -> dict[str, str]:
        """The environment variables of an image, from its build or from a machine, which pulls it if needed; empty without machines."""
        first = next(iter(self._lab.machines.items()), None)
        if self.sources.pulled(name) and first is not None:
            self.load(name, on=[first[0]])  # if the pull fails, it is built from now on
        if not self.sources.pulled(name):
            return dict(self._lab.artifacts.catalogue.image(name).env)
        return image_import.environment(first[1], self.reference(name)) if first is not None else {}

    def reference(self, name: str) -> str:
        """The reference under which the machines have an image or can pull it.

        Raises:
            ArtifactUnavailable: it can neither be pulled nor built.
        """
        source = self.sources.of(name)
        if source.kind == "none":
            raise ArtifactUnavailable(f"there is no image {name} here: {source.reason}")
        registry = self._lab.profile.image_registry
        if source.kind == "build" and registry:
            pushed = PushedImages(self._lab.state, registry).reference(
                self._lab.artifacts.catalogue.image(name).instead or name
            )
            # Istio's images have one tag, and no digest.
            return pushed.partition("@")[0] if name in ("pilot", "proxyv2") else pushed
        return source.reference

    @property
    def kubeadm(self) -> Images:
        """Where kubeadm's images come from."""
        repository = self.reference("kube-apiserver").rpartition("/")[0]
        # The kubelet itself pulls images from the profile's own repository: the machines do not have them under those names.
        chosen = self._lab.profile.image_repository if self.sources.pulled("kube-apiserver") else ""
        return Images(
            repository=chosen or repository,
            preloaded=not chosen,
            pause=self.reference("pause"),
            etcd=self.reference("etcd"),
            dns=self.reference("coredns"),
        )

    def load(self, *names: str, on: Sequence[str] | None = None, step: Step | None = None) -> int:
        """Pull or import images on machines that lack any of them; returns how many machines were changed.

        If an image cannot be pulled, its set is built instead, and the step's progress says so.

        Args:
            names: bundles or images of the catalogue.
            on: names of machines; None for all.
            step: the step whose changes this counts as.

        Raises:
            ArtifactUnavailable: an image can neither be pulled nor built.
        """
        if self._lab.profile.target == "cluster":
            return 0
        wanted = {name: host for name, host in self._lab.machines.items() if on is None or name in on}
        say = step.progress if step else self._lab.progress
        changed = 0
        members = self.members(names)
        for image in self.sources.to_pull(members):
            if not self.sources.pulled(image.name):
                continue  # another image of its set has just failed
            try:
                changed += image_import.pull(wanted, image.official, digest=image.digest, say=say)
            except PullFailed as error:
                self.sources.fall_back(image.name, error.message)
                say(f"{image.official} could not be pulled, {image.set} is built instead: {error.message}")
                if image.name == "pause":
                    for host in wanted.values():
                        operations.apply(host, self._lab.runtime, step=step)
        for archive in self.archives(names):
            changed += image_import.load(wanted, archive)
        if step:
            step.changed += changed
        return changed

    def preload(self, *names: str, on: Sequence[str] | None = None) -> None:
        """Start pulling or importing images in the background, if they need not be built first; `load` waits for the end."""
        if self._lab.profile.target == "cluster":
            return
        wanted = {name: host for name, host in self._lab.machines.items() if on is None or name in on}
        image_import.begin_pull(wanted, self.references_to_pull(names))
        cached = {entry.name for entry in self._lab.artifacts.status() if entry.state == "cached"}
        if set(names) <= cached:
            for archive in self.archives(names):
                image_import.begin(wanted, archive)

    def components(self, names: Iterable[str]) -> list[str]:
        """The components to fetch or build for these components and images, without images that are pulled.

        A pulled image has its program's pages.
        """
        catalogue = self._lab.artifacts.catalogue
        found: dict[str, None] = {}
        for name in names:
            kind, plain = catalogue.resolve(name)
            if kind == "file":
                own = plain.removesuffix(PAGES) if plain.endswith(PAGES) else ""
                image = _INSTEAD_OF.get(plain, own)
                if image not in catalogue.images or not self.sources.pulled(image):
                    found[name] = None
            elif self._lab.profile.target == "cluster":
                continue  # its nodes pull every image, after `stackbook images push`
            elif built := set(self.sources.to_build(self.members([plain]))):
                bundle = self._bundle_of(plain, built)
                found.update(dict.fromkeys([f"bundle:{bundle}"] if bundle else [f"image:{m}" for m in sorted(built)]))
        return list(found)

    def references_to_pull(self, names: Sequence[str]) -> list[str]:
        """The references of the images in these bundles and images that the machines pull."""
        return [image.official for image in self.sources.to_pull(self.members(names))]

    def archives(self, names: Sequence[str]) -> list[Path]:
        """Archives with the images that are built: the smallest bundle that has them, or one archive for each image."""
        found: dict[Path, None] = {}
        for name in names:
            if not (built := set(self.sources.to_build(self.members([name])))):
                continue
            if bundle := self._bundle_of(name, built):
                found[self._lab.artifacts.bundle(bundle).archive] = None
            else:
                found.update({self._lab.artifacts.image(member).archive: None for member in built})
        return list(found)

    def members(self, names: Sequence[str]) -> list[str]:
        """The images in these bundles and images, each once."""
        bundles = self._lab.artifacts.catalogue.bundles
        return list(dict.fromkeys(member for name in names for member in bundles.get(name, (name,))))

    def knows(self, name: str) -> bool:
        """Whether this is the name of an image or of a bundle of images."""
        plain = name.removeprefix("bundle:")
        catalogue = self._lab.artifacts.catalogue
        return plain in catalogue.bundles or plain in catalogue.images

    def _bundle_of(self, name: str, built: set[str]) -> str:
        """The bundle with these images and no image that is not built here: the one with this name, otherwise the smallest."""
        bundles = self._lab.artifacts.catalogue.bundles
        for bundle, members in sorted(bundles.items(), key=lambda item: (item[0] != name, len(item[1]))):
            if built <= set(members) and set(self.sources.to_build(members)) == set(members):
                return bundle
        return ""
