"""The overlays in deploy/overlays: one is for production, and fleet can render each of them with the platform's base."""

import re
from abc import abstractmethod
from collections.abc import Iterator

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError, MachineError
from fleet.judges.kustomize import FILE, Manifest, overlays, render_overlay
from fleet.service.service import Service

PRODUCTION = "deploy/overlays/production"
# Kustomize reads these names as well.
OTHER_FILES = ("deploy/overlays/*/kustomization.yml", "deploy/overlays/*/Kustomization")
LONG_RUNNING = ("Deployment", "StatefulSet", "DaemonSet")


class Rendered(Convention):
    """An overlay that fleet cannot render is deployed without being checked."""

    id = "deploy-rendered"
    remedy = (
        "keep an overlay for production, and build overlays of resources, components, patches, images and replicas only"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        folders = overlays(service)
        if PRODUCTION not in folders:
            yield Problem(f"{PRODUCTION}/{FILE}", "there is no overlay for production")
        for path in service.files(*OTHER_FILES):
            yield Problem(path, f"the checks read only files with the name {FILE}")
        for folder in folders:
            try:
                manifests = render_overlay(service, folder)
            except MachineError:
                raise
            except FleetError as error:
                yield Problem(f"{folder}/{FILE}", str(error))
            else:
                if not any(one.get("kind") == "Deployment" for one in manifests):
                    yield Problem(
                        f"{folder}/{FILE}", "the overlay renders no Deployment: it leaves out the platform's base"
                    )


class OverlayConvention(Convention):
    """A rule about every overlay that can be rendered; deploy-rendered reports the others."""

    def check(self, service: Service) -> Iterator[Problem]:
        for folder in overlays(service):
            try:
                manifests = render_overlay(service, folder)
            except FleetError:
                continue
            try:
                found = list(self.problems(manifests, production=_is_production(folder)))
            except (AttributeError, KeyError, TypeError) as error:
                raise FleetError(f"{folder} has a manifest that no cluster would accept: {error!r}") from None
            yield from (Problem(f"{folder}/{FILE}", what) for what in found)

    @abstractmethod
    def problems(self, manifests: list[Manifest], *, production: bool) -> Iterator[str]: ...


def _is_production(folder: str) -> bool:
    """Return whether an overlay is for production: production, production-eu, eu/production."""
    return any(re.fullmatch(r"prod(uction)?([-_.].*)?", name) for name in folder.split("/"))


def name_of(manifest: Manifest) -> str:
    """Name a manifest for people: `Deployment billing-api`."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"
