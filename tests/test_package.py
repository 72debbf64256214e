"""The package: written whole or not at all, loaded as written or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest

from credit_risk import documents, onnx_format, package
from credit_risk.errors import PackageInvalid
from credit_risk.manifest import MANIFEST, VERSION_DIGITS, verify
from credit_risk.scoring import check_golden, decide
from credit_risk.settings import Settings
from tests import toys
from tests.networks import made_up

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A toy package of trees on disk, this test's own."""
    return toys.write_package(tmp_path, "trees")


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest as it stands."""
    manifest: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
    return manifest


def archive(**arrays: npt.NDArray[Any]) -> bytes:
    """An archive as numpy itself writes it, pickles and all."""
    buffer = io.BytesIO()
    # The stub takes every keyword for numpy's one flag.
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


# Written.


@pytest.mark.parametrize("kind", get_args(toys.Kind))
def test_what_was_written_is_loaded(tmp_path: Path, kind: toys.Kind) -> None:
    """Every part comes back, and answers as before."""
    path = toys.write_package(tmp_path, kind)

    loaded = package.load(path, path.name)

    assert loaded.path == path
    assert loaded.version == path.name
    assert loaded.portfolio == toys.NAME
    assert loaded.schema == toys.schema()
    assert loaded.policy == toys.policy()
    assert loaded.reasons == toys.reasons()
    assert loaded.spec == toys.spec(kind)
    assert loaded.profile == toys.population()
    assert loaded.metrics == {"rows": 0}
    assert loaded.provenance.reference.name == "made-up-applicants"
    assert len(loaded.golden) == 8
    np.testing.assert_array_equal(loaded.reference, toys.reference())
    check_golden(loaded)


def test_a_package_lies_under_its_portfolio_and_version(tmp_path: Path) -> None:
    """The manifest names every other file with its SHA-256; folders within are allowed."""
    files = {**toys.package_files("linear"), "plots/roc.png": b"a picture"}

    path = package.write(tmp_path, toys.NAME, files)

    manifest = manifest_of(path)
    assert path == tmp_path / toys.NAME / path.name
    assert manifest["format"] == 1
    assert manifest["portfolio"] == toys.NAME
    assert manifest["files"] == {n: hashlib.sha256(c).hexdigest() for n, c in files.items()}
    assert (path / "plots" / "roc.png").read_bytes() == b"a picture"
    assert package.load(path).digests == manifest["files"]


def test_the_version_is_the_start_of_the_manifests_digest(folder: Path) -> None:
    """Anyone can compute it again."""
    digest = documents.digest_json(manifest_of(folder))
    loaded = package.load(folder)

    assert folder.name == digest[:VERSION_DIGITS] == loaded.version
    assert loaded.digest == digest
    assert len(digest) == 64


def test_the_version_follows_the_content_and_nothing_else(tmp_path: Path) -> None:
    """Not the place, the time or the order in which files were given."""
    files = toys.package_files("linear")
    backwards = dict(reversed(files.items()))

    one = package.write(tmp_path / "one", toys.NAME, files)
    other = package.write(tmp_path / "other", toys.NAME, backwards)

    assert one.name == other.name
    assert (one / MANIFEST).read_bytes() == (other / MANIFEST).read_bytes()


@pytest.mark.parametrize("change", ["content", "name", "one file more", "portfolio"])
def test_any_change_of_content_is_another_version(tmp_path: Path, change: str) -> None:
    """One byte, one name, one file, or whose it is."""
    files = toys.package_files("linear")
    changed = {
        "content": files | {"card.md": b"# A toy!\n"},
        "name": {("CARD.md" if n == "card.md" else n): c for n, c in files.items()},
        "one file more": files | {"notes.md": b""},
        "portfolio": files,
    }[change]
    portfolio = "tricycle-leases" if change == "portfolio" else toys.NAME

    assert package.write(tmp_path, toys.NAME, files).name != (
        package.write(tmp_path, portfolio, changed).name
    )


def test_writing_the_same_again_leaves_what_is_there(folder: Path) -> None:
    """A server that has it open is not disturbed."""
    before = (folder / MANIFEST).stat()

    again = package.write(folder.parent.parent, toys.NAME, toys.package_files("trees"))

    after = (folder / MANIFEST).stat()
    assert again == folder
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A folder appears at once or not at all."""
    clash = {"plots": b"a file", "plots/roc.png": b"a file in it"}

    with pytest.raises(OSError, match="plots"):
        package.write(tmp_path, toys.NAME, clash)

    assert list((tmp_path / toys.NAME).iterdir()) == []


