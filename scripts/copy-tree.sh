#!/bin/bash
# Copies the source tree as it stands, uncommitted changes and new files included, but nothing that
# git ignores, to a directory.
#   copy-tree.sh DIR
set -euo pipefail
mkdir -p "$1"
dest=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
git ls-files -z --cached --others --exclude-standard |
  while read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file" # deleted, but not yet in a commit
  done |
  tar --create --null --files-from=- | tar --extract --directory "$dest"
