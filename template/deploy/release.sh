#!/bin/sh
# Platform-owned: `copier update` replaces this file.
# Migrate, then replace the pods, and wait for both (`make deploy`). If the migration fails, the pods stay unchanged.
# KUBECONFIG names a file with the cluster, or KUBE_CONFIG has the text of such a file; KUBE_CONTEXT selects a context.
set -eu
service=$1 overlay=$2 image=$3
deploy=$(cd "$(dirname "$0")" && pwd)

case $image in
*@sha256:*) ;;
*)
    echo "IMAGE is not set to a digest: name the image, as in make deploy OVERLAY=staging IMAGE=registry.example.com/$service@sha256:…" >&2
    exit 2
    ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "${KUBE_CONFIG:-}" ]; then
    (umask 077 && printf '%s\n' "$KUBE_CONFIG" >"$work/kubeconfig")
    export KUBECONFIG="$work/kubeconfig"
fi

# Work in a copy, so that the checkout stays unchanged.
cp -R "$deploy" "$work/deploy"
cd "$work/deploy/overlays/$overlay"
kustomize edit set image "$service=$image"
kustomize build . >"$work/all.yaml"

# Find name and namespace of the migration's Job in the manifests, because an overlay's own base may set either.
found=$(awk '
    /^---/ { show(); kind = name = namespace = component = "" }
    /^[^ ]/ { block = $1 }
    /^kind: / { kind = $2 }
    block == "metadata:" && /^  name: / { name = $2 }
    block == "metadata:" && /^  namespace: / { namespace = $2 }
    block == "metadata:" && /^    app.kubernetes.io\/component: / { component = $2 }
    END { show() }
    function show() { if (kind == "Job" && component == "migrate") print name, namespace }
' "$work/all.yaml")
case $found in
*' ' | '')
    echo "deploy/overlays/$overlay must deploy the migration of deploy/base into a namespace: set 'namespace' in its kustomization.yaml or in the one that it builds on." >&2
    exit 2
    ;;
esac
if [ "$(printf '%s\n' "$found" | wc -l)" -gt 1 ]; then
    echo "deploy/overlays/$overlay has several Jobs with the label app.kubernetes.io/component=migrate, and 'make deploy' waits for one: $(printf '%s\n' "$found" | cut -d ' ' -f 1 | paste -s -d ' ' -). Remove the others, or give them another label." >&2
    exit 2
fi
job=job/${found% *} namespace=${found#* }
k() { kubectl --namespace "$namespace" ${KUBE_CONTEXT:+--context="$KUBE_CONTEXT"} "$@"; }

echo "Migrating $namespace with $image"
k delete "$job" --ignore-not-found # a Job cannot be changed, only replaced
k apply --filename "$work/all.yaml" --selector app.kubernetes.io/component=migrate
k wait "$job" --for='jsonpath={.status.conditions}' --timeout=15m # the Job has ended, with success or not
k logs "$job" --tail=-1 || true
conditions=$(k get "$job" --output 'jsonpath={.status.conditions[*].type}')
case $conditions in
*Fail*)
    echo "The migration failed, so nothing was replaced: docs/runbook.md, \"Deploy\"." >&2
    exit 1
    ;;
esac

echo "Replacing the pods"
k apply --filename "$work/all.yaml"
k rollout status deployment --selector "app.kubernetes.io/name=$service" --timeout=15m
