#!/bin/sh
# Platform-owned: `copier update` replaces this file.
# Build the image, push it or sign it (`make image`, `make push`, `make sign`); or print its `name`, its `version` or, with
# `published`, the newest earlier commit that has an image. The Makefile passes VERSION, REPOSITORY, PLATFORM, OUTPUT, NETRC,
# and IMAGE or DIGEST in the environment, because people, git and pipelines choose these values.
set -eu
export LC_ALL=C
command=$1 service=$2

version=${VERSION:-$(git describe --always --dirty 2>/dev/null || echo 0.0.0)}
# A name in a registry has no capitals, but the name of a GitHub owner may have.
repository=$(printf %s "${REPOSITORY:-}" | tr '[:upper:]' '[:lower:]')
case $repository in
*[!a-z0-9._/:-]* | -*)
    echo "REPOSITORY is '$repository', which is not the name of a repository in a registry: use a name such as registry.example.com/$service" >&2
    exit 2
    ;;
esac
# A Git tag may contain characters that the tag of an image may not, as in release/1.0+2. An image's tag is also shorter.
tag=$(printf %s "$version" | tr -c 'A-Za-z0-9_.-' _ | sed 's/^[.-]/_/' | cut -c 1-128)
layers="type=registry,ref=$repository:layers"
image=${IMAGE:-$repository@${DIGEST:-}}

build() {
    if [ -f "${NETRC:-}" ]; then
        set -- "$@" --secret "id=netrc,src=$NETRC" # the credentials of the package index are a secret of the build, which no layer contains
    fi
    if [ -n "$repository" ]; then
        set -- "$@" --tag "$repository:$tag" --cache-from="$layers"
    else
        set -- "$@" --tag "$service"
    fi
    (set -x && docker build "$@" --build-arg "VERSION=$version" .)
}

# Add the packages that only the image has to the list of `make sbom`, if that list exists.
complete_sbom() {
    [ -f build/sbom.json ] || return 0
    docker run --rm --interactive --network none --platform "$PLATFORM" --entrypoint python "$1" -c "$(cat deploy/sbom.py)" \
        <build/sbom.json >build/sbom.whole
    mv build/sbom.whole build/sbom.json
}

need_repository() {
    if [ -z "$repository" ]; then
        echo "REPOSITORY is not set: make $command REPOSITORY=registry.example.com/$service" >&2
        exit 2
    fi
}

# Registries report a missing image, or a repository without images, with different messages.
is_published() {
    if answer=$(docker buildx imagetools inspect "$repository:$1" 2>&1); then return 0; fi
    case $answer in
    *"not found"* | *"manifest unknown"* | *"name unknown"* | *denied* | *"403 Forbidden"*) return 1 ;;
    esac
    printf '%s\n' "$answer" >&2
    exit 1
}

case $command in
version) printf '%s\n' "$version" ;;
name) printf '%s\n' "$image" ;;
published)
    need_repository
    commits=$(git rev-list --first-parent --skip=1 --max-count=50 HEAD)
    base=HEAD
    for commit in $commits; do
        if is_published "$commit"; then
            base=$commit && break
        fi
    done
    if [ $base = HEAD ]; then
        echo "$repository has no image of the last 50 commits before this commit, so there is nothing to compare with." >&2
    fi
    echo "BASE=$base" | tee -a ${OUTPUT:+"$OUTPUT"}
    ;;
build) build ;;
push)
    need_repository
    # Build for the platform of production's nodes, which Docker emulates on a machine with another platform.
    build --platform "$PLATFORM" --cache-to="$layers,mode=max"
    complete_sbom "$repository:$tag"
    docker push --quiet "$repository:$tag"
    digest=$(docker inspect "$repository:$tag" | grep -o "$repository@sha256:[0-9a-f]*" | head -n 1)
    test -n "$digest"
    echo "DIGEST=${digest#*@}" | tee -a ${OUTPUT:+"$OUTPUT"}
    ;;
sign)
    cosign sign --yes "$image"
    cosign attest --yes --type cyclonedx --predicate build/sbom.json "$image"
    # GitLab's runner writes the origin of the image next to the artifacts of the job.
    python3 -c 'import json; print(json.dumps(json.load(open("artifacts-metadata.json"))["predicate"]))' >build/provenance.json
    cosign attest --yes --type slsaprovenance1 --predicate build/provenance.json "$image"
    ;;
esac
