"""python3 aiohttp_origin.py PORT LOG"""
import sys

from aiohttp import web

import seen


async def answer(request):
    body = await request.read()
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.raw_headers]
    seen.note(sys.argv[2], request.method, request.raw_path, headers, body)
    return web.Response(text="seen")


app = web.Application()
app.router.add_route("*", "/{tail:.*}", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
