#!/bin/sh
# pip while an image is built: with the authorities of the build secret ca_bundle, if it holds any.
ca=/run/secrets/ca_bundle
[ ! -s "$ca" ] || export PIP_CERT="$ca" SSL_CERT_FILE="$ca"
exec pip "$@"
