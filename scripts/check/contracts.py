"""Validates an OpenAPI document by the OpenAPI Initiative's schema; scripts/check/contracts calls it with its path."""

import json
import pathlib
import sys

from openapi_spec_validator import OpenAPIV31SpecValidator

path = pathlib.Path(sys.argv[1])
document = json.loads(path.read_text(encoding="utf-8"))
errors = list(OpenAPIV31SpecValidator(document).iter_errors())
for error in errors:
    print(f"check/contracts: {path} at /{'/'.join(map(str, error.absolute_path))}: {error.message}", file=sys.stderr)
if errors or not document["paths"]:
    sys.exit(f"check/contracts: {len(errors)} errors in {path}")
print(f"check/contracts: {path} is OpenAPI {document['openapi']} with {len(document['paths'])} paths")
