"""Format the map as one HTML file of its own, which needs no network, no other files and no server."""

from fleet.page.parts import digest, environment, part
from fleet.service.waivers import today

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{{ digest }}'">
<title>The map of the fleet on {{ today }}</title>
<style>{{ style | safe }}</style>
</head>
<body class="map-page">
<main>
<section id="map" aria-labelledby="map-title">
<h1 id="map-title">The map of the fleet on {{ today }}</h1>
{{ section | safe }}
</section>
</main>
<script>{{ script | safe }}</script>
</body>
</html>
"""


def map_page(section: str) -> str:
    """Format the page. `section` is trusted HTML of fleet.map.show."""
    script = part("map.js")
    return (
        environment()
        .from_string(PAGE)
        .render(
            section=section,
            today=today(),
            style=part("page.css") + part("map.css"),
            script=script,
            digest=digest(script),
        )
        + "\n"
    )
