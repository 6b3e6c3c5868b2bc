"""The parameters of a lab: their names and types, and the rules between them.

A profile is a YAML file in `parameters/`. `Profile.load` reads it, applies overrides, and checks everything before the
lab changes anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from stackbook.config.namespaces import Namespaces, is_system
from stackbook.config.profile_networks import check_networks
from stackbook.config.registries import check_mirrors
from stackbook.config.values import Address, Network, Version
from stackbook.core.errors import InputError
from stackbook.core.names import did_you_mean, parameters_folder, profile_path

MAX_NODES = 8
_OF_VMS = ("vm_memory", "vm_processors", "vm_acceleration")
_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
_JUMP = re.compile(r"^([a-z_][a-z0-9_-]*@)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?$")
_MAC = re.compile(r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")


class Model(BaseModel):
    """A strict model: no unknown names, no silent conversions, no changes after creation."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Node(Model):
    """One machine. `mac`, and `user`, `port`, `key`, `jump` of an SSH machine, are optional."""

    name: str
    address: Address
    mac: str = ""
    user: str = "root"
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    key: str = ""
    jump: str = ""

    @field_validator("jump")
    @classmethod
    def _good_jump(cls, value: str) -> str:
        if value and not _JUMP.fullmatch(value):
            raise ValueError(f"{value!r} is not a jump host: write it like user@gate.example.com:22")
        return value

    @field_validator("name")
    @classmethod
    def _good_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a host name: use a-z, 0-9 and -, for example k8s-node1")
        return value

    @field_validator("mac")
    @classmethod
    def _good_mac(cls, value: str) -> str:
        if value and not _MAC.fullmatch(value.lower()):
            raise ValueError(f"{value!r} is not a MAC address: write it like 02:98:00:00:00:03")
        if value and int(value[:2], 16) & 1:
            raise ValueError(f"{value} is a multicast address: its first byte must be even")
        return value.lower()


