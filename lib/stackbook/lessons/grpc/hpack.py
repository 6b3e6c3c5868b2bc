"""HPACK, as far as the first headers of a connection need it: the static table and literals without Huffman coding.

https://www.rfc-editor.org/rfc/rfc7541. gRPC's C core (Python, C++ …) writes so; Go codes by Huffman.
"""

from __future__ import annotations

from stackbook.core.errors import StackbookError

# RFC 7541, appendix A: entries 1 to 61.
_TABLE = (
    ":authority\n:method=GET\n:method=POST\n:path=/\n:path=/index.html\n:scheme=http\n:scheme=https\n"
    ":status=200\n:status=204\n:status=206\n:status=304\n:status=400\n:status=404\n:status=500\naccept-charset\n"
    "accept-encoding=gzip, deflate\naccept-language\naccept-ranges\naccept\naccess-control-allow-origin\nage\n"
    "allow\nauthorization\ncache-control\ncontent-disposition\ncontent-encoding\ncontent-language\n"
    "content-length\ncontent-location\ncontent-range\ncontent-type\ncookie\ndate\netag\nexpect\nexpires\nfrom\n"
    "host\nif-match\nif-modified-since\nif-none-match\nif-range\nif-unmodified-since\nlast-modified\nlink\n"
    "location\nmax-forwards\nproxy-authenticate\nproxy-authorization\nrange\nreferer\nrefresh\nretry-after\n"
    "server\nset-cookie\nstrict-transport-security\ntransfer-encoding\nuser-agent\nvary\nvia\nwww-authenticate"
)
STATIC: tuple[tuple[str, str], ...] = tuple(
    (name, value) for name, _, value in (line.partition("=") for line in _TABLE.splitlines())
)


class HuffmanCoded(StackbookError):
    """A text is Huffman coded, which this decoder leaves to real ones."""


def decode(block: bytes) -> list[tuple[str, str]]:
    """The headers of a block, in order.

    Raises:
        HuffmanCoded: a text is Huffman coded.
        IndexError: the block is cut off, or refers to a header of an earlier block that was not given.
    """
    dynamic: list[tuple[str, str]] = []
    found, at = [], 0
    while at < len(block):
        first = block[at]
        if first & 0x80:  # indexed: name and value from a table
            index, at = _integer(block, at, 7)
            found.append(_entry(index, dynamic))
        elif first & 0xE0 == 0x20:  # a new size of the dynamic table
            _, at = _integer(block, at, 5)
        else:  # a literal; 01… is also added to the dynamic table
            index, at = _integer(block, at, 6 if first & 0x40 else 4)
            if index:
                name = _entry(index, dynamic)[0]
            else:
                name, at = _text(block, at)
            value, at = _text(block, at)
            found.append((name, value))
            if first & 0x40:
                dynamic.insert(0, (name, value))
    return found


def _entry(index: int, dynamic: list[tuple[str, str]]) -> tuple[str, str]:
    if index < 1:
        raise IndexError("index 0")
    return STATIC[index - 1] if index <= len(STATIC) else dynamic[index - len(STATIC) - 1]


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """RFC 7541, 5.1: a prefix of some bits, then seven bits a byte."""
    most = 2**bits - 1
    value, at = block[at] & most, at + 1
    if value < most:
        return value, at
    shift = 0
    while True:
        byte, at = block[at], at + 1
        value += (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _text(block: bytes, at: int) -> tuple[str, int]:
    if block[at] & 0x80:
        raise HuffmanCoded("this header is Huffman coded")
    size, at = _integer(block, at, 7)
    if at + size > len(block):
        raise IndexError("the block ends within a text")
    return block[at : at + size].decode("latin-1"), at + size
