"""What the chapter on protobuf shows, checked without a notebook and without Go."""

import ast
import doctest
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from stackbook.analysis import expect
from stackbook.analysis.expect import expect_failure
from stackbook.artifacts import go_toolchain
from stackbook.artifacts import protoc as compiler
from stackbook.artifacts.go_toolchain import ToolFailed
from stackbook.artifacts.resolver import Resolver
from stackbook.core.errors import CheckFailed
from stackbook.lessons.protobuf import benchmark, evolution, explain, install, lint, malformed, scalars
from stackbook.lessons.protobuf.wire_format import WireError, WireType, walk

GUIDE = compiler.protos() / "guide"


@pytest.mark.parametrize("module", [expect, compiler, explain])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_expect_failure_wants_the_failure_it_was_told_of() -> None:
    with pytest.raises(CheckFailed, match="nothing was raised"):
        expect_failure(lambda: 1, ValueError)
    with pytest.raises(CheckFailed, match="got TypeError"):
        expect_failure(lambda: len(1), ValueError)  # type: ignore[arg-type]
    with pytest.raises(CheckFailed, match="does not contain 'deadline'"):
        expect_failure(lambda: int("x"), ValueError, "deadline")


# bytes that none of our code wrote


def pics() -> bytes:
    module = compiler.load("pics_pb2", proto="pics.proto", include=GUIDE)
    message = module.Pics()
    first = message.pic.add()
    first.id, first.location, first.pic_data = 1, "loooooocation", b"daaaaaaaaaaaaaaaaata"
    message.pic.add()
    return bytes(message.SerializeToString())


def test_protoc_writes_what_python_writes_and_reads_it() -> None:
    text = 'pic { id: 1 location: "loooooocation" pic_data: "daaaaaaaaaaaaaaaaata" } pic { }'
    protoc = compiler.Protoc()
    data = protoc.encode("protoc.Pics", text, GUIDE / "pics.proto", include=GUIDE)
    assert data == pics()
    back = protoc.decode("protoc.Pics", data, GUIDE / "pics.proto", include=GUIDE)
    assert back.split() == text.replace("{ }", "{\n}").split()


@pytest.mark.slow
@settings(max_examples=15, deadline=None)  # each example starts protoc twice
@given(
    st.integers(-(2**31), 2**31 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=20),
)
def test_protoc_and_the_walker_read_the_same_fields(number: int, text: str, data: bytes) -> None:
    message = scalars.types().Scalars(an_int32=number, a_string=text, a_bytes=data)
    encoded = message.SerializeToString()
    raw = compiler.Protoc().decode_raw(encoded)
    # protoc indents what looks like a message inside bytes: only the outer level is compared
    assert [int(n) for n in re.findall(r"^(\d+)", raw, re.MULTILINE)] == [f.number for f in walk(encoded)]


def descriptor_in(go_file: Path) -> bytes:
    """The file descriptor that protoc-gen-go wrote into its output, as a Go string of many lines."""
    block = go_file.read_text(encoding="utf-8").partition("_rawDesc = ")[2].partition("\n\n")[0].partition("\nvar")[0]
    pieces = re.findall(r'"(?:[^"\\]|\\.)*"', block)
    return b"".join(ast.literal_eval("b" + piece) for piece in pieces)


@pytest.mark.parametrize(
    ("proto", "include", "generated"),
    [
        ("pics.proto", GUIDE, "protoc/pics.pb.go"),
        ("lessons/v1/types.proto", compiler.protos(), "lessonsv1/types.pb.go"),
        ("lessons/v1/access_log.proto", compiler.protos(), "lessonsv1/access_log.pb.go"),
        ("helloworld/helloworld.proto", compiler.protos(), "helloworld/helloworld.pb.go"),
    ],
)
def test_the_committed_go_code_is_in_step_with_its_proto(proto: str, include: Path, generated: str) -> None:
    (wanted,) = [f for f in compiler.descriptors(proto, include=include).file if f.name == proto]
    go_file = go_toolchain.modules() / "internal/pb" / generated
    found = type(wanted).FromString(descriptor_in(go_file))
    for descriptor in (wanted, found):  # protoc-gen-go drops json_name; go_package of pics comes by an option
        for message in descriptor.message_type:
            for field in [*message.field, *(f for nested in message.nested_type for f in nested.field)]:
                field.ClearField("json_name")
    assert found == wanted
    version = compiler.Protoc().version.rpartition(" ")[2]
    assert f"// \tprotoc        v7.{version}\n" in go_file.read_text(encoding="utf-8")


