"""Ask for known vulnerabilities of every pinned package.

Exits with 0 where there is none, 1 where there are some, 69 where not all could be asked for.

pip-audit ends well where no advisory could be reached, since it skips what it does not find; so
what was skipped is counted here.
"""

import json
import subprocess
import sys
from pathlib import Path

UNAVAILABLE = 69
"""What sysexits.h has for a service that cannot be reached."""


def audited(pip_audit: str) -> list[dict[str, object]]:
    command = [pip_audit, "--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if not ended.stdout:
        last = ended.stderr.strip().splitlines()[-1:] or ["pip-audit said nothing"]
        print(f"No advisory was reached: {last[0]}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    dependencies: list[dict[str, object]] = json.loads(ended.stdout)["dependencies"]
    return dependencies


def main() -> None:
    packages = audited(str(Path(sys.executable).with_name("pip-audit")))
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        ids = ", ".join(str(one["id"]) for one in package["vulns"])  # type: ignore[attr-defined]
        print(f"{package['name']} {package['version']}: {ids}")
    asked = len(packages) - len(skipped)
    print(f"{asked} of {len(packages)} pinned packages were audited, {len(vulnerable)} vulnerable.")
    if vulnerable:
        sys.exit(1)
    if skipped:
        print("The others are not known where advisories were asked for.", file=sys.stderr)
        sys.exit(UNAVAILABLE)


if __name__ == "__main__":
    main()
