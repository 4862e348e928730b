// Node's own client with kept connections. Prints the answers' bodies as JSON.
// node client.js PORT agent COUNT CONNECTIONS | trailers
const http = require('node:http');

const [port, what, count, connections] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: Number(connections ?? 1) });

function exchange(options, send) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, agent, ...options }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (data) => (body += data));
      response.on('end', () => resolve(body));
      response.on('error', reject);
    });
    request.on('error', reject);
    send(request);
  });
}

const actions = {
  agent: () => {
    const get = () => exchange({ path: '/' }, (request) => request.end());
    return Promise.all(Array.from({ length: Number(count) }, get));
  },
  trailers: () => {
    const send = (request) => {
      request.write('abc');
      request.addTrailers({ 'X-Sum': '3' });
      request.end();
    };
    return exchange({ path: '/hash', method: 'POST', headers: { Trailer: 'X-Sum' } }, send);
  },
};

actions[what]().then((bodies) => {
  console.log(JSON.stringify(bodies));
  agent.destroy();
});
