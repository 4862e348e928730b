"""What an origin saw of a request, as a line of JSON at the end of a file."""
import hashlib
import json


def note(log, method, target, headers, body, **more):
    """headers: pairs of texts, names in lower case."""
    digest = hashlib.sha256(body).hexdigest()
    line = json.dumps({"method": method, "target": target, "headers": headers, "bytes": len(body), "sha256": digest, **more})
    with open(log, "a", encoding="utf-8") as file:
        file.write(line + "\n")