def test_others_may_read_a_package(folder: Path) -> None:
    """It was staged in a private folder, and does not stay private."""
    assert folder.stat().st_mode & 0o777 == 0o755


def test_the_policy_version_holds_the_start_of_its_digest(folder: Path) -> None:
    """An edit cannot hide behind an old number."""
    loaded = package.load(folder)

    assert loaded.policy_version == f"2.1.0+{loaded.digests['policy.yaml'][:8]}"


def test_any_edit_of_the_policy_changes_the_policy_version(tmp_path: Path) -> None:
    """Even where its author left the number as it was, and even of a comment."""
    edited = toys.write_package(tmp_path, "trees", policy_yaml=toys.POLICY.encode() + b"# kinder\n")
    before = toys.write_package(tmp_path, "trees")

    versions = {package.load(path).policy_version for path in (edited, before)}

    assert len(versions) == 2
    assert {version.partition("+")[0] for version in versions} == {"2.1.0"}


# Verified.


@pytest.mark.parametrize("name", sorted(toys.package_files("trees")))
def test_a_file_that_was_altered_is_refused_by_name(folder: Path, name: str) -> None:
    """One more byte is enough, in any file."""
    with (folder / name).open("ab") as file:
        file.write(b" ")

    with pytest.raises(PackageInvalid, match=f"package {folder.name}: {name} was altered"):
        package.load(folder)