# explain


def test_rows_name_every_byte() -> None:
    data = pics()
    module = compiler.load("pics_pb2", proto="pics.proto", include=GUIDE)
    parts = explain.explain(data, module.Pics.DESCRIPTOR)
    assert [(p.depth, p.name, p.value) for p in parts] == [
        (0, "pic", ""), (1, "id", "1"), (1, "location", "'loooooocation'"),
        (1, "pic_data", "b'daaaaaaaaaaa' … 20 bytes"), (0, "pic", "empty"),
    ]  # fmt: skip
    assert len(data) == 43
    assert all(data[p.offset : p.offset + len(p.field.raw)] == p.field.raw for p in parts)


def test_rows_know_what_the_schema_does_not() -> None:
    (wrong, unknown) = explain.explain(bytes.fromhex("1d01000000 f80701"), scalars.types().Scalars.DESCRIPTOR)
    assert (wrong.kind, wrong.value) == ("wrong wire type", "kept as unknown")
    assert (unknown.name, unknown.kind, unknown.value) == ("", "unknown", "1")


def test_packed_and_enums_are_spelled_out() -> None:
    shapes = scalars.types().Shapes(packed=[1, -1], unpacked=[5])
    assert [p.value for p in explain.explain(shapes.SerializeToString(), shapes.DESCRIPTOR)] == ["packed: 1, -1", "5"]
    enum = scalars.types().Scalars(an_enum=-1)
    assert explain.explain(enum.SerializeToString(), enum.DESCRIPTOR)[0].value == "-1 = COLOUR_INFRARED"


def test_varint_steps_add_up() -> None:
    steps = explain.varint_steps(bytes.fromhex("ac02"))
    assert [s["adds"] for s in steps] == ["44 × 2^0 = 44", "2 × 2^7 = 256", "sum = 300"]


# the table of types


def test_every_row_of_the_guides_table() -> None:
    rows = scalars.table()
    assert len(rows) == 17
    by = {row["proto"]: row for row in rows}
    assert by["int32"]["bytes"] == by["int64"]["bytes"] == by["enum"]["bytes"] == 10
    assert by["sint32"]["bytes"] == 1
    assert by["fixed32"]["bytes"] == by["float"]["bytes"] == 4
    assert {row["Python"] for row in rows if "int" in row["proto"] or "fixed" in row["proto"]} == {"int"}
    wrong = [row.proto for row in scalars.GUIDE if row.go not in ("N", by[row.proto]["Go"])]
    assert wrong == ["enum"]


@pytest.mark.parametrize(
    ("kind", "value", "size"),
    [
        ("int32", -1, 10), ("sint32", -1, 1), ("fixed32", 1, 4), ("uint32", 2**28 - 1, 4), ("uint32", 2**28, 5),
        ("uint64", 2**56 - 1, 8), ("uint64", 2**56, 9), ("fixed64", 2**56, 8), ("int32", 0, 1),
    ],
)  # fmt: skip
def test_payload_sizes(kind: str, value: int, size: int) -> None:
    assert scalars.payload_size(kind, value) == size


def test_magnitudes_stay_in_range() -> None:
    values = scalars.magnitudes(31, negative=True, most=2**31 - 1)
    assert min(values) == -(2**31)
    assert max(values) == 2**31 - 1
    assert values == sorted(set(values))


# evolution