class ChapterParameters(Model):
    """The parameters of one chapter; each chapter has its own class."""

    model_config = ConfigDict(extra="forbid", strict=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _no_yes_for_a_number(cls, data: Any) -> Any:
        """YAML reads yes, no, on and off as true and false, which would count as 1 and 0."""
        for name, value in data.items() if isinstance(data, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and "bool" not in str(field.annotation):
                raise ValueError(
                    f"{name} is {value}, as YAML reads yes, no, on and off: give a number or a quoted text"
                )
        return data


class Profile(Model):
    """The parameters of a lab. The first node is the control plane."""

    name: str = "embedded"
    target: Literal["embedded", "vm", "ssh", "cluster"] = "embedded"
    lab: str = "stackbook"
    nodes: tuple[Node, ...] = (
        Node(name="k8s-master", address="192.168.98.3"),
        Node(name="k8s-node1", address="192.168.98.4"),
    )
    subnet: Network = "192.168.98.0/24"
    gateway: Address = "192.168.98.2"
    pod_cidr: Network = "10.244.0.0/16"
    service_cidr: Network = "10.0.0.0/12"
    kubernetes_version: Version = "1.36.3"
    machine_release: Literal["host", "debian-12", "debian-13", "ubuntu-24.04"] = "host"
    vm_memory: Annotated[int, Field(ge=1024, le=65536)] = 2048
    vm_processors: Annotated[int, Field(ge=1, le=16)] = 2
    vm_acceleration: Literal["auto", "kvm", "tcg"] = "auto"
    flannel_backend: Literal["vxlan", "host-gw", "udp"] = "vxlan"
    istio_profile: Literal["demo", "default", "minimal"] = "demo"
    source: Literal["auto", "release", "registry"] = "auto"
    strict: bool = False
    images: Literal["auto", "preload", "pull"] = "auto"
    image_repository: str = ""
    image_registry: str = ""
    registry_mirrors: dict[str, str] = Field(default_factory=dict)
    registry_ca: str = ""
    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    known_hosts: str = ""
    chapters: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("lab")
    @classmethod
    def _good_lab(cls, value: str) -> str:
        if not _NAME.fullmatch(value) or len(value) > 20:
            raise ValueError(f"{value!r} is not a lab name: use at most 20 characters of a-z, 0-9 and -")
        return value

    @field_validator("registry_mirrors")
    @classmethod
    def _good_mirrors(cls, value: dict[str, str]) -> dict[str, str]:
        check_mirrors(value)
        return value

    @field_validator("image_registry")
    @classmethod
    def _good_registry(cls, value: str) -> str:
        if value and not re.fullmatch(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)*", value):
            raise ValueError(
                f"{value!r} is not a registry: write it like registry.example.com:5000/stackbook, without https://"
            )
        return value

    @field_validator("known_hosts")
    @classmethod
    def _good_file(cls, value: str) -> str:
        if value and not Path(value).expanduser().is_file():
            raise ValueError(f"file {value} not found: give the path of a known_hosts file, or leave it out")
        return value

    @field_validator("nodes", mode="before")
    @classmethod
    def _nodes(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if self.strict and (self.images == "pull" or self.target == "cluster"):
            raise ValueError(
                "strict: pulled images are not pinned by digest: set images: auto, and a target with machines"
            )
        if self.context and self.target != "cluster":
            raise ValueError("context: it is valid only with target: cluster")
        if self.image_registry and self.target != "cluster":
            raise ValueError("image_registry: it is valid only with target: cluster")
        if self.target == "vm" and self.machine_release not in ("host", "debian-12"):
            raise ValueError("machine_release: virtual machines run Debian 12: write debian-12, or leave it out")
        fields = type(self).model_fields  # a run keeps all parameters in its record, also those that nobody has changed
        if self.target != "vm" and (given := [n for n in _OF_VMS if getattr(self, n) != fields[n].default]):
            raise ValueError(f"{given[0]}: it is valid only with target: vm")
        if self.known_hosts and self.target != "ssh":
            raise ValueError("known_hosts: it is valid only with target: ssh")
        if self.namespace and self.target != "cluster":
            raise ValueError("namespace: it is valid only with target: cluster")
        if self.target == "cluster":
            _check_namespace(self.namespaces.learner)
            return self
        if not 1 <= len(self.nodes) <= MAX_NODES:
            raise ValueError(f"nodes: {len(self.nodes)} given, but a lab has 1 to {MAX_NODES}")
        for what in ("name", "address", "mac"):
            values = [getattr(node, what) for node in self.nodes if getattr(node, what)]
            if twins := sorted({v for v in values if values.count(v) > 1}):
                raise ValueError(f"nodes: two nodes have the same {what} {twins[0]}: give each its own")
        check_networks(self)
        return self

    @property
    def creates_machines(self) -> bool:
        """Whether stackbook creates the machines and their network on this host."""
        return self.target in ("embedded", "vm")

    @property
    def control_plane(self) -> Node:
        """The first node."""
        return self.nodes[0]

    def ca_file(self) -> Path | None:
        """The PEM file that `registry_ca` names. Only what asks a registry reads it, so a lab can be removed without it.

        Raises:
            InputError: the file is not there.
        """
        if not self.registry_ca:
            return None
        file = Path(self.registry_ca).expanduser()
        if not file.is_file():
            raise InputError(
                f"registry_ca: file {self.registry_ca} not found",
                fix="give the path of the CA's PEM file, or leave it out",
            )
        return file

    @property
    def namespaces(self) -> Namespaces:
        """Where the workloads go; on an existing cluster, the learner's namespace is `namespace`, or the lab's name."""
        return Namespaces((self.namespace or self.lab) if self.target == "cluster" else "")

    @property
    def versions(self) -> dict[str, str]:
        """The versions that the profile chooses, by component of the catalogue."""
        return {"kubernetes": self.kubernetes_version, "machines": self.machine_release}

    @property
    def service_address(self) -> str:
        """The address of the service `kubernetes`: the first of the service range."""
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def dns_address(self) -> str:
        """The address of the service `kube-dns`: the tenth of the service range (kubeadm's choice)."""
        return str(ipaddress.ip_network(self.service_cidr)[10])

    @classmethod
    def load(cls, name: str | Path = "embedded", *, overrides: Mapping[str, Any] | None = None) -> Profile:
        """Read a profile by name (a file in `parameters/`) or by path.

        Raises:
            InputError: no such profile, or something in it is wrong; the message names the parameter and the fix.

        >>> Profile.load("embedded").control_plane.name
        'k8s-master'
        """
        path = profile_path(name)
        try:
            data = yaml.load(path.read_text(encoding="utf-8"), _Once) or {}
        except InputError as error:
            raise InputError(f"{path.name}: {error.message}", fix=error.fix) from None
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path.name} cannot be read as YAML: {reason}", fix="correct the file") from error
        if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
            raise InputError(f"{path.name} does not contain parameters", fix="write lines like 'target: embedded'")
        data.setdefault("name", path.stem if path.parent == parameters_folder() else str(path.resolve()))
        data.update(overrides or {})
        loaded: Profile = validate(cls, data, where=path.name)
        return loaded


def _check_namespace(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > 40:
        raise ValueError(f"namespace: {name!r} is not a name: use at most 40 characters of a-z, 0-9 and -")
    if is_system(name):
        raise ValueError(f"namespace: {name} is the cluster's own: name one for the learner, such as learner-ada")


class _Once(yaml.SafeLoader):
    """YAML without duplicate keys: otherwise the last one would silently win."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key, (place, _) in zip(keys, node.value, strict=True):
        if keys.count(key) > 1 and isinstance(key, str) and key != "<<":
            raise InputError(
                f"{key!r} is set twice, the second time in line {place.start_mark.line + 1}", fix="remove one of them"
            )
    return loader.construct_mapping(node, deep=True)


_Once.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def validate(model: type[Any], data: Mapping[str, Any], *, where: str) -> Any:
    """Create a `model` from `data`.

    Raises:
        InputError: `data` is invalid; the error is one line with the first problem, its place and the fix.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"]).lstrip(".")
    more = f" (and {error_count - 1} more)" if (error_count := _count(model, data)) > 1 else ""
    label = f"{where}: {place}" if place else where
    if first["type"] == "extra_forbidden":
        known = _fields(model, first["loc"])
        raise InputError(f"{label}: unknown parameter{more}", fix=did_you_mean(str(first["loc"][-1]), known))
    text = first["msg"].removeprefix("Value error, ")
    raise InputError(" ".join(f"{label}: {text[:1].lower() + text[1:]}{more}".split()), fix=_fix(first))


def _count(model: type[Any], data: Mapping[str, Any]) -> int:
    try:
        model.model_validate(data)
    except ValidationError as error:
        return error.error_count()
    return 0


def _fix(error: Any) -> str:
    given = repr(error.get("input"))
    shown = given if len(given) <= 60 else given[:57] + "..."
    return "" if error["type"] == "value_error" else f"the value is {shown}"


def _fields(model: type[Any], location: tuple[Any, ...]) -> list[str]:
    return list(Node.model_fields if location[0] == "nodes" and len(location) > 1 else model.model_fields)
