#!/bin/sh
# pip for image builds; trusts the certificate authorities in the build secret ca_bundle, if it is set.
ca=/run/secrets/ca_bundle
[ ! -s "$ca" ] || export PIP_CERT="$ca" SSL_CERT_FILE="$ca"
exec pip "$@"
