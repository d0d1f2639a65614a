"""Scripts in a folder with a space can be run."""

import subprocess
import sys
from pathlib import Path

from processor.devstack.launchers import mend


def test_a_script_whose_interpreter_has_a_space_in_its_path_can_be_run(tmp_path: Path) -> None:
    folder = tmp_path / "my work"
    folder.mkdir()
    interpreter = folder / "python"
    interpreter.symlink_to(sys.executable)
    script = folder / "awslocal"
    script.write_text(f"#!{interpreter}\nimport sys; print(sys.argv[1:])\n")
    script.chmod(0o755)

    assert mend(folder) == ["awslocal"]

    said = subprocess.run([script, "a b", "c"], capture_output=True, text=True, check=True).stdout
    assert said == "['a b', 'c']\n"


def test_scripts_that_the_kernel_can_start_are_left_alone(tmp_path: Path) -> None:
    script = tmp_path / "awslocal"
    script.write_text(text := f"#!{tmp_path}/python3\nprint(1)\n")

    assert mend(tmp_path) == []
    assert script.read_text() == text
