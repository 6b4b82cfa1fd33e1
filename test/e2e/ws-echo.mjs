// A WebSocket echo of npm ws, on three listeners: http, https and a unix socket.
//
//   node ws-echo.mjs '{"cert": "…", "key": "…", "socket": "…"}'
//
// sends every message back as it came. A text "close CODE REASON" makes it close;
// how each connection ended goes to its standard output. It ends when its
// standard input does.
import { createServer as createPlain } from 'node:http';
import { createServer as createSecure } from 'node:https';
import { readFileSync } from 'node:fs';
import { WebSocketServer } from 'ws';

const options = JSON.parse(process.argv[2]);

function echo(server) {
  const sockets = new WebSocketServer({ server, perMessageDeflate: { threshold: 0 }, maxPayload: 4 << 20 });
  sockets.on('connection', (ws, req) => {
    const user = req.headers['x-forwarded-user'] ?? '';
    ws.on('message', (data, binary) => {
      const m = binary ? null : /^close (\d+) (.*)$/.exec(data.toString());
      if (m) return ws.close(Number(m[1]), m[2]);
      if (!binary && data.toString() === 'who') return ws.send(user);
      return ws.send(data, { binary });
    });
    ws.on('error', (err) => console.log(`error ${err.message}`));
    ws.on('close', (code, reason) => console.log(`closed ${code} ${reason}`));
  });
  return server;
}

const listening = (server, ...at) => new Promise((done) => { server.listen(...at, () => done(server.address().port)); });

const http = await listening(echo(createPlain()), 0, '127.0.0.1');
const tls = { cert: readFileSync(options.cert), key: readFileSync(options.key) };
const https = await listening(echo(createSecure(tls)), 0, '127.0.0.1');
await listening(echo(createPlain()), options.socket);
console.log(`echo ${JSON.stringify({ http, https })}`);
process.stdin.resume().on('end', () => process.exit(0));