@pytest.mark.parametrize("name", ["trees.npz", "schema.yaml", "card.md"])
def test_a_file_that_was_cut_short_is_refused_by_name(folder: Path, name: str) -> None:
    """As by a full disk."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])

    with pytest.raises(PackageInvalid, match=f"{name} was altered"):
        package.load(folder)


@pytest.mark.parametrize("name", sorted(toys.package_files("trees")))
def test_a_file_that_is_missing_is_refused_by_name(folder: Path, name: str) -> None:
    """Even the card."""
    (folder / name).unlink()

    with pytest.raises(PackageInvalid, match=f"package {folder.name}: {name} is missing"):
        package.load(folder)


@pytest.mark.parametrize("name", ["extra.py", "plots/extra.png", ".hidden"])
def test_a_file_that_is_not_in_the_manifest_is_refused_by_name(folder: Path, name: str) -> None:
    """Nothing slips in."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")

    with pytest.raises(PackageInvalid, match=f"{name} is not in the manifest"):
        verify(folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    """It is no package, or is not there."""
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(PackageInvalid, match=r"^manifest\.json: cannot be read: No such file"):
            package.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "manifest.json: .*Invalid JSON"),
        (b"\xff", "manifest.json: "),
        (b"[]", "manifest.json: "),
        (b'{"format": 1, "portfolio": "x"}', "manifest.json: files: Field required"),
        (b'{"format": 1, "portfolio": "x", "files": {}, "signed": true}', "manifest.json: signed"),
        (b'{"format": 2, "portfolio": "x", "files": {}}', "package format 2, this server reads 1"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(folder: Path, content: bytes, message: str) -> None:
    """Not JSON, not ours, or of a format yet to come."""
    (folder / MANIFEST).write_bytes(content)

    with pytest.raises(PackageInvalid, match=message):
        package.load(folder)


def test_a_package_other_than_the_one_asked_for_is_refused(folder: Path) -> None:
    """Whoever altered a file and mended the manifest has made another version."""
    (folder / "card.md").write_bytes(b"# Better than it is\n")
    manifest = manifest_of(folder)
    manifest["files"]["card.md"] = hashlib.sha256(b"# Better than it is\n").hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    assert package.load(folder).version != folder.name
    with pytest.raises(PackageInvalid, match=f"package {folder.name}: the folder holds "):
        package.load(folder, folder.name)


# Loaded: the sums are right, the content is not.


def other(text: str, old: str, new: str) -> bytes:
    """A data file with one thing replaced."""
    assert old in text
    return text.replace(old, new).encode()


def directory(place: int, value: int) -> bytes:
    """A good archive with one byte of its directory's first entry replaced."""
    content = bytearray(package.npz(FOREST))
    content[content.index(b"PK\x01\x02") + place] = value
    return bytes(content)


FOREST = toys.forest().arrays()
CIRCLE = {name: array.copy() for name, array in FOREST.items()}
CIRCLE["left"][0] = 0
SPEC = toys.package_files("trees")["model.json"]
GOLDEN = toys.package_files("trees")["golden.json"]
PROVENANCE = toys.package_files("trees")["provenance.json"]
PROFILE = toys.package_files("trees")["profile.json"].decode()
OBJECTS = np.array([{"a": "pickle"}], dtype=object)
LONE = io.BytesIO()
np.save(LONE, toys.reference())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("schema_yaml", b"portfolio: [", r"schema\.yaml: not valid YAML"),
        ("schema_yaml", b"\xff", r"schema\.yaml: not UTF-8"),
        ("schema_yaml", None, r"schema\.yaml: cannot be read"),
        (
            "schema_yaml",
            other(toys.SCHEMA, "portfolio: bicycle", "portfolio: tricycle"),
            "a file says it belongs to 'tricycle-leases'",
        ),
        (
            "policy_yaml",
            other(toys.POLICY, "portfolio: bicycle", "portfolio: tricycle"),
            "a file says it belongs to 'tricycle-leases'",
        ),
        (
            "reasons_yaml",
            other(toys.REASONS, "portfolio: bicycle", "portfolio: tricycle"),
            "a file says it belongs to 'tricycle-leases'",
        ),
        (
            "schema_yaml",
            other(toys.SCHEMA, "[good, mixed, poor]", "[mixed, good]"),
            "rule poor-history-and-racing, field history: unknown category 'poor'",
        ),
        (
            "profile_json",
            other(PROFILE, '"field": "age"', '"field": "agee"'),
            r"profile\.json does not describe the schema's fields",
        ),
        (
            "policy_yaml",
            other(toys.POLICY, "field: price,", "field: rent,"),
            "rule price-above-limit, field rent: not in the schema",
        ),
        (
            "policy_yaml",
            other(toys.POLICY, "upper: 0.1,", "upper: 0.09,"),
            r"policy\.yaml: .*leaves a gap",
        ),
        (
            "reasons_yaml",
            other(toys.REASONS, "code: PURPOSE_OF_LEASE", "code: PURPOSE"),
            "PURPOSE_OF_LEASE of field use has no approved text",
        ),
        ("model_json", None, r"model\.json: cannot be read"),
        ("model_json", b"{", r"model\.json: : Invalid JSON"),
        ("model_json", toys.edited(SPEC, {"kind": "magic"}), r"model\.json: kind: "),
        ("model_json", toys.edited(SPEC, {"encoder": None}), "needs an encoder"),
        ("model_json", toys.edited(SPEC, {"kind": "linear"}), "one coefficient for each column"),
        (
            "model_json",
            toys.edited(SPEC, {"calibration": {"slope": float("nan"), "intercept": 0}}),
            r"model\.json: calibration\.slope: ",
        ),
        (
            "model_json",
            SPEC.replace(b'"field":"price"', b'"field":"fees"').replace(
                b'"field": "price"', b'"field": "fees"'
            ),
            "reads fees, which is not a field",
        ),
        ("reference_npz", None, r"reference\.npz: cannot be read"),
        ("reference_npz", b"", r"reference\.npz: cannot be read"),
        ("reference_npz", b"PK\x03\x04 and no more", r"reference\.npz: cannot be read"),
        ("reference_npz", LONE.getvalue(), r"reference\.npz: cannot be read"),
        ("reference_npz", pickle.dumps([1]), r"reference\.npz: cannot be read"),
        ("reference_npz", archive(rows=OBJECTS), r"reference\.npz: cannot be read: .*allow_pickle"),
        ("reference_npz", archive(group=toys.reference()), "reference.npz does not hold rows"),
        ("reference_npz", archive(rows=np.ones((3, 5))), "reference.npz does not hold rows"),
        ("reference_npz", archive(rows=np.ones(6)), "reference.npz does not hold rows"),
        ("reference_npz", archive(rows=np.ones((0, 6))), "reference.npz does not hold rows"),
        (
            "reference_npz",
            archive(rows=np.full((3, 6), "much")),
            "reference.npz does not hold rows",
        ),
        ("trees_npz", None, r"trees\.npz: cannot be read"),
        ("trees_npz", package.npz(FOREST)[:-40], r"trees\.npz: cannot be read"),
        ("trees_npz", archive(**FOREST | {"value": OBJECTS}), r"trees\.npz: .*allow_pickle"),
        ("trees_npz", directory(8, 1), r"trees\.npz: cannot be read: .*encrypted"),
        ("trees_npz", directory(10, 99), r"trees\.npz: cannot be read: .*compression method"),
        ("trees_npz", package.npz({}), "trees: array missing or malformed: 'base'"),
        ("trees_npz", package.npz(CIRCLE), "trees: the nodes do not form a forest"),
        ("profile_json", None, r"profile\.json: cannot be read"),
        ("profile_json", b'{"group": 3}', r"profile\.json: group: "),
        ("golden_json", None, r"golden\.json: cannot be read"),
        (
            "golden_json",
            GOLDEN.replace(b"VERY_HIGH", b"VERY_LOW"),
            r"golden\.json: records\.\d+\.band",
        ),
        ("metrics_json", None, r"metrics\.json: cannot be read"),
        ("metrics_json", b"[1, 2]", r"metrics\.json: "),
        ("metrics_json", b"roc_auc: 1", r"metrics\.json: : Invalid JSON"),
        ("provenance_json", None, r"provenance\.json: cannot be read"),
        ("provenance_json", b"{}", r"provenance\.json: settings: Field required"),
        (
            "provenance_json",
            toys.edited(PROVENANCE, {"trained_on": None}),
            r"provenance\.json: .*give either trained_on or evaluated_on",
        ),
        (
            "provenance_json",
            toys.edited(PROVENANCE, {"evaluated_on": {"name": "the same"}}),
            r"provenance\.json: .*give either trained_on or evaluated_on",
        ),
    ],
)
def test_content_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """Unreadable, inconsistent or of another kind: one error, which names the file or the rule."""
    path = toys.write_package(tmp_path, "trees", **{name: content})

    with pytest.raises(PackageInvalid, match=message):
        package.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"network\.onnx: cannot be read: No such file"),
        (b"", r"network\.onnx: cannot be read: not the model of a network"),
        (
            onnx_format.write(made_up(columns=8, hidden=(2,))),
            "network: it takes another number of columns than the encoder makes",
        ),
    ],
)
def test_a_network_that_cannot_be_used_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    """Not there, not ONNX, or not this package's."""
    path = toys.write_package(tmp_path, "network", network_onnx=content)

    with pytest.raises(PackageInvalid, match=message):
        package.load(path)


