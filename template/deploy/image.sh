#!/bin/sh
# Platform-owned: `copier update` replaces this file.
# Builds the image, pushes and signs it (`make image`, `make push`, `make sign`), or prints its `name` or `version`. The
# environment has what people, git and pipelines named: VERSION, REPOSITORY, PLATFORM, OUTPUT, NETRC, and IMAGE or DIGEST.
set -eu
export LC_ALL=C
command=$1 service=$2

version=${VERSION:-$(git describe --always --dirty 2>/dev/null || echo 0.0.0)}
# Registries know no capitals, while owners on GitHub do.
repository=$(printf %s "${REPOSITORY:-}" | tr '[:upper:]' '[:lower:]')
case $repository in
*[!a-z0-9._/:-]* | -*)
    echo "REPOSITORY is '$repository', which no registry takes: name it as in registry.example.com/$service" >&2
    exit 2
    ;;
esac
# A tag of git may hold characters that a tag of an image may not, as in release/1.0+2; its length is limited, too.
tag=$(printf %s "$version" | tr -c 'A-Za-z0-9_.-' _ | sed 's/^[.-]/_/' | cut -c 1-128)
layers="type=registry,ref=$repository:layers"
image=${IMAGE:-$repository@${DIGEST:-}}

build() {
    if [ -f "${NETRC:-}" ]; then
        set -- "$@" --secret "id=netrc,src=$NETRC" # what the package index asks for: a secret here, and in no layer
    fi
    if [ -n "$repository" ]; then
        set -- "$@" --tag "$repository:$tag" --cache-from="$layers"
    else
        set -- "$@" --tag "$service"
    fi
    (set -x && docker build "$@" --build-arg "VERSION=$version" .)
}

case $command in
version) printf '%s\n' "$version" ;;
name) printf '%s\n' "$image" ;;
build) build ;;
push)
    if [ -z "$repository" ]; then
        echo "say where to: make push REPOSITORY=registry.example.com/$service" >&2
        exit 2
    fi
    # For production's nodes, whatever this machine is: on another kind of machine Docker emulates them.
    build --platform "$PLATFORM" --cache-to="$layers,mode=max"
    docker push --quiet "$repository:$tag"
    digest=$(docker inspect "$repository:$tag" | grep -o "$repository@sha256:[0-9a-f]*" | head -n 1)
    test -n "$digest"
    echo "DIGEST=${digest#*@}" | tee -a ${OUTPUT:+"$OUTPUT"}
    ;;
sign)
    cosign sign --yes "$image"
    cosign attest --yes --type cyclonedx --predicate build/sbom.json "$image"
    ;;
esac
