#!/bin/sh
# Registers the sample tenants and event types, so that the fake producers' events are known. Run as the owner of
# the tables; running it again adds nothing.
set -eu

samples=${SAMPLES:-$(python -c 'import pathlib, processor; print(pathlib.Path(processor.__file__).parent / "devstack" / "samples")')}

for tenant in acme globex initech umbrella hooli; do
  processor tenant add "$tenant"
done

publish() {
  file=$1
  shift
  event_type=$(basename "$file" .schema.json)
  # Each publish makes a new version, so only what is not there yet is published.
  processor schema show "$event_type" "$@" >/dev/null 2>&1 ||
    processor schema publish "$event_type" "$file" "$@"
}

for file in "$samples"/*.schema.json; do
  publish "$file"
done
for file in "$samples"/*/*.schema.json; do
  publish "$file" --tenant "$(basename "$(dirname "$file")")"
done
