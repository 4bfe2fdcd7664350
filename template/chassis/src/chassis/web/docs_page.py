"""The page at /docs, on which a developer can read and try the API. SERVE_DOCS switches it on."""

import html

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

# The browser refuses files with other hashes. To update, get the files by `npm pack swagger-ui-dist@VERSION`, and their
# hashes by `openssl dgst -sha384 -binary FILE | base64`.
_FILES = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0"
_SCRIPT = "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"
_STYLE = "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I"

PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@title@</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{_FILES}/swagger-ui.css" integrity="{_STYLE}" crossorigin="anonymous">
</head>
<body>
<div id="page"></div>
<script src="{_FILES}/swagger-ui-bundle.js" integrity="{_SCRIPT}" crossorigin="anonymous"></script>
<script>SwaggerUIBundle({{url: "openapi.json", dom_id: "#page", deepLinking: true}})</script>
</body>
</html>
"""

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    page = PAGE.replace("@title@", html.escape(request.app.title))
    return HTMLResponse(page, headers={"Content-Security-Policy": "frame-ancestors 'none'"})
