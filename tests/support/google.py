"""A stand-in for Google's object store on this machine: moto's S3 server, with Google's words for conditions
(generations in place of tags), copies, and objects that are not there.

    python google.py PORT
"""

import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.test import Client

S3 = DomainDispatcherApplication(create_backend_app)
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}


def google(environ, start_response):
    """An application of WSGI: the request in the words of S3, the answer in Google's."""
    environ["HTTP_AUTHORIZATION"] = SIGNED["Authorization"]
    wanted = environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None)
    if wanted == "0":
        environ["HTTP_IF_NONE_MATCH"] = "*"
    elif wanted is not None:
        environ["HTTP_IF_MATCH"] = f'"{int(wanted):032x}"'
    if "HTTP_X_GOOG_COPY_SOURCE" in environ:
        environ["HTTP_X_AMZ_COPY_SOURCE"] = environ["HTTP_X_GOOG_COPY_SOURCE"]
    if environ["REQUEST_METHOD"] == "DELETE" and _is_missing(environ["PATH_INFO"]):
        start_response("404 Not Found", [])
        return [b""]

    def answer(status, headers, *rest):
        tag = dict((name.lower(), value) for name, value in headers).get("etag", "").strip('"')
        more = [("x-goog-generation", str(int(tag, 16)))] if len(tag) == 32 else []
        return start_response(status, [*headers, *more], *rest)

    return S3(environ, answer)


def _is_missing(path):
    return Client(S3).head(path, headers=SIGNED).status_code == 404


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), google, threaded=True)