def test_a_damaged_archive_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    """Or it does not show, in bytes that carry nothing."""
    whole = package.npz(FOREST)
    rows = toys.schema().matrix(toys.applications(5))
    expected = toys.build("trees").log_odds(rows)
    refused = 0

    for place in range(0, len(whole), 23):
        damaged = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        path = toys.write_package(tmp_path, "trees", trees_npz=damaged)
        try:
            loaded = package.load(path)
        except PackageInvalid:
            refused += 1
        else:
            np.testing.assert_array_equal(loaded.model.log_odds(rows), expected)

    assert refused > len(whole) // 23 / 2


def test_a_missing_number_stays_missing_through_a_package(tmp_path: Path) -> None:
    """An encoder's fill of NaN is written as NaN and read as NaN."""
    columns = [
        c.model_copy(update={"fill": float("nan")}) if c.name == "years_employed" else c
        for c in toys.encoder().columns
    ]
    encoder = toys.encoder().model_copy(update={"columns": tuple(columns)})
    spec = toys.spec("trees").model_copy(update={"encoder": encoder})

    path = toys.write_package(tmp_path, "trees", model_json=spec.model_dump_json().encode())

    # By its default a missing number of years goes right, to -1.5; the filled 5 went there too,
    # and the example's 0.5 years go left, to -0.2.
    loaded = package.load(path)
    example = toys.schema().example
    missing, few = (
        decide(loaded, [example | {"years_employed": years}])[0].log_odds for years in (None, 0.5)
    )
    assert few - missing == pytest.approx(1.2 * 1.3)


