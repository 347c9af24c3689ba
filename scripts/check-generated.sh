#!/bin/bash
# Fails when a committed generated file is not what go generate makes of the sources. Works on a
# copy of the tree, so it changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
scripts/copy-tree.sh "$copy"
(cd "$copy" && go generate ./...)

# Generated files say so in their first lines; objects stand beside the .go file that embeds them, and
# pages with generated tables mark those.
status=0
while read -r file; do
  if ! cmp -s "$file" "$copy/$file"; then
    echo "not current: $file (run make generate, with Debian 12's clang, and commit the result)"
    status=1
  fi
done < <(cd "$copy" && { grep -rlE --include='*.go' --include='*.s' '^// Code generated .* DO NOT EDIT' . || true; find . -name '*.o'; grep -rl --include='*.md' '^<!-- generated: ' docs; })
exit $status
