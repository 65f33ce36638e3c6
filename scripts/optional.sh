#!/usr/bin/env bash
# Runs tests/optional once for each package of its requirements, in an environment of its own beside
# this one's packages, and names those that do not install. Further words choose among the packages:
#   bash scripts/optional.sh mlflow comet-ml
set -uo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-$PWD/.venv/bin/python}"
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
torch=$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')
results=$(mktemp -d)
wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || mapfile -t wanted < <(grep -v '^#' tests/optional/requirements.txt)

failed=0
for name in "${wanted[@]}"; do
    place="$results/$name"
    "$python" -m venv "$place"
    # What is here already need not be installed again; what a package needs otherwise comes first.
    echo "$packages" > "$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
    if ! "$place/bin/python" -m pip install --quiet "torch==$torch" "$name" > "$place/pip.log" 2>&1; then
        echo "$name: does not install beside torch $torch: $(grep -m 1 ERROR "$place/pip.log")"
        continue
    fi
    "$place/bin/python" -m pytest -q -p no:cacheprovider --junitxml="$results/$name.xml" tests/optional || failed=1
done
echo "Results for docs/compatibility.py: $results"
exit "$failed"
