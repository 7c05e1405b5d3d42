"""Exit with one line where installing torch would bring several gigabytes of CUDA for no GPU.

On Linux the package index's own build of torch is the one for CUDA. pip is asked what it would
install, without installing it.
"""

import json
import re
import shutil
import subprocess
import sys

CUDA_PACKAGE = re.compile(r"nvidia|cuda|triton")


def packages_that_torch_brings() -> list[str]:
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    command += ["--dry-run", "--report", "-", "-c", "constraints.txt", "torch"]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return [item["metadata"]["name"] for item in json.loads(report)["install"]]


def main() -> None:
    if sys.platform != "linux" or shutil.which("nvidia-smi") is not None:
        return
    if any(CUDA_PACKAGE.match(name) for name in packages_that_torch_brings()):
        sys.exit(
            "No NVIDIA GPU was found, and pip would install torch's CUDA build (several GB): set "
            "PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels (pytorch.org, Get Started) and "
            "run make again."
        )


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
