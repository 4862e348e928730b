// An application's server: logs each request to a file, a line each, and answers by its path.
// node server.js PORT NAME LOG
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');

const [port, name, log] = process.argv.slice(2);
const waiting = [];

const server = http.createServer((request, response) => {
  const { method, url, headers, rawHeaders } = request;
  fs.appendFileSync(log, JSON.stringify({ method, url, headers, names: rawHeaders.filter((_, at) => at % 2 === 0) }) + '\n');
  answers(url)(request, response);
});

function answers(url) {
  switch (url) {
    case '/echo': // chunked, while it comes in
      return (request, response) => request.pipe(response);
    case '/hash':
      return hash;
    case '/trailers':
      return (request, response) => {
        response.writeHead(200, { Trailer: 'X-Sum' });
        response.write('abc');
        response.addTrailers({ 'X-Sum': '3' });
        response.end();
      };
    case '/unchanged':
      return (request, response) => response.writeHead(request.headers['if-none-match'] ? 304 : 200, { ETag: '"a"' }).end();
    case '/events': // the next event is sent when somebody asks for /next
      return (request, response) => {
        response.writeHead(200, { 'Content-Type': 'text/event-stream' });
        response.write('data: 0\n\n');
        waiting.push({ response, count: 0 });
      };
    case '/next':
      return (request, response) => {
        for (const stream of waiting) stream.response.write(`data: ${++stream.count}\n\n`);
        response.end();
      };
    default:
      return (request, response) => response.end(name);
  }
}

function hash(request, response) {
  const sum = crypto.createHash('sha256');
  let bytes = 0;
  request.on('data', (data) => {
    sum.update(data);
    bytes += data.length;
  });
  request.on('end', () => response.end(JSON.stringify({ bytes, sha256: sum.digest('hex'), trailers: request.trailers })));
}

// WebSocket (RFC 6455): sends each message back, as far as this needs.
server.on('upgrade', (request, socket, head) => {
  const key = request.headers['sec-websocket-key'];
  const accept = crypto.createHash('sha1').update(key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  let pending = head;
  const receive = (data) => {
    pending = Buffer.concat([pending, data]);
    for (let frame; (frame = take()); ) {
      socket.write(frame.reply);
      if (frame.opcode === 8) socket.end();
    }
  };
  // Masked frames of less than 64 KiB.
  const take = () => {
    if (pending.length < 2) return undefined;
    const short = pending[1] & 0x7f;
    const start = short === 126 ? 4 : 2;
    if (pending.length < start + 4) return undefined;
    const length = short === 126 ? pending.readUInt16BE(2) : short;
    if (pending.length < start + 4 + length) return undefined;
    const mask = pending.subarray(start, start + 4);
    const payload = pending.subarray(start + 4, start + 4 + length).map((byte, at) => byte ^ mask[at % 4]);
    const header = Buffer.from(pending.subarray(0, start));
    header[1] &= 0x7f;
    const opcode = header[0] & 0x0f;
    pending = pending.subarray(start + 4 + length);
    return { opcode, reply: Buffer.concat([header, payload]) };
  };
  socket.on('data', receive);
  socket.on('error', () => {});
  receive(Buffer.alloc(0));
});

server.listen(Number(port), '127.0.0.1');