# Those that are shipped.


# Its words alone.


def test_the_words_of_a_package_are_those_it_decides_with(folder: Path) -> None:
    """Verified as a whole, though the model is not loaded."""
    words = package.wordings(folder, folder.name)
    loaded = package.load(folder)

    assert (words.policy, words.reasons) == (loaded.policy, loaded.reasons)
    assert words.reasons_sha256 == loaded.digests["reasons.yaml"]
    assert words.review_texts("DECLINE") == loaded.reasons.texts
    assert "COMPENSATING_FACTORS" in words.review_texts("APPROVE")
    assert "LENGTH_OF_EMPLOYMENT" not in words.review_texts("APPROVE")


def test_the_words_of_an_altered_package_are_not_given(folder: Path) -> None:
    """Nor those of another version, nor what cannot be read."""
    with pytest.raises(PackageInvalid, match="the folder holds"):
        package.wordings(folder, "0123456789ab")
    broken = toys.write_package(folder.parents[1], "trees", reasons_yaml=b"reasons: 1\n")
    with pytest.raises(PackageInvalid, match=r"reasons\.yaml: .*reasons"):
        package.wordings(broken, broken.name)
    (folder / "card.md").write_bytes(b"another")
    with pytest.raises(PackageInvalid, match=r"card\.md was altered"):
        package.wordings(folder, folder.name)


@pytest.mark.parametrize("portfolio", ["credit-cards", "personal-loans"])
def test_a_shipped_package_gives_its_golden_answers(portfolio: str) -> None:
    """The default of each portfolio, on whatever machine this runs."""
    folder: Path = Settings.model_fields["packages_dir"].default / portfolio
    version = (folder / "default").read_text(encoding="utf-8").strip()

    loaded = package.load(folder / version, version)

    assert loaded.portfolio == portfolio
    check_golden(loaded)
    decisions = {record.decision for record in loaded.golden}
    assert decisions == {"APPROVE", "REVIEW", "DECLINE"}


# Archives.


def test_an_archive_depends_on_nothing_but_its_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on the time of day, which numpy's own writer stamps into it."""
    first = package.npz(FOREST)
    monkeypatch.setattr("time.time", lambda: 2e9)

    assert package.npz(FOREST) == first


def test_an_archive_is_one_that_numpy_reads() -> None:
    """Names, types and values."""
    with np.load(io.BytesIO(package.npz(FOREST))) as arrays:
        assert list(arrays) == list(FOREST)
        for name, array in FOREST.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)


def test_an_archive_holds_no_objects() -> None:
    """They would need a pickle."""
    with pytest.raises(ValueError, match="allow_pickle"):
        package.npz({"objects": OBJECTS})
