"""The types of single values in profiles and in chapters' parameters: versions, networks, addresses and percentages.

Versions are strings, because YAML and papermill would turn 1.30 into the number 1.3.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _version(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        raise ValueError(f"a version must be text, but {value!r} is a number: quote it, for example '1.36.3'")
    if isinstance(value, str) and not re.fullmatch(r"v?\d+\.\d+(\.\d+)?([.+-][0-9A-Za-z.+-]+)?", value):
        raise ValueError(f"{value!r} is not a version: write it like '1.36.3'")
    return value.removeprefix("v") if isinstance(value, str) else value


def _network(value: Any) -> Any:
    try:
        if ipaddress.ip_network(str(value)).version != 4:
            raise _NoIPv6(f"{value} is an IPv6 network, but the lab supports IPv4 only: write it like 10.244.0.0/16")
    except _NoIPv6:
        raise
    except ValueError as error:
        try:
            canonical = ipaddress.ip_network(str(value), strict=False)
        except ValueError:
            raise ValueError(f"{value!r} is not a network: write it like 10.244.0.0/16") from error
        raise ValueError(f"{value} has host bits set: write {canonical}") from error
    return str(value)


def _address(value: Any) -> Any:
    try:
        address = ipaddress.ip_address(str(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not an IP address") from error
    if address.version != 4:
        raise ValueError(f"{value} is an IPv6 address, but the lab supports IPv4 only")
    return str(address)


class _NoIPv6(ValueError):
    """An IPv6 address or network."""


Version = Annotated[str, BeforeValidator(_version)]
Network = Annotated[str, BeforeValidator(_network)]
Address = Annotated[str, BeforeValidator(_address)]
Percent = Annotated[float, Field(ge=0, le=100)]
