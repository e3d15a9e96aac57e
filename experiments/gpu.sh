#!/bin/sh
# Installs keras_prune and Keras from a folder of wheels, and runs gpu.py beside this file on whatever backends the
# Python environment has. No network is needed.
#
#     sh experiments/gpu.sh WHEELS [FLAGS OF gpu.py]
#
# Fill the folder with `pip wheel --no-deps -w WHEELS .` and `pip download --no-deps -d WHEELS keras namex optree`, for
# the Python of the machine with the GPU. SITE names another folder to install into.
set -e
if [ ! -d "$1" ]; then
    echo "The first argument is a folder of wheels. Received: $1" >&2
    exit 2
fi
wheels=$1
shift
site=${SITE:-$(mktemp -d)}
python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$wheels"/*.whl
PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
exec python3 "$(dirname "$0")/gpu.py" "$@"
