"""Our images: a base layer out of the machines' root filesystem, and one layer per file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from stackbook.artifacts import oci_archive
from stackbook.artifacts.catalogue import Base, Image
from stackbook.artifacts.debian_layers import GROUP, PASSWD, DebianRoot
from stackbook.artifacts.oci_archive import Content, Entry, Layer, parents


def base_layers(name: str, bases: Mapping[str, Base], root: Callable[[str], DebianRoot]) -> tuple[Layer, ...]:
    """The layers of a base, from below; an image without a base gets just the users' files."""
    if not name:
        return (_minimal(),)
    base = bases[name]
    if base.below:
        lower = bases[base.below].packages
        return (*base_layers(base.below, bases, root), root(base.root).layer(base.packages, without=lower))
    return (root(base.root).layer(base.packages),)


def file_layer(path: Path, inside: str, *, owner: int = 0) -> Layer:
    """A layer with one file at `inside`, executable unless it is data."""
    name = inside.lstrip("/")
    mode = 0o644 if path.suffix == ".json" else 0o755
    content = Content(path.stat().st_size, path)
    return Layer((*parents([name]), Entry(name, "file", mode, owner, content=content)))


def tree_layer(folder: Path, inside: str, *, owner: int = 0) -> Layer:
    """A layer with a whole folder at `inside`, every part of it `owner`'s; modes and links are kept."""
    top = inside.strip("/")
    entries = [*parents([top]), Entry(top, "folder", 0o755, owner)]
    for path in sorted(folder.rglob("*")):
        name = f"{top}/{path.relative_to(folder)}"
        mode = path.lstat().st_mode & 0o777
        if path.is_symlink():
            entries.append(Entry(name, "link", 0o777, owner, target=str(path.readlink())))
        elif path.is_dir():
            entries.append(Entry(name, "folder", mode, owner))
        else:
            entries.append(Entry(name, "file", mode, owner, content=Content(path.stat().st_size, path)))
    return Layer(tuple(entries))


def folder_layer(folders: Iterable[str], *, owner: int) -> Layer:
    """A layer of empty folders that `owner` may write to."""
    names = [folder.lstrip("/") for folder in folders]
    return Layer((*parents(names), *(Entry(name, "folder", 0o755, owner) for name in names)))


def assemble(
    images: Iterable[Image], target: Path, *, bases: Mapping[str, Base], files: Mapping[str, Path],
    root: Callable[[str], DebianRoot],
) -> str:  # fmt: skip
    """Write the images as one OCI archive; returns its SHA-256.

    Args:
        images: what to write, in order.
        target: the archive.
        bases: base layers by name.
        files: where each artifact lies.
        root: gives a root filesystem by its artifact's name, asked only when a base needs it.
    """
    shared: dict[str, tuple[Layer, ...]] = {}
    made = []
    for image in images:
        if image.base not in shared:
            shared[image.base] = base_layers(image.base, bases, root)
        layers = list(shared[image.base])
        for name, inside in image.files:
            layer = tree_layer if files[name].is_dir() else file_layer
            layers.append(layer(files[name], inside, owner=_owner(image, inside)))
        if image.folders:  # last: a file's layer names the folders above it, with root as their owner
            layers.append(folder_layer(image.folders, owner=image.owner))
        made.append(
            oci_archive.Image(image.reference, tuple(layers), image.env, image.entrypoint, image.command, image.user)
        )
    return oci_archive.write_archive(made, target)


def _owner(image: Image, inside: str) -> int:
    """Files in the folders that the image's own user writes to belong to that user."""
    return image.owner if any(f"{inside}/".startswith(f"{folder}/") for folder in image.folders) else 0


def _minimal() -> Layer:
    texts = {"etc/passwd": PASSWD, "etc/group": GROUP}
    files = [Entry(name, "file", 0o644, content=Content(len(text), data=text.encode())) for name, text in texts.items()]
    return Layer((Entry("etc", "folder"), *files, Entry("tmp", "folder", 0o1777)))
