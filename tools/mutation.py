"""`make mutation`: how many small changes of the supervisor its tests notice.

mutmut makes every change, one at a time, and runs the tests that reach it. This prints each change that no test
noticed and the share of the others, and fails below 95 %. What is left over, and why, stands in docs/safety.md.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEAST_SHARE = 0.95
# What mutmut says of a change that was noticed; a suspicious one was noticed slowly.
NOTICED = ("killed", "timeout", "suspicious", "segfault", "caught by type check")


def main() -> int:
    """Runs mutmut and judges what it found."""
    mutmut = [sys.executable, "-m", "mutmut"]
    run = subprocess.run([*mutmut, "run"], cwd=ROOT, check=False)
    if run.returncode != 0:
        print("mutmut did not finish; see above", file=sys.stderr)
        return run.returncode
    listed = subprocess.run(
        [*mutmut, "results", "--all", "true"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    results = dict(line.strip().rsplit(": ", 1) for line in listed.splitlines() if ": " in line)
    counts = Counter(results.values())
    for name, result in sorted(results.items()):
        if result not in NOTICED:
            print(f"\n{result}: {name}", flush=True)
            subprocess.run([*mutmut, "show", name], cwd=ROOT, check=False)
    noticed = sum(counts[result] for result in NOTICED)
    share = noticed / max(1, len(results))
    print("\n" + ", ".join(f"{count} {result}" for result, count in sorted(counts.items())))
    print(
        f"{noticed} of {len(results)} changes noticed: {100 * share:.1f} %, at least {100 * LEAST_SHARE:g} % asked for"
    )
    return 0 if share >= LEAST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
