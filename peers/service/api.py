"""schemathesis against the server's own OpenAPI text: with its owner's token, with a stranger's,
and with none.

    pip install schemathesis==4.32.5
    python peers/service/api.py [EXAMPLES] [SEED]

EXAMPLES are cases of each operation and phase, 1000 unless another number is given. What fails is
printed by schemathesis; the exit status is 1 then.
"""

import pathlib
import shutil
import subprocess
import sys

from world import World

# A body of bytes is opaque: one that a schema makes is refused by its length or its content.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "413", "422"]

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "408", "409", "411", "413", "422", "431"]

# No schema says that a list has each file once, whatever else it says of it.
[[operations]]
include-name = "PUT /v1/keys/{key}"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]
"""


def run(world, name, token, examples, seed):
    """One run; the number of its cases, and whether it passed."""
    folder = world.path / name
    folder.mkdir()
    (folder / "schemathesis.toml").write_text(CONFIG)
    program = shutil.which("schemathesis", path=str(pathlib.Path(sys.executable).parent)) or "schemathesis"
    header = ["-H", f"Authorization: Bearer {token}"] if token else []
    report = folder / "events.ndjson"
    done = subprocess.run(
        [program, "run", f"{world.server}/openapi.json", *header, "--max-examples", str(examples), "--seed", seed,
         "--workers", "2", "--continue-on-failure", "--suppress-health-check", "all", "--no-color",
         "--report", "ndjson", "--report-ndjson-path", str(report)],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout if done.returncode else done.stdout[-1500:])
    cases = sum(line.count('"status_code"') for line in report.read_text().splitlines())
    print(f"{name}: {cases} requests, exit status {done.returncode}")
    return cases, done.returncode == 0


def main():
    examples = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = sys.argv[2] if len(sys.argv) > 2 else "1"
    with World(limits={"head_seconds": 2}) as world:
        runs = [run(world, name, token, examples, seed)
                for name, token in [("owner", world.token), ("stranger", "0" * 64), ("nobody", None)]]
        faults = [line for line in (world.path / "log").read_text().splitlines()
                  if '"status":5' in line or "panicked" in line]
    print(f"{sum(cases for cases, _ in runs)} requests, {len(faults)} faults of the server")
    print("\n".join(faults[:10]))
    sys.exit(0 if all(passed for _, passed in runs) and not faults else 1)


if __name__ == "__main__":
    main()