@pytest.mark.parametrize("change", evolution.CHANGES, ids=lambda c: c.name)
def test_changes_do_what_the_chapter_says(change: evolution.Change) -> None:
    assert evolution.meet(change) == (change.forward, change.backward)


def test_verdicts() -> None:
    verdicts = {row["change"]: row["verdict"] for row in evolution.rows()}
    assert verdicts["a field is added"] == "safe"
    assert verdicts["a number is reused, the same wire type"] == "breaks: a wrong value, no error"
    assert verdicts["bytes becomes string"] == "breaks: an error"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("message M { reserved 2; int32 a = 2; }", "reserved number 2"),
        ("message M { int32 a = 19500; }", "reserved for the protocol buffer"),
        ("message M { int32 a = 1; int32 b = 1; }", "already been used"),
        ("message M { int32 a = 0; }", "positive"),
        ("message M { oneof x { repeated int32 a = 1; } }", "must not have labels"),
        ("enum E { A = 1; }", "must be zero"),
        ("message M { required int32 a = 1; }", "not allowed in proto3"),
        ("message M { int32 a = 1 [default = 5]; }", "not allowed in proto3"),
        ("message M { Missing a = 1; }", '"Missing" is not defined'),
    ],
)
def test_protoc_refuses(body: str, says: str) -> None:
    assert says.lower() in compiler.refuse(body).lower()


def test_a_schema_without_syntax_is_proto2() -> None:
    assert compiler.schema("message M { required int32 a = 1; }", header="")["M"].DESCRIPTOR.fields[0].is_required
    with pytest.raises(ToolFailed, match="status 1"):
        compiler.schema("message {")


# malformed bytes


@pytest.mark.parametrize("case", malformed.CASES, ids=lambda c: c.name)
def test_malformed_bytes_are_judged(case: malformed.Case) -> None:
    if case.walker:
        walk(case.data)
    else:
        with pytest.raises(WireError):
            walk(case.data)
    if case.python:
        scalars.types().Scalars.FromString(case.data)
    else:
        with pytest.raises(DecodeError):
            scalars.types().Scalars.FromString(case.data)


# style


@pytest.fixture
def buf() -> Path:
    return Resolver.open().path("buf")


@pytest.mark.toolchain
def test_our_own_protos_keep_the_rules_and_the_guides_package_name_is_the_exception(buf: Path) -> None:
    assert lint.lint(buf, compiler.protos(), "lessons/v1") == []
    found = {f.rule for f in lint.lint(buf, compiler.protos(), "helloworld")}
    assert found == {  # kept, so that the official Greeter's clients go on working
        "PACKAGE_VERSION_SUFFIX", "RPC_REQUEST_RESPONSE_UNIQUE", "RPC_REQUEST_STANDARD_NAME",
        "RPC_RESPONSE_STANDARD_NAME", "SERVICE_SUFFIX",
    }  # fmt: skip


@pytest.mark.toolchain
def test_the_guides_pics_has_lower_snake_case_fields(buf: Path, tmp_path: Path) -> None:
    assert [(f.line, f.rule) for f in lint.lint(buf, GUIDE, "pics.proto")] == [
        (2, "PACKAGE_DIRECTORY_MATCH"), (2, "PACKAGE_VERSION_SUFFIX"),
    ]  # fmt: skip
    text = (GUIDE / "pics.proto").read_text()
    (tmp_path / "pics.proto").write_text(re.sub(r"\b(\w+)( = 1;)", r"Name\2", text, count=1))
    assert "FIELD_LOWER_SNAKE_CASE" in {f.rule for f in lint.lint(buf, tmp_path, "pics.proto")}


@pytest.mark.toolchain
@pytest.mark.parametrize("text", ['import "nope.proto";', "message {", None])
def test_what_does_not_compile_or_is_not_there_is_no_list_of_breaches(
    buf: Path, tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "a.proto").write_text(f'syntax = "proto3"; {text}')
    with pytest.raises(ToolFailed, match=r"buf lint --path a\.proto"):
        lint.lint(buf, tmp_path, "a.proto")


