from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from trainyard.jobs import install, vendor, zipapp


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zipapp") / "trainyard.pyz"
    zipapp.build(path)
    return path


def run(pyz: Path, code: str, temporary: Path) -> str:
    """Run code with the archive in front, and nothing that is installed here."""
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(pyz)!r})\n{code}"],
        env={"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return result.stdout


PROVIDE = "from trainyard.jobs import vendor; vendor.provide(); import botocore; print(botocore.__file__)"


def test_the_same_inputs_give_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    zipapp.build(tmp_path / "again.pyz")
    assert (tmp_path / "again.pyz").read_bytes() == pyz.read_bytes()


def test_licences_of_what_is_passed_on_travel_with_it(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        names = archive.namelist()
    for name in zipapp.DISTRIBUTIONS:
        assert any(entry.startswith(f"licenses/{name}/") for entry in names)


def test_vendored_packages_are_unpacked_once_and_used(pyz: Path, tmp_path: Path) -> None:
    first = run(pyz, PROVIDE, tmp_path)
    assert first.startswith(str(tmp_path))
    unpacked = list(tmp_path.iterdir())
    assert len(unpacked) == 1
    assert run(pyz, PROVIDE, tmp_path) == first
    assert list(tmp_path.iterdir()) == unpacked


def test_a_folder_that_others_may_write_is_not_run_from(pyz: Path, tmp_path: Path) -> None:
    theirs = Path(run(pyz, PROVIDE, tmp_path)).parents[1]
    (theirs / "botocore" / "__init__.py").write_text("print('evil')")
    theirs.chmod(0o777)
    assert "evil" not in run(pyz, PROVIDE, tmp_path)


def test_the_probe_needs_nothing_vendored_and_loads_little(pyz: Path, tmp_path: Path) -> None:
    code = (
        "from trainyard.jobs.__main__ import main\n"
        "main(['probe', '--port', '1', '--model', 'm'])\n"
        "print(sorted(name for name in ('botocore', 'logging', 'argparse', 'http.client') if name in "
        "sys.modules))"
    )
    assert run(pyz, code, tmp_path).splitlines()[-1] == "[]"
    assert list(tmp_path.iterdir()) == []


def test_the_source_is_python_that_all_images_understand() -> None:
    # The oldest image brings Python 3.10.
    import ast

    for content in zipapp._own().values():
        ast.parse(content, feature_version=(3, 10))


def test_install_puts_the_zipapp_in_place_whole(
    pyz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_ZIPAPP", str(pyz))
    target = install.install(tmp_path / "shared")
    assert target.read_bytes() == pyz.read_bytes()
    assert os.access(target, os.X_OK)
    assert [path.name for path in target.parent.iterdir()] == ["trainyard.pyz"]


def test_install_builds_the_zipapp_where_no_image_brings_one(
    pyz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRAINYARD_ZIPAPP", raising=False)
    assert vendor.running_archive() is None
    assert install.install(tmp_path).read_bytes() == pyz.read_bytes()
