// A WebSocket client of npm ws.
//
//   node ws-client.mjs '{"url": "wss://127.0.0.1:1/ws-http", "host": "…", "cookie": "…", "ca": "…",
//                        "seed": 1, "messages": 100, "close": [4001, "bye"]}'
//
// sends random messages, pings in between, and compares what comes back byte for
// byte. Then one side closes: with close it is the client, with ask (a code and a
// reason) the server. With hold it only stays. It prints what it saw as JSON, and
// "open" once it is connected; it ends when its standard input does.
import { readFileSync } from 'node:fs';
import { randomFillSync } from 'node:crypto';
import WebSocket from 'ws';

const o = JSON.parse(process.argv[2]);
process.stdin.resume().on('end', () => process.exit(0));

let state = o.seed >>> 0; // mulberry32: what failed can be had again
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const below = (n) => Math.floor(random() * n);

// Sizes at the borders of the frame's three lengths, and anything up to 1 MiB.
const sizes = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20];
const someSize = () => (random() < 0.5 ? sizes[below(sizes.length)] : below(1 << (1 + below(20))));

function someMessage() {
  const n = someSize();
  if (random() < 0.5) { // text, half of it of several bytes a sign
    const unit = random() < 0.5 ? 'åäö€😀' : 'abcdef';
    return { binary: false, data: Buffer.from(unit.repeat(Math.ceil(n / unit.length))) };
  }
  const data = Buffer.alloc(n, below(256)); // packs well, or not at all
  return { binary: true, data: random() < 0.5 ? data : randomFillSync(data) };
}

const ws = new WebSocket(o.url, {
  ca: o.ca && readFileSync(o.ca), servername: o.ca && o.host.split(':')[0],
  headers: { Host: o.host, ...(o.cookie && { Cookie: o.cookie }), ...(o.origin && { Origin: o.origin }) },
  perMessageDeflate: o.deflate ? { threshold: 0 } : false, maxPayload: 4 << 20,
});
const seen = { messages: 0, bytes: 0, pings: 0, fragments: 0, wrong: 0, deflate: false };

// send writes a message, whole or in pieces.
function send({ data, binary }) {
  const pieces = 1 + (random() < 0.3 ? below(5) : 0);
  if (pieces === 1) return ws.send(data, { binary });
  seen.fragments += pieces;
  for (let i = 0; i < pieces; i++) {
    const from = Math.floor((data.length * i) / pieces), to = Math.floor((data.length * (i + 1)) / pieces);
    ws.send(data.subarray(from, to), { binary, fin: i === pieces - 1 });
  }
  return undefined;
}

const pinged = [], expected = [];
function more() {
  while (expected.length < 8 && seen.messages + expected.length < o.messages) {
    const message = someMessage();
    expected.push(message);
    send(message);
    if (random() < 0.3) {
      const payload = randomFillSync(Buffer.alloc(below(126)));
      pinged.push(payload);
      ws.ping(payload);
    }
  }
  if (expected.length > 0 || pinged.length > 0) return;
  if (o.ask) ws.send(`close ${o.ask[0]} ${o.ask[1]}`);
  else ws.close(...o.close);
}

ws.on('open', () => {
  seen.deflate = ws.extensions.includes('permessage-deflate');
  console.log('open');
  if (!o.hold) more();
});
ws.on('message', (data, binary) => {
  const want = expected.shift();
  if (!want || want.binary !== binary || !want.data.equals(data)) seen.wrong++;
  seen.messages++;
  seen.bytes += data.length;
  more();
});
ws.on('pong', (payload) => {
  const want = pinged.shift();
  if (!want || !want.equals(payload)) seen.wrong++;
  seen.pings++;
  more();
});
ws.on('unexpected-response', (req, res) => { console.log(`refused ${res.statusCode}`); process.exit(0); });
ws.on('error', (err) => console.log(`error ${err.message}`));
ws.on('close', (code, reason) => {
  console.log(`seen ${JSON.stringify({ ...seen, code, reason: reason.toString() })}`);
  process.exit(0);
});