def program(folder: Path, status: int, *rows: dict[str, object]) -> Path:
    """Something that prints these rows as buf does, and ends with that status."""
    path = folder / "buf"
    lines = "\n".join(json.dumps(row) for row in rows)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\nexit {status}\n" if rows else f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_what_buf_prints_is_read(tmp_path: Path) -> None:
    one = {"path": "a.proto", "start_line": 2, "type": "PACKAGE_VERSION_SUFFIX", "message": "say v1"}
    whole = {"path": "a.proto", "type": "PACKAGE_DEFINED", "message": "no package"}  # of no line
    assert lint.lint(program(tmp_path, 100, one, whole), tmp_path, "a.proto") == [
        lint.Finding("a.proto", 0, "PACKAGE_DEFINED", "no package"),
        lint.Finding("a.proto", 2, "PACKAGE_VERSION_SUFFIX", "say v1"),
    ]
    assert lint.lint(program(tmp_path, 0), tmp_path, "a.proto") == []


@pytest.mark.parametrize("status", [1, 2, 127])
def test_another_status_of_bufs_is_no_clean_bill(tmp_path: Path, status: int) -> None:
    with pytest.raises(ToolFailed):
        lint.lint(program(tmp_path, status), tmp_path, "a.proto")


# benchmark, installation


def test_records_are_the_same_for_the_same_seed_and_survive_protobuf() -> None:
    rows = benchmark.records(200)
    assert rows == benchmark.records(200)
    assert rows != benchmark.records(200, seed=1)
    logs = benchmark.messages(rows).logs
    assert [log.trace_id for log in logs] == [row["trace_id"] for row in rows]
    assert [log.time_unix_nano for log in logs] == sorted(row["time_unix_nano"] for row in rows)


def test_protobuf_is_smaller_plain_and_packed() -> None:
    by = {row["format"]: row for row in benchmark.sizes(benchmark.records(500))}
    assert by["protobuf"]["bytes"] < by["JSON"]["bytes"] / 1.8
    assert by["protobuf"]["gzip"] < by["JSON"]["gzip"]


def test_ratios() -> None:
    rows = [
        {"format": "json", "bytes": 300, "encode_seconds": 6.0, "decode_seconds": 8.0},
        {"format": "protobuf", "bytes": 150, "encode_seconds": 2.0, "decode_seconds": 1.0},
    ]
    assert benchmark.ratios({"Go": rows}) == [{"language": "Go", "encode": 3.0, "decode": 8.0, "size": 2.0}]


def test_the_guides_profile_lines_work_and_setup_py_test_does_not() -> None:
    lines = install.profile_trial().text.splitlines()
    assert lines[0] == "/usr/local/protobuf/bin/protoc"
    assert re.fullmatch(r"libprotoc \d+(\.\d+)+", lines[1])
    failed = install.setup_py("test")
    assert failed.rc != 0
    assert "invalid command 'test'" in failed.stderr
    assert install.wheel("protobuf")["installed from"] == "a wheel"


def test_wire_type_of_every_scalar_matches_the_specification() -> None:
    expected = {"double": WireType.I64, "float": WireType.I32, "string": WireType.LEN, "sint64": WireType.VARINT}
    for row in scalars.GUIDE:
        if row.proto in expected:
            (field,) = walk(scalars.one(row).SerializeToString())
            assert field.wire_type is expected[row.proto]


@pytest.mark.slow
def test_a_machine_under_load_does_not_turn_the_comparison_round() -> None:
    """Processor time is compared: twice as many programs as processors made a format look slower than it is."""
    rows = benchmark.records(2000)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        (ratio,) = benchmark.ratios({"Python": benchmark.python_speed(rows)})
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert ratio["encode"] > 1.5
    assert ratio["decode"] > 1.5


def test_the_source_tree_of_today_has_no_configure_script() -> None:
    """Why the guide's ./configure && make is replaced (C61 to C65)."""
    assert "configure" not in install.SOURCE_TREE and "CMakeLists.txt" in install.SOURCE_TREE
