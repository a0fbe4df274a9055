#!/bin/sh
# Puts the SDK and the compiler into the suite's project, as circles-host new and npm
# install do it.
set -eu
cd "$(dirname "$0")/suite"
rm -rf circles
mkdir circles
cp ../../../../assemblyscript/*.ts ../../../../assemblyscript/*.mjs circles/
npm install --silent --no-package-lock --no-save assemblyscript@0.28.20 >/dev/null
